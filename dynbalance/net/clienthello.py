"""
Which server a TLS client asks for, read from its first message (RFC 8446
section 4.1.2, RFC 6066 section 3).

Knows the bytes of a ClientHello and takes none of them: it is asked again with
more of the same connection until it can tell.  Refuses to know sockets, and
what TLS is for.
"""

from __future__ import annotations

import re
from typing import NoReturn

from attrs import frozen

from dynbalance.errors import DynbalanceError

MAX_HELLO = 16384
"""Bytes of records that a client may need for its first message."""

_RECORD_HEADER = 5
_MAX_RECORD = 16384
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_BEFORE_SESSION = 34
_NAME = re.compile(rb"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")


class NotTls(DynbalanceError):
    """What came is no ClientHello; the text says why."""


@frozen(slots=True)
class Hello:
    """
    What a client has said.

    @ivar server_name: in lower case; empty if it asks for no server by name.
    """

    server_name: str


def read_hello(data: bytes) -> Hello | None:
    """
    @param data: the first bytes of a connection, at least L{MAX_HELLO} of
        them if so many have come.
    @return: C{None} if more is needed.
    @raise NotTls: nothing that follows could make it a ClientHello.
    """
    message = _message(data)
    return None if message is None else Hello(_server_name(message))


def _message(data: bytes) -> bytes | None:
    """
    The body of the first handshake message, put together from its records.
    """
    message = bytearray()
    at = 0
    while True:
        header = data[at : at + _RECORD_HEADER]
        if header[:1] not in (b"", bytes((_HANDSHAKE,))):
            raise NotTls("it does not begin with a record of a handshake")
        if header[1:2] not in (b"", b"\x03"):
            raise NotTls("it is not a version of TLS")
        if len(header) == _RECORD_HEADER:
            length = int.from_bytes(header[3:], "big")
            if not length:
                raise NotTls("it has an empty record")
            if length > _MAX_RECORD:
                raise NotTls("it has one that is longer than a record may be")
            body = data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
            message += body
        if message[:1] not in (b"", bytes((_CLIENT_HELLO,))):
            raise NotTls("its first message is not a ClientHello")
        if len(message) >= 4:
            end = 4 + int.from_bytes(message[1:4], "big")
            if end > MAX_HELLO:
                break
            if len(message) >= end:
                return bytes(message[4:end])
        if len(header) < _RECORD_HEADER or len(body) < length:
            if len(data) < MAX_HELLO:
                return None
            break
        at += _RECORD_HEADER + length
    raise NotTls(f"its first message needs more than {MAX_HELLO} bytes")


class _Cursor:
    """Takes vectors off the front of some bytes."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def has_more(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        at, self._at = self._at, self._at + length
        if self._at > len(self._data):
            _malformed()
        return self._data[at : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """@param size: bytes of its length."""
        return self.take(self.number(size))


def _server_name(message: bytes) -> str:
    hello = _Cursor(message)
    hello.take(_BEFORE_SESSION)
    hello.vector(1)
    hello.vector(2)
    hello.vector(1)
    if not hello.has_more():
        # An old client, without extensions.
        return ""
    extensions = _Cursor(hello.vector(2))
    if hello.has_more():
        _malformed()
    found: bytes | None = None
    while extensions.has_more():
        kind = extensions.number(2)
        body = extensions.vector(2)
        if kind == _SERVER_NAME:
            if found is not None:
                raise NotTls("it names its server twice")
            found = _host_name(body)
    return (found or b"").decode("ascii").lower()


def _host_name(extension: bytes) -> bytes:
    cursor = _Cursor(extension)
    names = _Cursor(cursor.vector(2))
    if cursor.has_more() or not names.has_more():
        _malformed()
    found = b""
    while names.has_more():
        kind = names.number(1)
        name = names.vector(2)
        if kind == _HOST_NAME:
            if found:
                raise NotTls("it names its server twice")
            if len(name) > 253 or not _NAME.match(name):
                raise NotTls("its server's name is no name")
            found = name
    return found


def _malformed() -> NoReturn:
    raise NotTls("its lengths do not fit")
