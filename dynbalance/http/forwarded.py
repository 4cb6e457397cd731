"""
Who the client is, and what the servers are told of it.

X-Forwarded-For is believed from trusted proxies only; everybody else's claim
is passed on behind or replaced, never used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from attrs import frozen

from dynbalance.config.template import TRAFFIC_VARIABLES
from dynbalance.http.request import RequestHead
from dynbalance.http.variables import Template

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@frozen(slots=True)
class Origin:
    """
    Where a request came from.

    @ivar client: the client's address.
    @ivar forwarded_for: X-Forwarded-For for the server.
    @ivar scheme: C{http} or C{https}.
    """

    client: str
    forwarded_for: bytes
    scheme: bytes

    @property
    def fields(self) -> bytes:
        """The fields that are added to a request, and the end of its head."""
        return (
            b"X-Real-IP: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n\r\n"
            % (self.client.encode(), self.forwarded_for, self.scheme)
        )


class Forwarding:
    """
    @param trusted: networks whose X-Forwarded-For is believed.  While there
        are any, everybody else's is dropped.
    """

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)

    def trusts(self, address: str) -> bool:
        """Whether C{address} is in a trusted network; a name never is."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._trusted)

    def origin(self, peer: str, scheme: bytes, said: bytes) -> Origin:
        """
        @param peer: who opened the connection.
        @param said: the request's X-Forwarded-For, or empty.
        """
        trusted = self.trusts(peer)
        if not said or (self._trusted and not trusted):
            return Origin(peer, peer.encode(), scheme)
        client = self._rightmost_stranger(peer, said) if trusted else peer
        return Origin(client, said + b", " + peer.encode(), scheme)

    def _rightmost_stranger(self, peer: str, said: bytes) -> str:
        client = peer
        for part in reversed(said.decode("latin-1").split(",")):
            try:
                client = str(ipaddress.ip_address(part.strip()))
            except ValueError:
                break
            if not self.trusts(client):
                break
        return client


class SetHeaders:
    """
    The fields that a listener adds to each request, or removes from it.

    @param values: name -> text with variables; an empty text removes.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.names = frozenset(name.lower().encode() for name in values)
        self._values = [
            (name.encode() + b": ", Template(value, TRAFFIC_VARIABLES))
            for name, value in values.items()
            if value
        ]
        removable = {b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto"}
        self._automatic = removable - self.names

    def __bool__(self) -> bool:
        return bool(self.names)

    def fields(self, head: RequestHead, origin: Origin) -> bytes:
        """The fields that are added to a request, and the end of its head."""
        lines = [
            line
            for line in origin.fields.split(b"\r\n")[:3]
            if line.partition(b":")[0].lower() in self._automatic
        ]
        lines += [name + value.fill(head, origin) for name, value in self._values]
        return b"".join(line + b"\r\n" for line in lines) + b"\r\n"
