"""
What a listener's connections go through before they are its own: a PROXY
header, then TLS.

Knows the order of the two, and how both end; refuses to know what becomes of a
connection behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dynbalance.errors import ConfigError
from dynbalance.http.http2 import Http2Clients
from dynbalance.http.listener import HttpListener
from dynbalance.net.prefaced import Prefaced
from dynbalance.net.tls import ServerTls
from dynbalance.net.tlsport import TlsListener

if TYPE_CHECKING:
    from twisted.internet.protocol import Factory

    from dynbalance.config.listeners import HttpConfig, StreamConfig
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.stream.listener import StreamListener


class Entrance:
    """
    @ivar factory: what the port is given.
    """

    def __init__(
        self, factory: Factory, tls: TlsListener | None = None, prefaced: Prefaced | None = None
    ) -> None:
        """
        @param factory: the outermost of the three.
        """
        self.factory = factory
        self._tls = tls
        self._prefaced = prefaced

    def __repr__(self) -> str:
        return f"<Entrance {self.factory!r}>"

    @classmethod
    def to(
        cls,
        listener: HttpListener | StreamListener,
        settings: HttpConfig | StreamConfig,
        option: str,
        hub: Hub,
        deadlines: Deadlines,
    ) -> Entrance:
        """
        What the file says of a listener.

        @param option: path of its table.
        @raise ConfigError: naming each option of C{tls} that is of no use.
        """
        factory: Factory = listener
        tls: TlsListener | None = None
        prefaced: Prefaced | None = None
        if settings.tls is not None:
            ours = ServerTls.of(settings.tls, f"{option}.tls")
            others = {}
            if isinstance(listener, HttpListener):
                others[b"h2"] = Http2Clients(listener, hub)
            factory = tls = TlsListener(ours, factory, hub, deadlines, by_protocol=others)
        if settings.proxy_protocol:
            if isinstance(listener, HttpListener):
                prefaced = Prefaced(factory, hub, deadlines, listener.believes)
            else:
                prefaced = Prefaced(
                    factory, hub, deadlines, on_broken=listener.broken_preface
                )
            factory = prefaced
        return cls(factory, tls, prefaced)

    def abort_all(self) -> None:
        """Close the connections that are not through yet."""
        if self._prefaced is not None:
            self._prefaced.abort_all()
        if self._tls is not None:
            self._tls.abort_all()


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Add what is wrong with the configuration to C{problems}, and go on."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems
