"""
What is common to the heads of requests and responses: the grammar of fields.

llhttp tells names and values apart; the checks here come before it and refuse
every head that somebody could read in another way (RFC 9112 sections 2.2, 5).
"""

from __future__ import annotations

import re

import httptools

Field = tuple[bytes, bytes]
"""Name in lower case, value without surrounding white space."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that end at us (RFC 9110 section 7.6.1)."""

MAX_FIELDS = 200
"""Field lines in one head."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROLS = bytes(range(0x09)) + bytes(range(0x0A, 0x20)) + b"\x7f"
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_NAMES: dict[bytes, bytes] = {}
_NAMES_KEPT = 1024


class BadMessage(Exception):
    """
    A message that nobody should have to interpret.

    @ivar status: what a client is answered for it; a server's answer is 502.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class _Fields:
    """Takes llhttp's call-backs."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((_NAMES.get(name) or _checked_name(name), value.strip(b" \t")))


def _checked_name(name: bytes) -> bytes:
    if not _TOKEN.match(name):
        raise BadMessage("a field name is not a token")
    lower = name.lower()
    if len(_NAMES) < _NAMES_KEPT:
        _NAMES[name] = lower
    return lower


def split_lines(block: bytes) -> list[bytes]:
    """
    @param block: a head with the empty line at its end.
    @return: its lines, the start line first.
    @raise BadMessage: for a bare CR or LF, any other control character, a
        folded line, or too many lines.
    """
    lines = block.split(b"\r\n")
    del lines[-2:]
    if len(block.translate(None, _CONTROLS)) != len(block) - 2 * len(lines) - 2:
        raise BadMessage("a control character in the head")
    if b"\r\n " in block or b"\r\n\t" in block:
        raise BadMessage("a folded field line")
    if len(lines) > MAX_FIELDS + 1:
        raise BadMessage("too many field lines", 431)
    return lines


def read_request_fields(field_block: bytes, lines: int) -> list[Field]:
    """
    @param field_block: the field lines with the empty line at their end.
    @param lines: how many there are.
    """
    reader = _Fields()
    # The start line was read already, with methods that llhttp does not know.
    parser = httptools.HttpRequestParser(reader)
    return _read(parser, reader, b"GET / HTTP/1.1\r\n" + field_block, lines)


def read_response_fields(field_block: bytes, lines: int) -> list[Field]:
    """As L{read_request_fields}, by the rules for responses."""
    reader = _Fields()
    parser = httptools.HttpResponseParser(reader)
    return _read(parser, reader, b"HTTP/1.1 200 OK\r\n" + field_block, lines)


def _read(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser,
    reader: _Fields,
    block: bytes,
    lines: int,
) -> list[Field]:
    try:
        parser.feed_data(block)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserCallbackError as failed:
        if isinstance(failed.__context__, BadMessage):
            raise failed.__context__ from None
        raise
    except httptools.HttpParserError as failed:
        raise BadMessage(f"malformed field: {failed}") from None
    if len(reader.fields) != lines:
        raise BadMessage("a field line that can be read in two ways")
    return reader.fields


def content_length(values: list[bytes]) -> int | None:
    """
    @param values: of all Content-Length fields.
    @return: C{None} when there is none.
    @raise BadMessage: for more than one, a list, a sign, or anything but
        digits (RFC 9112 section 6.3; stricter: equal duplicates too).
    """
    if not values:
        return None
    if len(values) > 1 or not _LENGTH.match(values[0]):
        raise BadMessage("bad Content-Length")
    return int(values[0])


def tokens(values: list[bytes]) -> list[bytes]:
    """The members of a comma-separated list over several fields, in lower case."""
    members = b",".join(values).lower().split(b",")
    return [member for part in members if (member := part.strip(b" \t"))]
