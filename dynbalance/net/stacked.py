"""
A transport that stands on another: what it leaves to that one.

Knows whose connection it is, and that it is TCP; refuses to know what becomes of
the bytes in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

if TYPE_CHECKING:
    from dynbalance.net.transport import WriteThrough


class Stacked(Protocol):
    """
    The protocol of the transport beneath it, as a transport.

    @param peer: what L{getPeer} answers; the other end of the transport
        beneath if that is C{None}.
    """

    transport: WriteThrough

    def __init__(self, peer: Any = None) -> None:
        self._peer = peer

    def getPeer(self) -> Any:
        return self._peer if self._peer is not None else self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def getTcpNoDelay(self) -> bool:
        return bool(self.transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)
