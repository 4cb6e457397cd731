"""
Listeners whose connections are TLS.

Knows the clients between their arrival and the end of their handshake; what
they want then is another factory's affair.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import ServerFactory

from dynbalance.log import Logger
from dynbalance.net.prefaced import welcome
from dynbalance.net.tlstransport import TlsTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.protocol import Factory

    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.net.tls import ServerTls

PATIENCE = 10.0
"""Seconds that a handshake may take."""


class TlsListener(ServerFactory):
    """
    Stands between a port and the factory that serves its connections, whose
    protocols get a L{TlsTransport}, when the handshake is done.

    @param patience: seconds that a handshake may take.
    @param turns_away: asked first for each connection that comes, with its
        address; C{True} closes it.
    @param by_protocol: the factories for clients with whom something was
        agreed on by ALPN; C{factory} serves all others.
    @ivar tls: whose files may be read again; connections that come later
        follow.
    @ivar failed: handshakes that came to nothing.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        tls: ServerTls,
        factory: Factory,
        hub: Hub,
        deadlines: Deadlines,
        patience: float = PATIENCE,
        by_protocol: Mapping[bytes, Factory] | None = None,
        turns_away: Callable[[Any], bool] = welcome,
    ) -> None:
        self.tls = tls
        self.factory = factory
        self.by_protocol = dict(by_protocol or {})
        self.hub = hub
        self.deadlines = deadlines
        self.patience = patience
        self.failed = 0
        self._turns_away = turns_away
        self.arrivals: set[_Arrival] = set()

    def __repr__(self) -> str:
        return f"<TlsListener {self.factory!r} {len(self.arrivals)} shaking hands>"

    @property
    def active(self) -> int:
        """Handshakes under way."""
        return len(self.arrivals)

    def startFactory(self) -> None:
        for factory in (self.factory, *self.by_protocol.values()):
            factory.doStart()

    def stopFactory(self) -> None:
        for factory in (self.factory, *self.by_protocol.values()):
            factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        if self._turns_away(addr):
            return None
        arrival = _Arrival(self, addr)
        self.arrivals.add(arrival)
        self.deadlines.set(arrival, self.patience)
        return arrival.transport

    def abort_all(self) -> None:
        """Close the connections whose handshake is under way."""
        for arrival in tuple(self.arrivals):
            arrival.abort()

    def ended(self, arrival: _Arrival) -> None:
        """A handshake is over."""
        self.arrivals.discard(arrival)
        self.deadlines.forget(arrival)

    def note_failure(self, peer: Any, why: str) -> None:
        """A handshake came to nothing."""
        self.failed += 1
        self._log.debug("no TLS with {peer}: {why}", peer=peer, why=why)


class _Arrival:
    """
    A client that has not finished its handshake.

    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = ("_address", "_listener", "deadline", "due", "transport")

    def __init__(self, listener: TlsListener, address: Any) -> None:
        self.deadline = inf
        self.due = inf
        self._listener = listener
        self._address = address
        self.transport = TlsTransport(listener.tls.connection(), listener.hub, self, address)

    def established(self, transport: TlsTransport) -> None:
        listener = self._listener
        listener.ended(self)
        agreed = transport.negotiatedProtocol
        factory = listener.by_protocol.get(agreed or b"", listener.factory)
        protocol = factory.buildProtocol(self._address)
        if protocol is None:
            transport.loseConnection()
        else:
            transport.attach(protocol)

    def handshake_failed(self, why: str) -> None:
        self._listener.ended(self)
        self._listener.note_failure(self._address, why)

    def deadline_passed(self) -> None:
        self._listener.note_failure(self._address, "the handshake took too long")
        self.abort()

    def abort(self) -> None:
        """Close the connection; nobody hears of it."""
        self._listener.ended(self)
        self.transport.abortConnection()
