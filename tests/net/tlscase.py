"""
A hub with a TLS listener of ours, or a TLS server of the test's own.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from dynbalance.net.deadlines import Deadlines
from dynbalance.net.dial import Target
from dynbalance.net.tls import ClientTls, KeyPair, ServerTls
from dynbalance.net.tlsdial import TlsDial
from dynbalance.net.tlsport import TlsListener
from tests.net.authority import Authority, TlsPeer, client_context, server_context
from tests.net.building import Factory, NetCase, Notes
from tests.net.pump import Backend


class TlsCase(NetCase):
    """
    @ivar authority: whom both sides trust.
    @ivar pair: for C{a.example} and 127.0.0.1.
    """

    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        self.authority = Authority(directory)
        self.pair_a = self.authority.issue("a.example", "127.0.0.1", file="a")
        self.deadlines = Deadlines(self.pump)
        self.listeners: list[TlsListener] = []

    def tearDown(self) -> None:
        self.pump.settle()
        for listener in self.listeners:
            self.assertEqual(listener.active, 0)
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")
        super().tearDown()

    # Our listener.

    def serve(
        self, tls: ServerTls | None = None, kind: Any = Notes, **options: Any
    ) -> tuple[int, Factory]:
        """@return: the port, and the factory of the protocols above TLS."""
        factory = Factory(kind)
        tls = tls or ServerTls([self.pair_a])
        self.listener = TlsListener(tls, factory, self.hub, self.deadlines, **options)
        self.listeners.append(self.listener)
        return self.listen(self.listener), factory

    def call(
        self, port: int, context: ssl.SSLContext | None = None, name: str = "a.example"
    ) -> TlsPeer:
        """A client that has not shaken hands."""
        context = context or client_context(self.authority.file)
        return TlsPeer(self.client(port), context, False, name)

    def served(self, kind: Any = Notes, **context: Any) -> tuple[Any, TlsPeer]:
        """A protocol above TLS, and its client."""
        port, factory = self.serve(kind=kind)
        context.setdefault("ca", self.authority.file)
        peer = self.call(port, client_context(**context)).handshake()
        self.pump.until(lambda: factory.built)
        return factory.built[0], peer

    # Our client.

    def dial(self, port: int, tls: ClientTls | None = None, **options: Any) -> Dialed:
        tls = tls or ClientTls(ca=self.authority.file)
        dialed = Dialed(self, tls, **options)
        dialed.dial.start(Target.of_twisted(_Address(port)))
        return dialed

    def backend(self) -> Backend:
        backend = Backend(self.pump)
        self.closing.append(backend)
        return backend

    def answer(
        self, backend: Backend, pair: KeyPair | None = None, client_ca: str | None = None
    ) -> TlsPeer:
        """A server that has not shaken hands."""
        peer = backend.accept()
        self.closing.append(peer)
        return TlsPeer(peer, server_context(pair or self.pair_a, client_ca), True)

    def try_handshake(self, peer: TlsPeer) -> Exception | None:
        """@return: why it failed, if it did."""
        try:
            peer.handshake()
        except (ssl.SSLError, EOFError, OSError) as failed:
            peer.flush_quietly()
            return failed
        return None


class _Address:
    def __init__(self, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = port


class Dialed:
    """
    Who dials.

    @ivar protocol: what was attached.
    @ivar failed: why it failed.
    """

    def __init__(
        self,
        case: TlsCase,
        tls: ClientTls,
        host: str = "a.example",
        greeting: bytes = b"",
        kind: Any = Notes,
    ) -> None:
        self._kind = kind
        self.protocol: Any = None
        self.failed: Any = None
        self.dial = TlsDial(case.hub, self, tls, host, greeting)

    def secured(self, transport: Any) -> None:
        self.protocol = self._kind()
        transport.attach(self.protocol)

    def dial_failed(self, reason: Any) -> None:
        assert self.failed is None
        self.failed = reason
