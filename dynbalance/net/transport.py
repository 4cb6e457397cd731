"""
Transports that write at once.

Twisted's C{write} queues, asks for writability and sends on the next turn: two
C{epoll_ctl} and one more event for each answer.  These transports try C{send}
while nothing is queued and hand only the rest to the inherited path; reading,
back-pressure, TLS and closing are Twisted's.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from dynbalance.net.hub import Hub

_DONE = Failure(main.CONNECTION_DONE)
_ABORTED = Failure(ConnectionAborted())

RECEIVE = 65536
"""Bytes asked of the kernel by one read."""


class WriteThrough:
    """
    Mixed in before a L{tcp.Connection}; its reactor is a L{Hub}.
    """

    reactor: Hub
    socket: socket.socket
    protocol: Any
    connected: int
    disconnecting: bool
    TLS: bool
    dataBuffer: bytes
    offset: int
    _tempDataBuffer: list[bytes]
    _tempDataLen: int
    _writeDisconnected: bool
    _shouldShutdown = False

    def doRead(self) -> BaseException | None:
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """
        Send C{data}, at once as far as the kernel takes it.

        An error is not reported here: the queued rest meets it again, and the
        protocol learns of it by C{connectionLost} as always.
        """
        if (
            self.dataBuffer
            or self._tempDataBuffer
            or self._writeDisconnected
            or self.TLS
            or not self.connected
        ):
            super().write(data)  # type: ignore[misc]
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            FileDescriptor.write(self, data[sent:] if sent else data)  # type: ignore[arg-type]

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def loseConnection(self) -> None:
        if self.TLS or self.dataBuffer or self._tempDataBuffer or self._writeDisconnected:
            super().loseConnection()  # type: ignore[misc]
        elif self.connected and not self.disconnecting:
            # Nothing is to be flushed: no need to wait for writability.
            self.disconnecting = True
            self.reactor.close_soon(self)

    def abortConnection(self) -> None:
        if self.TLS:
            super().abortConnection()  # type: ignore[misc]
        elif self.connected and not getattr(self, "_aborting", False):
            self._aborting = True
            self.disconnecting = True
            self.reactor.close_soon(self)

    def close_now(self) -> None:
        """The hub's part of L{loseConnection} and L{abortConnection}."""
        if self.connected:
            self.connectionLost(_ABORTED if getattr(self, "_aborting", False) else _DONE)

    def readConnectionLost(self, reason: Failure) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            super().readConnectionLost(reason)  # type: ignore[misc]
        else:
            self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        if self.connected:
            # Closing the socket takes it out of the epoll.
            self.reactor.forget(self.socket.fileno())
        super().connectionLost(reason)  # type: ignore[misc]


class ServerTransport(WriteThrough, tcp.Server):
    """A connection that a client opened, by TCP."""

    def __init__(
        self, skt: socket.socket, protocol: Any, client: Any, port: Any, number: int, hub: Hub
    ) -> None:
        # What tcp.Server.__init__ does, less the log prefixes that nobody
        # reads: the hub has no log contexts.
        tcp.Connection.__init__(self, skt, protocol, hub)
        if len(client) != 2:
            self._addressType = tcp.address.IPv6Address
        self.server = port
        self.client = client
        self.sessionno = number
        self.hostname = client[0]
        self.startReading()
        self.connected = 1

    def __repr__(self) -> str:
        return f"<ServerTransport #{self.sessionno} from {self.client}>"


class UNIXServerTransport(WriteThrough, unix.Server):
    """A connection that a client opened, by a unix socket."""


class ClientTransport(WriteThrough, tcp.Connection):
    """
    A connection to a server, once L{dynbalance.net.dial} has made it.

    @ivar peer: the server's address as Twisted writes it.
    """

    _base = tcp.Connection
    _tlsClientDefault = True

    def __init__(self, skt: socket.socket, protocol: Any, peer: Any, hub: Hub) -> None:
        tcp.Connection.__init__(self, skt, protocol, hub)
        self._peer = peer
        self.connected = 1

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        if self.socket.family == socket.AF_UNIX:
            return tcp.address.UNIXAddress(None)
        of_type = (
            tcp.address.IPv6Address
            if self.socket.family == socket.AF_INET6
            else tcp.address.IPv4Address
        )
        return of_type("TCP", *self.socket.getsockname()[:2])

    def __repr__(self) -> str:
        return f"<ClientTransport to {self._peer}>"
