"""
What a listener's connections go through before they are its own: a PROXY
header, then TLS.

Knows the order of the two, how both end, and that whoever is still on the way
counts as a connection; refuses to know what becomes of a
connection behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from dynbalance.errors import ConfigError
from dynbalance.http.http2 import Http2Clients
from dynbalance.http.listener import HttpListener
from dynbalance.net.prefaced import Prefaced, everybody, nobody_asks, welcome
from dynbalance.net.tlsport import TlsListener

if TYPE_CHECKING:
    from twisted.internet.protocol import Factory

    from dynbalance.config.listeners import HttpConfig, StreamConfig
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.net.tls import ServerTls, Swap
    from dynbalance.stream.listener import StreamListener


class Entrance:
    """
    @ivar kind: C{http} or C{stream}.
    @ivar listen: the endpoint, as the file has it.
    @ivar listener: whose connections they are behind it.
    @ivar factory: what the port is given.
    """

    def __init__(self, kind: str, listen: str, listener: HttpListener | StreamListener) -> None:
        self.kind = kind
        self.listen = listen
        self.listener = listener
        self.factory: Factory = listener
        self._tls: TlsListener | None = None
        self._prefaced: Prefaced | None = None

    def __repr__(self) -> str:
        return f"<Entrance {self.factory!r}>"

    @classmethod
    def to(
        cls,
        listener: HttpListener | StreamListener,
        settings: HttpConfig | StreamConfig,
        ours: ServerTls | None,
        hub: Hub,
        deadlines: Deadlines,
    ) -> Entrance:
        """
        What the file says of a listener.

        @param ours: who it is in TLS; C{None} where it speaks none.
        """
        is_http = isinstance(listener, HttpListener)
        entrance = cls("http" if is_http else "stream", settings.listen, listener)
        if ours is not None:
            entrance._add_tls(ours, hub, deadlines, outermost=not settings.proxy_protocol)
        if settings.proxy_protocol:
            entrance._add_preface(hub, deadlines)
        return entrance

    def _add_tls(self, ours: ServerTls, hub: Hub, deadlines: Deadlines, outermost: bool) -> None:
        listener = self.listener
        self.factory = self._tls = TlsListener(
            ours,
            listener,
            hub,
            deadlines,
            by_protocol={b"h2": Http2Clients(listener)}
            if isinstance(listener, HttpListener)
            else {},
            turns_away=self._turns_away if outermost else welcome,
        )

    def _add_preface(self, hub: Hub, deadlines: Deadlines) -> None:
        listener = self.listener
        self.factory = self._prefaced = Prefaced(
            self.factory,
            hub,
            deadlines,
            trusts=listener.believes if isinstance(listener, HttpListener) else everybody,
            on_broken=nobody_asks
            if isinstance(listener, HttpListener)
            else listener.broken_preface,
            turns_away=self._turns_away,
        )

    def _turns_away(self, peer: Any) -> bool:
        """Who is on the way in counts, or it would cost nothing to stay there."""
        return self.listener.turns_away(peer, self.waiting)

    @property
    def waiting(self) -> int:
        """Connections that are not through yet."""
        reading = 0 if self._prefaced is None else self._prefaced.active
        return reading + (0 if self._tls is None else self._tls.active)

    @property
    def broken_headers(self) -> int:
        """Connections closed because they did not begin with a PROXY header."""
        return 0 if self._prefaced is None else self._prefaced.broken

    @property
    def failed_handshakes(self) -> int:
        """Connections closed because there was no agreement on TLS, or not in time."""
        return 0 if self._tls is None else self._tls.failed

    @property
    def requests(self) -> int:
        """Requests of HTTP that could be read."""
        return self.listener.requests if isinstance(self.listener, HttpListener) else 0

    @property
    def bad_requests(self) -> int:
        """Requests that were answered with an error of ours before any server was asked."""
        return self.listener.bad_requests if isinstance(self.listener, HttpListener) else 0

    @property
    def unserved(self) -> int:
        """Connections of streams that no server took."""
        return 0 if isinstance(self.listener, HttpListener) else self.listener.refused

    def show(self, ours: ServerTls) -> None:
        """Be another one in TLS to clients that come from now on."""
        if self._tls is not None:
            self._tls.tls = ours

    def abort_all(self) -> None:
        """Close the connections that are not through yet."""
        if self._prefaced is not None:
            self._prefaced.abort_all()
        if self._tls is not None:
            self._tls.abort_all()


class OfFiles(Protocol):
    """What was made of certificates and keys."""

    def reread(self) -> Swap:
        """See L{ServerTls.reread}."""


def reread_all(users: Iterable[OfFiles]) -> Swap:
    """
    Have all of them read their files again.

    @return: has all of them use what was read.
    @raise ConfigError: with all that is wrong with any file; then nothing
        changes anywhere.
    """
    problems: list[str] = []
    swaps: list[Swap] = []
    for user in users:
        with noted(problems):
            swaps.append(user.reread())
    if problems:
        raise ConfigError(problems)

    def swap() -> None:
        for each in swaps:
            each()

    return swap


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Add what is wrong with the configuration to C{problems}, and go on."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems
