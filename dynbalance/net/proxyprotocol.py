"""
The PROXY protocol, versions 1 and 2: what a proxy says of a connection, before
the connection's own bytes, about who opened it.

Knows the bytes, and gives one answer however they are split; refuses to know
sockets, and whose word is to be believed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from dynbalance.errors import DynbalanceError
from dynbalance.net.proxyextensions import fault_of

Place = IPv4Address | IPv6Address | UNIXAddress
"""One end of a connection."""

MAX_V1 = 107
"""Bytes of a line of version 1, its end included."""

MAX_V2 = 16384
"""Bytes of a header of version 2; what is longer is not worth a client's memory."""

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_LOCAL = 0x20
_PROXY = 0x21
_UNSPECIFIED = 0x00
_TCP4 = 0x11
_TCP6 = 0x21
_UNIX = 0x31
_UNIX_PATH = 108
_SIZES = {_TCP4: 12, _TCP6: 36, _UNIX: 2 * _UNIX_PATH}
_LAST_FAMILY = 3
_LAST_PROTOCOL = 2
_LINE_END = re.compile(rb"[\r\n]")
_PORT = re.compile(r"(0|[1-9][0-9]{0,4})\Z", re.ASCII)
_MAPPED = "::ffff:"


class BrokenHeader(DynbalanceError):
    """What came is no PROXY header; the text says why."""


@frozen(slots=True)
class Preface:
    """
    A whole header.

    @ivar source: who opened the connection; C{None} if the header does not
        say, because the proxy speaks for itself or for something unknown.
    @ivar destination: where it was opened to; C{None} exactly if C{source} is.
    @ivar rest: the connection's own bytes that came behind the header.
    """

    source: Place | None
    destination: Place | None
    rest: bytes


class PrefaceReader:
    """
    Reads one header of either version.
    """

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def __repr__(self) -> str:
        return f"<PrefaceReader {len(self._data)} bytes>"

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return len(self._data)

    def feed(self, data: bytes) -> Preface | None:
        """
        Take the next bytes of the connection.  Not to be called after it
        has given an answer or raised.

        @return: the header, or C{None} if more is needed: then all of C{data}
            belongs to the header.
        @raise BrokenHeader: nothing that follows could make it a header.
        """
        data = self._data = self._data + data
        if data.startswith(_V1):
            return _read_line(data)
        if data.startswith(_V2):
            return _read_binary(data)
        if not (_V1.startswith(data) or _V2.startswith(data)):
            raise BrokenHeader("it does not begin like a PROXY header")
        return None


def _read_line(data: bytes) -> Preface | None:
    found = _LINE_END.search(data, 0, MAX_V1)
    end = found.start() + 2 if found else MAX_V1 + 1
    # Half an end of line is no end, and nothing will make it one.
    if found and data[found.start() : min(end, MAX_V1)] not in (b"\r", b"\r\n"):
        raise BrokenHeader("it has a CR or an LF alone")
    if len(data) < min(end, MAX_V1):
        return None
    if end > MAX_V1:
        raise BrokenHeader(f"no end of line within {MAX_V1} bytes")
    words = data[len(_V1) : end - 2].split(b" ")
    if words[0] == b"UNKNOWN":
        return Preface(None, None, data[end:])
    if words[0] not in (b"TCP4", b"TCP6"):
        raise BrokenHeader("its protocol is not TCP4, TCP6 or UNKNOWN")
    if len(words) != 5:
        raise BrokenHeader("it does not have two addresses and two ports")
    try:
        texts = [word.decode("ascii") for word in words]
    except UnicodeDecodeError as failed:
        raise BrokenHeader("it is not ASCII") from failed
    protocol, source, destination, source_port, destination_port = texts
    return Preface(
        _place(protocol, source, source_port),
        _place(protocol, destination, destination_port),
        data[end:],
    )


def _place(protocol: str, host: str, port: str) -> Place:
    if not _PORT.match(port) or int(port) > 65535:
        raise BrokenHeader(f"{port!r} is not a port")
    try:
        if protocol == "TCP4":
            return IPv4Address("TCP", str(ipaddress.IPv4Address(host)), int(port))
        if "%" in host:
            raise ValueError
        return IPv6Address("TCP", _v6(ipaddress.IPv6Address(host).packed), int(port))
    except ValueError:
        raise BrokenHeader(f"{host!r} is not an address of {protocol}") from None


def _read_binary(data: bytes) -> Preface | None:
    if len(data) < _FIXED:
        return None
    command, kind, length = struct.unpack_from("!BBH", data, len(_V2))
    if command not in (_LOCAL, _PROXY):
        raise BrokenHeader(f"its version and command are 0x{command:02x}")
    end = _FIXED + length
    if end > MAX_V2:
        raise BrokenHeader(f"it is longer than {MAX_V2} bytes")
    # Of a proxy that speaks for itself nothing else counts.
    relayed = command == _PROXY
    if relayed and (kind >> 4 > _LAST_FAMILY or kind & 0xF > _LAST_PROTOCOL):
        raise BrokenHeader(f"its family and protocol are 0x{kind:02x}")
    size = _SIZES.get(kind, 0) if relayed else 0
    if length < size:
        raise BrokenHeader("its length is too small for its addresses")
    if len(data) < end:
        return None
    # Where we know no addresses we do not know where they end.
    if size and (fault := fault_of(data[:end], _FIXED + size)):
        raise BrokenHeader(fault)
    block = data[_FIXED : _FIXED + size]
    source: Place | None = None
    destination: Place | None = None
    if not size:
        pass
    elif kind == _TCP4:
        ports = struct.unpack_from("!HH", block, 8)
        source = IPv4Address("TCP", socket.inet_ntop(socket.AF_INET, block[:4]), ports[0])
        destination = IPv4Address("TCP", socket.inet_ntop(socket.AF_INET, block[4:8]), ports[1])
    elif kind == _TCP6:
        ports = struct.unpack_from("!HH", block, 32)
        source = IPv6Address("TCP", _v6(block[:16]), ports[0])
        destination = IPv6Address("TCP", _v6(block[16:32]), ports[1])
    else:
        source = UNIXAddress(block[:_UNIX_PATH].partition(b"\0")[0])
        destination = UNIXAddress(block[_UNIX_PATH:].partition(b"\0")[0])
    return Preface(source, destination, data[end:])


def _v6(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, packed)


def header(version: int, source: Place | None, destination: Place | None) -> bytes:
    """
    What to send to a server before anything else.

    Of a TCP connection of which only one end is IPv6, the other is written in
    IPv6's form, because a header has one family.

    @param version: 1 or 2.
    @param source: who opened the connection; C{None} if nobody did and we
        speak for ourselves.
    @param destination: where it was opened to.
    """
    return _line(source, destination) if version == 1 else _binary(source, destination)


def _line(source: Place | None, destination: Place | None) -> bytes:
    if (
        source is None
        or destination is None
        or isinstance(source, UNIXAddress)
        or isinstance(destination, UNIXAddress)
    ):
        return b"PROXY UNKNOWN\r\n"
    source_host, destination_host, v6 = _hosts(source, destination)
    protocol = "TCP6" if v6 else "TCP4"
    line = f"PROXY {protocol} {source_host} {destination_host} {source.port} {destination.port}\r\n"
    return line.encode("ascii")


def _binary(source: Place | None, destination: Place | None) -> bytes:
    if source is None or destination is None:
        return _V2 + struct.pack("!BBH", _LOCAL, _UNSPECIFIED, 0)
    if isinstance(source, UNIXAddress) or isinstance(destination, UNIXAddress):
        if not (isinstance(source, UNIXAddress) and isinstance(destination, UNIXAddress)):
            return _V2 + struct.pack("!BBH", _PROXY, _UNSPECIFIED, 0)
        paths = (_path(source), _path(destination))
        return _V2 + struct.pack(
            f"!BBH{_UNIX_PATH}s{_UNIX_PATH}s", _PROXY, _UNIX, 2 * _UNIX_PATH, *paths
        )
    source_host, destination_host, v6 = _hosts(source, destination)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    kind = _TCP6 if v6 else _TCP4
    return b"".join(
        (
            _V2,
            struct.pack("!BBH", _PROXY, kind, _SIZES[kind]),
            socket.inet_pton(family, source_host),
            socket.inet_pton(family, destination_host),
            struct.pack("!HH", source.port, destination.port),
        )
    )


def _hosts(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address
) -> tuple[str, str, bool]:
    """@return: both hosts in one family, and whether that is IPv6."""
    hosts = (plain_host(source), plain_host(destination))
    if not any(":" in host for host in hosts):
        return (*hosts, False)
    first, second = (host if ":" in host else _MAPPED + host for host in hosts)
    return first, second, True


def plain_host(place: Place) -> str:
    """
    The host of C{place} without a scope; that of an IPv4 address in IPv6's
    clothes is an IPv4 address; that of a unix socket is empty.
    """
    if isinstance(place, UNIXAddress):
        return ""
    host = place.host.partition("%")[0]
    if not host.startswith(_MAPPED):
        return host
    return str(ipaddress.IPv6Address(host).ipv4_mapped or host)


def _path(place: UNIXAddress) -> bytes:
    name = place.name or b""
    return (name if isinstance(name, bytes) else name.encode())[:_UNIX_PATH]
