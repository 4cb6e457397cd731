"""
Transports that write at once.

Twisted's C{write} queues, asks for writability and sends on the next turn: two
C{epoll_ctl} and one more event for each answer.  These transports try C{send}
while nothing is queued and hand only the rest to the inherited path; reading,
back-pressure, TLS and closing are Twisted's.
"""

from __future__ import annotations

import socket
from types import FunctionType
from typing import TYPE_CHECKING, Any

from twisted.internet import _newtls, main, tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dynbalance.net.hub import Hub

_DONE = Failure(main.CONNECTION_DONE)
_ABORTED = Failure(ConnectionAborted())

RECEIVE = 65536
"""Bytes asked of the kernel by one read."""


class WriteThrough(tcp.Connection):
    """
    A L{tcp.Connection} whose reactor is a L{Hub}.
    """

    reactor: Hub
    protocol: Any
    # Whether bytes may go straight to the kernel: the connection stands, nothing
    # is queued, and no producer waits to be asked for more by doWrite.
    clear = False
    # Bytes for it that wait in a pipe beside its own buffer.
    beside = 0
    # shutdown() before close() is a system call that changes nothing: nobody
    # shares the socket.
    _shouldShutdown = False

    def doRead(self) -> Any:
        if self.disconnecting:
            return None
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
        if self.clear:
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self.clear = False
        FileDescriptor.write(self, data)

    def stopWriting(self) -> None:
        super().stopWriting()
        self._look_whether_clear()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.clear = self.clear and streaming
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        super().unregisterProducer()
        self._look_whether_clear()

    def _look_whether_clear(self) -> None:
        pulls = self.producer is not None and not self.streamingProducer
        queued = self.dataBuffer or self._tempDataBuffer
        self.clear = bool(self.connected) and not (queued or self._writeDisconnected or pulls)

    def _closeWriteConnection(self) -> None:
        self.clear = False
        super()._closeWriteConnection()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        _newtls.startTLS(self, ctx, normal, _BeneathTLS)
        # From here on what is written here comes from above; beneath it is
        # written by the class's own method.
        self.write = self._write_by_tls  # type: ignore[method-assign]

    def _write_by_tls(self, data: bytes) -> None:
        if self.connected:
            self.protocol.write(data)

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen + self.beside

    def loseConnection(self) -> None:
        if self.TLS or not self.clear or self.producer is not None:
            tcp.Connection.loseConnection(self)
        elif self.connected and not self.disconnecting:
            # Nothing is to be flushed: no need to wait for writability.
            self.disconnecting = True
            self.reactor.close_soon(self)

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self.disconnecting = True
            self._writeDisconnected = True
            self.clear = False
            self.reactor.removeWriter(self)
            self.reactor.close_soon(self)

    def close_now(self) -> None:
        """The hub's part of L{loseConnection} and L{abortConnection}."""
        if not self.connected:
            return
        if self._aborting:
            self.connectionLost(_ABORTED)
        elif self.queued:
            # Written after loseConnection: doWrite closes when all is sent.
            self.reactor.removeReader(self)
        else:
            self.connectionLost(_DONE)

    def readConnectionLost(self, reason: Failure) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.reactor.removeReader(self)
            super().readConnectionLost(reason)
        else:
            self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        self.clear = False
        if self.connected:
            # Closing the socket takes it out of the epoll.
            self.reactor.forget(self.socket.fileno())
        self.__dict__.pop("write", None)
        super().connectionLost(reason)


def _adapted(kind: type[WriteThrough]) -> type[WriteThrough]:
    """
    Give a kind of transport its own copy of what all bytes go through: the
    interpreter adapts each instruction to the one type that meets it (PEP 659),
    and to none where two take turns.
    """
    for name in ("doRead", "write"):
        function = getattr(WriteThrough, name)
        copy = FunctionType(function.__code__.replace(), function.__globals__, name)
        setattr(kind, name, copy)
    return kind


class _BeneathTLS(FileDescriptor):
    """
    How TLS writes its records: never made, only its functions are used, with
    the transport as their C{self}.
    """

    def write(self: Any, data: bytes) -> None:
        WriteThrough.write(self, data)

    def writeSequence(self: Any, iovec: Iterable[bytes]) -> None:
        WriteThrough.write(self, b"".join(iovec))


@_adapted
class ServerTransport(WriteThrough, tcp.Server):
    """A connection that a client opened, by TCP."""

    def __init__(
        self, skt: socket.socket, protocol: Any, client: Any, port: Any, number: int, hub: Hub
    ) -> None:
        # What tcp.Server.__init__ does, less the log prefixes that nobody
        # reads: the hub has no log contexts.
        tcp.Connection.__init__(self, skt, protocol, hub)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = port
        self.client = client
        self.sessionno = number
        self.hostname = client[0]
        self.reactor.addReader(self)
        self.connected = 1
        self.disconnecting = 0
        self.clear = True

    def __repr__(self) -> str:
        return f"<ServerTransport #{self.sessionno} from {self.client}>"


class UNIXServerTransport(WriteThrough, unix.Server):
    """A connection that a client opened, by a unix socket."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.clear = True


@_adapted
class ClientTransport(WriteThrough):
    """
    A connection to a server, once L{dynbalance.net.dial} has made it.

    @param peer: the server's address as Twisted writes it.
    """

    _tlsClientDefault = True

    def __init__(self, skt: socket.socket, protocol: Any, peer: Any, hub: Hub) -> None:
        tcp.Connection.__init__(self, skt, protocol, hub)
        self._peer = peer
        self.connected = 1
        self.disconnecting = 0
        self.clear = True

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        if self.socket.family == socket.AF_UNIX:
            return UNIXAddress(None)
        of_type = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return of_type("TCP", *self.socket.getsockname()[:2])

    def __repr__(self) -> str:
        return f"<ClientTransport to {self._peer}>"
