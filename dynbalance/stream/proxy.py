"""
A session between two transports of Twisted's: for clients that come by TLS,
and wherever bare sockets cannot be had.

Knows producers and half-close; how a server is found is the L{Session}'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from dynbalance.net.dial import transport_for
from dynbalance.net.relay import Ending
from dynbalance.stream.session import Session, host_of

if TYPE_CHECKING:
    import socket

    from twisted.python.failure import Failure

    from dynbalance.net.dial import Target
    from dynbalance.stream.listener import StreamListener

_FAREWELL = 5.0
"""Seconds that a silent peer has for its end."""


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """
    One of the two connections.

    @ivar moved: bytes that came by it.
    @ivar ended: it says no more.
    @ivar lost: it is closed.
    """

    transport: Any
    session: TransportSession | None = None
    other: _Half | None = None
    moved = 0
    ended = False
    lost = False

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if session is not None and self.other is not None:
            self.moved += len(data)
            session.last = session.listener.hub.now
            self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        self.ended = True
        if self.session is not None:
            self.session.ended(self)

    def writeConnectionLost(self) -> None:
        """Our end was passed on; the other direction goes on."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.ended = self.lost = True
        if self.session is not None:
            self.session.lost(self)


class ClientProtocol(_Half):
    """
    The client's connection, which begins the session.
    """

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener

    def connectionMade(self) -> None:
        # Not a byte before there is a server, so that its queue is the kernel's.
        self.transport.pauseProducing()
        self.session = TransportSession(self._listener, self)
        self.session.start()


class TransportSession(Session):
    """
    A session between two transports.

    @ivar last: when bytes were moved last, in seconds of the hub's clock.
    """

    __slots__ = ("_client", "_leaving", "_over", "_server", "last")

    def __init__(self, listener: StreamListener, client: ClientProtocol) -> None:
        super().__init__(listener, host_of(client.transport.getPeer()))
        self._client = client
        self._server: _Half | None = None
        self._leaving = self._over = False
        self.last = 0.0

    def connected(self, skt: socket.socket, target: Target) -> None:
        client = self._client
        server = self._server = _Half()
        server.session = self
        server.other = client
        client.other = server
        self.last = self.listener.deadlines.now()
        transport_for(self.listener.hub, skt, target, server)
        client.transport.registerProducer(server.transport, True)
        server.transport.registerProducer(client.transport, True)
        client.transport.resumeProducing()

    def refuse(self) -> None:
        self._client.session = None
        self._client.transport.abortConnection()

    def silence(self) -> float:
        return inf if self._leaving else self.listener.deadlines.now() - self.last

    def close(self, ending: Ending) -> None:
        if ending is Ending.IDLE and not self._leaving:
            # Quietly, but a peer that does not even take its end is cut off.
            self._leaving = True
            self.listener.deadlines.set(self, _FAREWELL)
            self._flush_and_close(self._client)
            if self._server is not None:
                self._flush_and_close(self._server)
            return
        for half in (self._client, self._server):
            if half is not None and not half.lost:
                half.transport.abortConnection()

    def ended(self, half: _Half) -> None:
        """
        C{half} says no more, but still hears.
        """
        other = half.other
        if other is None:
            # Still calling a server.  The end is seen again by whoever reads.
            return
        other.transport.unregisterProducer()
        if (
            self.listener.options.half_close
            and not other.ended
            and not ISSLTransport.providedBy(other.transport)
        ):
            other.transport.loseWriteConnection()
        else:
            self._flush_and_close(other)
            self._flush_and_close(half)

    def lost(self, half: _Half) -> None:
        """C{half} is closed: so is the other, once it has heard everything."""
        if self._server is None:
            if self._stop_calling():
                self._finish()
            return
        other = half.other
        if other is not None and not other.lost:
            self._flush_and_close(other)
        elif not self._over:
            self._finish()

    def _finish(self) -> None:
        self._over = True
        self.over(self._client.moved, self._server.moved if self._server is not None else 0)

    def _flush_and_close(self, half: _Half) -> None:
        if not half.lost:
            half.transport.unregisterProducer()
            half.transport.loseConnection()
