"""
A session between two transports of Twisted's: for clients that come by TLS,
and wherever bare sockets cannot be had.

Knows producers and half-close; how a server is found is the L{Session}'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from dynbalance.net.clienthost import host_of
from dynbalance.net.dial import transport_for
from dynbalance.net.relay import Ending
from dynbalance.net.tlstransport import TlsTransport
from dynbalance.stream.hooked import HookedSession
from dynbalance.stream.leaving import has_left
from dynbalance.stream.pace import Pace
from dynbalance.stream.session import Session

if TYPE_CHECKING:
    import socket

    from twisted.python.failure import Failure

    from dynbalance.net.dial import Target
    from dynbalance.stream.listener import StreamListener
    from dynbalance.stream.options import Destination

_FAREWELL = 5.0
"""Seconds that a silent peer has for its end."""


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """
    One of the two connections.

    @ivar pace: what its bytes go through, if there is a rate.
    @ivar moved: bytes that came by it.
    @ivar ended: it says no more.
    @ivar lost: it is closed.
    """

    transport: Any
    session: TransportSession | None = None
    other: _Half | None = None
    pace: Pace | None = None
    moved = 0
    ended = False
    lost = False

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if session is not None and self.other is not None:
            self.moved += len(data)
            session.last = session.listener.hub.now
            if self.pace is None:
                self.other.transport.write(data)
            else:
                self.pace.take(data)

    def readConnectionLost(self) -> None:
        self.ended = True
        if self.session is not None:
            self.session.ended(self)

    def writeConnectionLost(self) -> None:
        """Our end was passed on; the other direction goes on."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.ended = self.lost = True
        if self.session is not None:
            clean = reason is None or reason.check(ConnectionDone) is not None
            self.session.lost(self, clean)


class ClientProtocol(_Half):
    """
    The client's connection, which begins the session.
    """

    def __init__(self, listener: StreamListener, way: Destination | None = None) -> None:
        """@param way: where it leads, if that is known before what it says in TLS."""
        self._listener = listener
        self._way = way

    def connectionMade(self) -> None:
        # Not a byte before there is a server, so that its queue is the kernel's.
        self.transport.pauseProducing()
        way = self._way
        if way is None:
            asked = self.transport
            name = asked.server_name if isinstance(asked, TlsTransport) else ""
            way = self._listener.way_of(name)
        kind = TransportSession if way.options.hook is None else HookedTransportSession
        self.session = kind(self._listener, self, way)
        self.session.start()


class TransportSession(Session):
    """
    A session between two transports.

    @ivar last: when bytes were moved last, in seconds of the hub's clock.
    """

    __slots__ = ("_client", "_ending", "_leaving", "_over", "_server", "last")

    def __init__(self, listener: StreamListener, client: ClientProtocol, way: Destination) -> None:
        super().__init__(listener, host_of(client.transport.getPeer()), way)
        self._client = client
        self._server: _Half | None = None
        self._ending = Ending.FINISHED
        self._leaving = self._over = False
        self.last = 0.0

    def connected(self, skt: socket.socket, target: Target) -> None:
        transport_for(self.listener.hub, skt, target, self._new_server())
        self._join()

    def joined(self, transport: TlsTransport) -> None:
        transport.attach(self._new_server())
        self._join()

    def _new_server(self) -> _Half:
        client = self._client
        server = self._server = _Half()
        server.session = self
        server.other = client
        client.other = server
        self.last = self.listener.deadlines.now()
        return server

    def _join(self) -> None:
        client, server = self._client, self._server
        assert server is not None
        client.transport.registerProducer(self._flow(server, self.options.download_rate), True)
        server.transport.registerProducer(self._flow(client, self.options.upload_rate), True)
        client.transport.resumeProducing()

    def _flow(self, half: _Half, rate: int) -> Any:
        """@return: the producer of what comes by C{half}."""
        if not rate:
            return half.transport
        assert half.other is not None
        half.pace = Pace(
            half.transport,
            half.other.transport,
            rate,
            self.listener.deadlines,
            lambda: self.ended(half),
        )
        return half.pace

    def ends(self) -> tuple[Any, Any]:
        transport = self._client.transport
        return transport.getPeer(), transport.getHost()

    def has_left(self) -> bool:
        transport = self._client.transport
        if isinstance(transport, TlsTransport):
            # Who ends half of what it says in TLS does not end its TCP.
            return has_left(transport.transport.socket, half_close=False)
        return has_left(transport.socket, self.options.half_close)

    def refuse(self) -> None:
        self._client.session = None
        self._client.transport.loseConnection()

    def silence(self) -> float:
        if self._leaving:
            return inf
        halves = (self._client, self._server)
        paces = (half.pace for half in halves if half is not None and half.pace is not None)
        return self.listener.deadlines.now() - max(self.last, *(pace.last for pace in paces), 0.0)

    def close(self, ending: Ending) -> None:
        self._ending = ending
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
        if half.pace is not None and half.pace.outlives():
            return
        other.transport.unregisterProducer()
        if (
            self.options.half_close
            and not other.ended
            and _closes_halves(other.transport)
        ):
            other.transport.loseWriteConnection()
        else:
            self._flush_and_close(other)
            self._flush_and_close(half)

    def lost(self, half: _Half, clean: bool) -> None:
        """C{half} is closed: so is the other, once it has heard everything."""
        if self._server is None:
            if self._stop_calling():
                self.over(499, "the client left")
            return
        if not clean and self._ending is Ending.FINISHED:
            gone = half is self._client
            self._ending = Ending.CLIENT_LOST if gone else Ending.SERVER_LOST
        other = half.other
        if half.pace is not None and other is not None and not other.lost:
            half.pace.let_go()
        if other is not None and not other.lost:
            self._flush_and_close(other)
        elif not self._over:
            self._finish()

    def _finish(self) -> None:
        self._over = True
        assert self._server is not None
        for half in (self._client, self._server):
            if half.pace is not None:
                half.pace.drop()
        self.over(200, self._ending.value, self._client.moved, self._server.moved)

    def _flush_and_close(self, half: _Half) -> None:
        if not half.lost:
            half.transport.unregisterProducer()
            half.transport.loseConnection()


def _closes_halves(transport: Any) -> bool:
    """Whether one direction can be ended alone; Twisted's own TLS cannot."""
    return isinstance(transport, TlsTransport) or not ISSLTransport.providedBy(transport)


class HookedTransportSession(HookedSession, TransportSession):
    """A session between two transports, under a hook."""
