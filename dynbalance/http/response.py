"""
The head of a server's response: read once, strictly, and kept ready to be
passed on.  Pure, and remembered like requests' heads.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from dynbalance.http.fields import (
    HOP_BY_HOP,
    BadMessage,
    Field,
    content_length,
    read_response_fields,
    split_lines,
    tokens,
)

_START = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\Z")
MAX_HEAD = 65536
"""Bytes of a response's head, and of all informational responses before it."""

_KEPT = 2048
CHUNKED = -1
UNTIL_CLOSE = -2


@frozen(slots=True, kw_only=True)
class ResponseHead:
    """
    A response without its body.

    @ivar kind: the first digit of the status, 0 for what is beyond 599.
    @ivar length: bytes of the body, L{CHUNKED}, or L{UNTIL_CLOSE}; of a
        response to HEAD what a GET would have had.
    @ivar bodyless: never has a body: 1xx, 204, 304.
    @ivar keep_alive: whether the server keeps the connection.
    @ivar forward: status line and fields for the client, each line with its
        end, without the closing empty line and without a transfer coding.
    @ivar whole: L{forward} with the closing empty line: all that an HTTP/1.1
        client needs when the length is known.
    @ivar unchanged: whether that is what the server sent, to the byte.
    @ivar upgrade: the protocol switched to, of a 101.
    """

    status: int
    kind: int
    length: int
    bodyless: bool
    keep_alive: bool
    forward: bytes
    whole: bytes
    unchanged: bool
    upgrade: bytes
    fields: tuple[Field, ...]


def parse_response(block: bytes) -> ResponseHead:
    """
    @param block: a head with the empty line at its end, and no more.
    @raise BadMessage: the server's answer cannot be trusted.
    """
    return _remembered(block) if len(block) <= _KEPT else _parse(block)


def _parse(block: bytes) -> ResponseHead:
    lines = split_lines(block)
    start = _START.match(lines[0])
    if start is None:
        raise BadMessage("malformed status line")
    minor, status_digits, reason = start.groups()
    status = int(status_digits)
    fields = read_response_fields(block[len(lines[0]) + 2 :], len(lines) - 1)

    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    connection = tokens([value for name, value in fields if name == b"connection"])
    upgrade = b", ".join(value for name, value in fields if name == b"upgrade")

    length = content_length(lengths)
    if codings:
        if length is not None or minor == b"0":
            raise BadMessage("both Content-Length and Transfer-Encoding, or one in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadMessage("unknown transfer coding")
        length = CHUNKED
    elif length is None:
        length = UNTIL_CLOSE

    bodyless = status < 200 or status in (204, 304)
    keep_alive = b"close" not in connection and (minor != b"0" or b"keep-alive" in connection)
    dropped = HOP_BY_HOP.union(connection)
    # The client frames the body by it: nobody can have it taken out.
    dropped -= {b"content-length"}
    if bodyless and status != 304:
        # RFC 9110 section 8.6: not to be sent. A server that announces a body
        # where there is none may well send it: nothing is read after that.
        dropped |= {b"content-length"}
        keep_alive = keep_alive and length in (UNTIL_CLOSE, 0)
    head = [b"HTTP/1.1 %b %b" % (status_digits, reason or b"")]
    named = zip(fields, lines[1:], strict=True)
    head += [line for (name, _), line in named if name not in dropped]
    if upgrade and status in (101, 426):
        head.append(b"Connection: upgrade\r\nUpgrade: " + upgrade)
    head.append(b"")
    forward = b"\r\n".join(head)
    return ResponseHead(
        status=status,
        kind=status // 100 if status < 600 else 0,
        length=length,
        bodyless=bodyless,
        keep_alive=keep_alive,
        forward=forward,
        whole=forward + b"\r\n",
        unchanged=forward + b"\r\n" == block,
        upgrade=upgrade,
        fields=tuple(fields),
    )


_remembered = lru_cache(maxsize=1024)(_parse)
