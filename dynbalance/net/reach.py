"""
How a connection to a server begins: a PROXY header, then TLS, where the
configuration wants them.

Knows what is said before the first byte of HTTP or of a stream; refuses to
know who chose the server, and what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from dynbalance.net.proxyprotocol import header
from dynbalance.net.tls import ClientTls, nothing_to_swap
from dynbalance.net.tlsdial import TlsDial

if TYPE_CHECKING:
    from dynbalance.balancer.address import Address
    from dynbalance.config.upstream import UpstreamConfig
    from dynbalance.net.hub import Hub
    from dynbalance.net.tls import Swap
    from dynbalance.net.tlsdial import TlsCaller


@frozen(slots=True)
class Reach:
    """
    @ivar proxy_protocol: the version of the header; 0 for none.
    @ivar tls: C{None} for none.
    """

    proxy_protocol: int = 0
    tls: ClientTls | None = None

    @classmethod
    def of(cls, settings: UpstreamConfig, option: str, alpn: tuple[str, ...] = ()) -> Reach:
        """
        What the file says of an upstream.

        @param option: path of the upstream's table.
        @param alpn: protocols to offer by TLS.
        @raise ConfigError: naming each option of C{tls} that is of no use.
        """
        tls = settings.tls
        return cls(
            settings.proxy_protocol,
            None if tls is None else ClientTls.of(tls, f"{option}.tls", alpn),
        )

    def reread(self) -> Swap:
        """As L{ClientTls.reread}; nothing where there is no TLS."""
        return nothing_to_swap if self.tls is None else self.tls.reread()

    def greeting(self, ends: tuple[Any, Any]) -> bytes:
        """
        What the server hears first.

        @param ends: where the client's connection comes from, and where it
            came to.
        """
        return header(self.proxy_protocol, *ends) if self.proxy_protocol else b""

    def tls_dial(self, hub: Hub, caller: TlsCaller, address: Address, greeting: bytes) -> TlsDial:
        """A dial that speaks TLS; only where there is L{tls}."""
        assert self.tls is not None
        return TlsDial(hub, caller, self.tls, "" if address.is_unix else address.host, greeting)


PLAIN = Reach()
"""Nothing before the first byte."""
