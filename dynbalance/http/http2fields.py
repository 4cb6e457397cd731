"""
Heads between HTTP/2 and HTTP/1.1.  Pure.

A request is written as HTTP/1.1 would have it, and then read by the same
strict reader as any other.  So that nobody can write a second field into the
value of a first one, whatever cannot stand in a line is refused before.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from dynbalance.http.fields import HOP_BY_HOP, BadMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

Pair = tuple[bytes, bytes]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_BROKEN = re.compile(rb"[\x00\r\n]")
_KEPT = 2048


def request_block(fields: Iterable[Pair], has_body: bool) -> bytes:
    """
    The head of a request as HTTP/1.1 has it.

    @param fields: as they came.
    @param has_body: whether a body follows.
    @raise BadMessage: it cannot be written so.
    """
    start: dict[bytes, bytes] = {}
    hosts: list[bytes] = []
    lines: list[bytes] = []
    length = None
    for name, value in fields:
        if _BROKEN.search(value):
            raise BadMessage("a line end in a field")
        if name.startswith(b":"):
            start[name] = value
        elif name == b"host":
            hosts.append(value)
        else:
            _check_name(name)
            if name == b"content-length":
                length = value
            lines.append(name + b": " + value)
    if has_body and length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif not has_body and length is not None and length.strip(b"0"):
        raise BadMessage("a body is announced and does not come")
    method, path = start.get(b":method", b""), start.get(b":path", b"")
    if b" " in path or b" " in method:
        raise BadMessage("a space in the request line")
    authority = start.get(b":authority", b"")
    if authority:
        # RFC 9113 section 8.3.1: it is what counts, and Host may only repeat it.
        if any(host.lower() != authority.lower() for host in hosts):
            raise BadMessage("Host and :authority differ")
        hosts = [authority]
    lines = [b"%b %b HTTP/1.1" % (method, path), *(b"Host: " + host for host in hosts), *lines]
    return b"\r\n".join([*lines, b"", b""])


def _check_name(name: bytes) -> None:
    if not _NAME.match(name):
        raise BadMessage("a field name is not a token in lower case")
    if name == b"transfer-encoding":
        raise BadMessage("Transfer-Encoding in HTTP/2")


def response_fields(status: int, lines: bytes) -> tuple[Pair, ...]:
    """
    @param lines: status line and fields, each with its end.
    """
    return _remembered(status, lines) if len(lines) <= _KEPT else _fields(status, lines)


def _fields(status: int, lines: bytes) -> tuple[Pair, ...]:
    fields = [(b":status", b"%d" % status)]
    for line in lines.split(b"\r\n")[1:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        # A server's word on its protocols (of a 426) is for HTTP/1.1.
        if name not in HOP_BY_HOP:
            fields.append((name, value.strip(b" \t")))
    return tuple(fields)


_remembered = lru_cache(maxsize=1024)(_fields)
