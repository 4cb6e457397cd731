"""
Reaching a server by TLS: L{dynbalance.net.dial}, and a handshake after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.error import ConnectError, getConnectError

from dynbalance.net.dial import Dial, Target, transport_for
from dynbalance.net.tls import ClientTls, HandshakeFailed
from dynbalance.net.tlstransport import TlsTransport

if TYPE_CHECKING:
    import socket

    from dynbalance.net.hub import Hub


class TlsCaller(Protocol):
    """Who dials."""

    def secured(self, transport: TlsTransport) -> None:
        """The server is who it should be: attach a protocol, or close."""

    def dial_failed(self, reason: ConnectError) -> None:
        """There is no connection; nothing of the caller's own was sent."""


class TlsDial:
    """
    One attempt to connect and to shake hands.

    Exactly one of the caller's two methods is called.  L{cancel} calls
    neither; it is for the caller's deadline, which covers both.

    @param host: the server's, an IP address or a name; empty if it has none.
    @param greeting: to be sent in clear before the handshake, such as a PROXY
        header; small enough for a socket that was never written to.
    """

    __slots__ = ("_caller", "_dial", "_greeting", "_host", "_hub", "_target", "_tls", "_transport")

    def __init__(
        self, hub: Hub, caller: TlsCaller, tls: ClientTls, host: str, greeting: bytes = b""
    ) -> None:
        self._hub = hub
        self._caller = caller
        self._tls = tls
        self._host = host
        self._greeting = greeting
        self._target: Target | None = None
        self._dial: Dial | None = None
        self._transport: TlsTransport | None = None

    def start(self, target: Target) -> None:
        """Begin; failure may be told before this returns."""
        self._target = target
        self._dial = Dial(self._hub, self)
        self._dial.start(target)

    def cancel(self) -> None:
        """Give up, silently."""
        dial, self._dial = self._dial, None
        transport, self._transport = self._transport, None
        if dial is not None:
            dial.cancel()
        if transport is not None:
            transport.abortConnection()

    # What is heard of the dial.

    def dialed(self, skt: socket.socket) -> None:
        assert self._target is not None
        self._dial = None
        try:
            connection = self._tls.connection(self._host)
            if self._greeting and skt.send(self._greeting) < len(self._greeting):
                raise ConnectError(string="the server takes no greeting")
        except ConnectError as failed:
            skt.close()
            self._caller.dial_failed(failed)
            return
        except OSError as failed:
            skt.close()
            self._caller.dial_failed(getConnectError((failed.errno or 0, str(failed))))
            return
        self._transport = TlsTransport(connection, self._hub, self, linger=True)
        transport_for(self._hub, skt, self._target, self._transport)

    def dial_failed(self, reason: ConnectError) -> None:
        self._dial = None
        self._caller.dial_failed(reason)

    # What is heard of the handshake.

    def established(self, transport: TlsTransport) -> None:
        self._transport = None
        self._caller.secured(transport)

    def handshake_failed(self, why: str) -> None:
        self._transport = None
        self._caller.dial_failed(HandshakeFailed(string=why))
