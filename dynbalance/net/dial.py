"""
Reaching a server: a non-blocking connect, and nothing else.

Twisted's connectors are made for reconnecting clients.  A balancer dials once,
knows the numeric address, and wants to hear at once of success or failure.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet import address as tx_address
from twisted.internet.error import ConnectError, getConnectError

from dynbalance.net.descriptors import below_for_traffic
from dynbalance.net.transport import ClientTransport

if TYPE_CHECKING:
    from dynbalance.balancer.address import Address
    from dynbalance.net.hub import Hub

_UNDER_WAY = frozenset((errno.EINPROGRESS, errno.EALREADY))
_CONNECTED = frozenset((0, errno.EISCONN))
# Linux makes the socket and its mode in one system call.
_SOCK_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


@frozen(slots=True)
class Target:
    """
    What a socket connects to.

    @ivar family: C{AF_INET}, C{AF_INET6} or C{AF_UNIX}.
    @ivar sockaddr: as C{socket.connect} takes it.
    """

    family: int
    sockaddr: Any

    @classmethod
    def of(cls, address: Address) -> Target:
        """
        Where C{address} is.

        @param address: a numeric one or a unix socket.
        @raise OSError: it is a name, or its scope is unknown.
        """
        if address.is_unix:
            return cls(socket.AF_UNIX, address.path)
        family, _, _, _, sockaddr = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
        return cls(family, sockaddr)

    @classmethod
    def of_twisted(cls, address: Any) -> Target:
        """The same of an L{IPv4Address} or L{IPv6Address}."""
        if isinstance(address, tx_address.IPv6Address):
            return cls(
                socket.AF_INET6,
                (address.host, address.port, address.flowInfo, address.scopeID),
            )
        return cls(socket.AF_INET, (address.host, address.port))

    def as_twisted(self) -> Any:
        """The same as an L{IAddress} of Twisted."""
        if self.family == socket.AF_UNIX:
            return tx_address.UNIXAddress(self.sockaddr)
        if self.family == socket.AF_INET6:
            return tx_address.IPv6Address("TCP", *self.sockaddr[:2])
        return tx_address.IPv4Address("TCP", *self.sockaddr)


def place_of(sockaddr: Any) -> Any:
    """
    An L{IAddress} of Twisted's.

    @param sockaddr: as C{socket.accept} says it, of any family.
    """
    if not isinstance(sockaddr, tuple):
        return tx_address.UNIXAddress(sockaddr or None)
    family = socket.AF_INET if len(sockaddr) == 2 else socket.AF_INET6
    return Target(family, sockaddr).as_twisted()


class Caller(Protocol):
    """Who dials."""

    def dialed(self, skt: socket.socket) -> None:
        """The connection stands; the caller owns the socket now."""

    def dial_failed(self, reason: ConnectError) -> None:
        """There is no connection; nothing was sent."""


class Dial:
    """
    One attempt to connect.

    A descriptor of the hub until it is decided; then exactly one of the
    caller's two methods has been called.  L{cancel} calls neither.
    """

    __slots__ = ("_caller", "_hub", "_sockaddr", "_socket")

    def __init__(self, hub: Hub, caller: Caller) -> None:
        self._hub = hub
        self._caller = caller
        self._sockaddr: Any = None
        self._socket: socket.socket | None = None

    def start(self, target: Target) -> None:
        """Begin; success or failure may be told before this returns."""
        skt = None
        try:
            skt = socket.socket(target.family, _SOCK_STREAM)
            if skt.fileno() >= below_for_traffic():
                raise OSError(errno.EMFILE, "hardly a descriptor is left")
            skt.setblocking(False)
            if target.family != socket.AF_UNIX:
                skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            result = skt.connect_ex(target.sockaddr)
        except OSError as failed:
            if skt is not None:
                skt.close()
            self._caller.dial_failed(getConnectError((failed.errno or 0, str(failed))))
            return
        self._sockaddr = target.sockaddr
        self._socket = skt
        if result in _UNDER_WAY:
            self._hub.addWriter(self)
        else:
            # A unix socket answers EAGAIN when its backlog is full: there is
            # nothing to wait for.
            self._decided(result)

    def cancel(self) -> None:
        """Give up, silently."""
        if self._socket is not None:
            self._hub.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _decided(self, result: int) -> None:
        skt, self._socket = self._socket, None
        if skt is None:
            return
        if result in _CONNECTED:
            self._caller.dialed(skt)
        else:
            skt.close()
            self._caller.dial_failed(getConnectError((result, os.strerror(result))))

    # What the hub sees.

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "dial"

    def doWrite(self) -> None:
        if self._socket is None:
            return
        # To connect once more asks how the first time went.
        result = self._socket.connect_ex(self._sockaddr)
        if result in _UNDER_WAY:
            return
        if result in _CONNECTED:
            # Whoever takes the socket over waits for input first.
            self._hub.hand_over(self._socket.fileno())
        else:
            self._hub.forget(self._socket.fileno())
        self._decided(result)

    def connectionLost(self, reason: Any) -> None:
        self.cancel()


def transport_for(hub: Hub, skt: socket.socket, target: Target, protocol: Any) -> ClientTransport:
    """Make the dialed socket a transport of C{protocol} and connect the two."""
    transport = ClientTransport(skt, protocol, target.as_twisted(), hub)
    hub.addReader(transport)
    protocol.makeConnection(transport)
    return transport
