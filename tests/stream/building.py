"""
A stream listener with servers of the test's own, on a pumped reactor.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import FileServer
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.hub import Hub
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.store.contract import ServerOrder
from dynbalance.stream.listener import StreamListener
from dynbalance.stream.options import StreamOptions
from tests.net.pump import Backend, Peer, Pump, descriptors


def servers(*addresses: str, **order: Any) -> tuple[FileServer, ...]:
    """Servers of a file."""
    orders = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        orders.append(ServerOrder(address=address, host=host, port=int(port), **order))
    return tuple(FileServer(order=order) for order in orders)


class _Transports(ServerFactory):
    """Hides that a listener takes bare sockets."""

    noisy = False

    def __init__(self, listener: StreamListener) -> None:
        self.buildProtocol = listener.buildProtocol  # type: ignore[assignment]


class StreamCase(TestCase):
    """
    Builds listeners, and sees to it that nothing is left of them.

    @cvar epoll: whether the hub has its own.
    @cvar transports: whether clients come by Twisted's transports.
    """

    epoll = True
    transports = False

    def setUp(self) -> None:
        self.before = descriptors()
        self.pump = Pump()
        self.hub: Hub = carrier(self.pump, self.epoll)
        self.deadlines = Deadlines(self.pump)
        self.pipes = Pipes()
        self.closing: list[Any] = []
        self.ports: list[Any] = []

    def tearDown(self) -> None:
        self.listener.abort_all()
        for thing in self.closing:
            thing.close()
        for port in self.ports:
            port.stopListening()
        self.pump.settle()
        self.assertEqual(self.listener.active, 0)
        for server in self.upstream.servers:
            self.assertEqual(server.held, 0)
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")
        self.assertEqual(self.hub.removeAll(), [])
        self.hub.close()
        self.pipes.close()
        self.assertEqual(self.pump.getDelayedCalls(), [])
        self.assertEqual(descriptors(), self.before)

    def backend(self, backlog: int = 100) -> Backend:
        backend = Backend(self.pump, backlog)
        self.closing.append(backend)
        return backend

    def listen(
        self,
        *addresses: str,
        policy: str = "round_robin",
        max_conns: int = 0,
        retry_budget: float = 0,
        queue: int = 0,
        strict: bool = False,
        **options: Any,
    ) -> None:
        """A listener over servers at C{addresses}."""
        balancer = Balancer(
            [
                UpstreamOrder(
                    name="u",
                    policy=policy,
                    servers=servers(*addresses, max_conns=max_conns),
                    options=UpstreamOptions(
                        retry_budget=retry_budget, queue=queue, strict=strict
                    ),
                )
            ],
            self.pump.seconds,
            lambda: 0.5,
        )
        self.upstream = balancer.upstream("u")
        self.listener = StreamListener(
            StreamOptions(**options),
            self.upstream,
            self.hub,
            self.deadlines,
            Names(self.pump, self.pump),
            self.pipes,
        )
        factory = _Transports(self.listener) if self.transports else self.listener
        port = self.hub.listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)
        self.port: int = port.getHost().port

    def client(self) -> Peer:
        peer = Peer.connect(self.pump, self.port)
        self.closing.append(peer)
        return peer

    def accept(self, backend: Backend) -> Peer:
        peer = backend.accept()
        self.closing.append(peer)
        return peer

    def pair(self, **options: Any) -> tuple[Peer, Peer]:
        """A client, and the server that it is connected to."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{backend.port}", **options)
        client = self.client()
        server = self.accept(backend)
        # Twisted's transports are joined a turn later.
        self.pump.settle()
        return client, server
