"""
Listeners whose connections begin with a PROXY header.

The header is taken from the bare socket, and exactly the header: every byte
behind it is still the kernel's when the connection goes on to whoever serves
it, be that a protocol, TLS, or a relay between sockets.  Hence one way for all
of them.  A look at the bytes (C{MSG_PEEK}) shows how many are the header's,
and just those are received; as whatever cannot be decided yet is part of the
header, it is received too, and an unfinished header never wakes us twice.
"""

from __future__ import annotations

import socket
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import ServerFactory

from dynbalance.log import Logger
from dynbalance.net.dial import Target
from dynbalance.net.proxyprotocol import BrokenHeader, Place, PrefaceReader, plain_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.protocol import Factory

    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub

PATIENCE = 10.0
"""Seconds within which a whole header has to come."""

_LOOK = 4096


class Port(Protocol):
    """A listening port of L{dynbalance.net.port}."""

    def serve(self, skt: socket.socket, peer: Any, address: Any) -> None:
        """Give an accepted socket a transport and a protocol."""


def everybody(host: str) -> bool:
    """Whoever speaks is believed."""
    return True


def welcome(peer: Any) -> bool:
    """Nobody is turned away."""
    return False


def nobody_asks(peer: Any, why: str) -> None:
    """There is the log."""


class Prefaced(ServerFactory):
    """
    Stands between a port and the factory that serves its connections.

    The factory gets each connection, by its C{accept_socket} or its
    C{buildProtocol}, with the address that the header says.

    @param trusts: whether the word of a peer with that host is believed;
        everybody has to send a header, but who is not trusted stays the
        client himself.
    @param patience: seconds within which a whole header has to come.
    @param on_broken: is told of each connection that is closed for what it
        began with: its peer as C{accept} says it, and why.
    @param turns_away: asked first for each connection that comes, with its
        peer as C{accept} says it; C{True} closes it.
    @ivar broken: connections closed for what they began with.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        factory: Factory,
        hub: Hub,
        deadlines: Deadlines,
        trusts: Callable[[str], bool] = everybody,
        patience: float = PATIENCE,
        on_broken: Callable[[Any, str], None] = nobody_asks,
        turns_away: Callable[[Any], bool] = welcome,
    ) -> None:
        self.factory = factory
        self.hub = hub
        self.deadlines = deadlines
        self.patience = patience
        self.broken = 0
        self._trusts = trusts
        self._on_broken = on_broken
        self._turns_away = turns_away
        self._reading: set[_Reading] = set()

    def __repr__(self) -> str:
        return f"<Prefaced {self.factory!r} {len(self._reading)} waiting>"

    @property
    def active(self) -> int:
        """Connections whose header is being waited for."""
        return len(self._reading)

    def accept_socket(self, skt: socket.socket, peer: Any, port: Port) -> None:
        """A connection came; its header may already be there."""
        if self._turns_away(peer):
            skt.close()
            return
        reading = _Reading(self, skt, peer, port)
        self._reading.add(reading)
        reading.start()

    def startFactory(self) -> None:
        self.factory.doStart()

    def stopFactory(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        """Who serves a connection whose header has been read."""
        return self.factory.buildProtocol(addr)

    def abort_all(self) -> None:
        """Close the connections whose header has not come."""
        for reading in tuple(self._reading):
            reading.close()

    # What the connections tell.

    def ended(self, reading: _Reading) -> None:
        """It is not waited for any more."""
        self._reading.discard(reading)

    def refused(self, peer: Any, why: str) -> None:
        """A connection was closed for what it began with."""
        self.broken += 1
        self._log.warn("broken header from {peer}: {why}", peer=peer, why=why)
        self._on_broken(peer, why)

    def passed(self, skt: socket.socket, peer: Any, port: Port, source: Place | None) -> None:
        """A header was read: the connection begins."""
        address = Target(skt.family, peer).as_twisted()
        if source is not None and self._trusts(plain_host(address)):
            address = source
            if not isinstance(source, UNIXAddress):
                # No transport of TCP's can say that it comes from a path.
                peer = _sockaddr(source)
        accept_socket = getattr(self.factory, "accept_socket", None)
        try:
            if accept_socket is not None:
                accept_socket(skt, peer, port)
            else:
                port.serve(skt, peer, address)
        except Exception:  # noqa: BLE001 - as the port does: the others are to be served
            self._log.failure("accepting {peer} failed", peer=peer)
            skt.close()


class _Reading:
    """
    One connection until its header has come.

    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = ("_peer", "_port", "_reader", "_skt", "_to", "deadline", "due")

    def __init__(self, to: Prefaced, skt: socket.socket, peer: Any, port: Port) -> None:
        self.deadline = inf
        self.due = inf
        self._to = to
        self._skt = skt
        self._peer = peer
        self._port = port
        self._reader = PrefaceReader()

    def __repr__(self) -> str:
        return f"<header of {self._peer} {self._reader}>"

    def start(self) -> None:
        self._to.deadlines.set(self, self._to.patience)
        if not self._look():
            self._to.hub.addReader(self)

    # What the hub sees.

    def fileno(self) -> int:
        return self._skt.fileno()

    def logPrefix(self) -> str:
        return "header"

    def doRead(self) -> None:
        self._look()

    def _look(self) -> bool:
        """@return: whether it is decided."""
        reader = self._reader
        try:
            seen = self._skt.recv(_LOOK, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return True
        if not seen:
            # Who says nothing at all only wanted to know that we are here.
            self._refuse(f"it ends after {reader.size} bytes" if reader.size else "")
            return True
        try:
            preface = reader.feed(seen)
        except BrokenHeader as broken:
            self._refuse(str(broken))
            return True
        self._skt.recv(len(seen) - len(preface.rest) if preface is not None else len(seen))
        if preface is None:
            return False
        self._leave()
        self._to.passed(self._skt, self._peer, self._port, preface.source)
        return True

    def _refuse(self, why: str) -> None:
        if why:
            self._to.refused(self._peer, why)
        self.close()

    def connectionLost(self, reason: Any) -> None:
        self.close()

    def deadline_passed(self) -> None:
        self._refuse(f"no whole header within {self._to.patience:g} s")

    def close(self) -> None:
        """Close the connection; nobody hears of it."""
        if self._skt.fileno() >= 0:
            self._leave()
            self._skt.close()

    def _leave(self) -> None:
        self._to.deadlines.forget(self)
        self._to.hub.hand_over(self._skt.fileno())
        self._to.ended(self)


def _sockaddr(place: IPv4Address | IPv6Address) -> Any:
    """As C{socket.accept} would have given it."""
    if isinstance(place, IPv6Address):
        return (place.host, place.port, 0, 0)
    return (place.host, place.port)
