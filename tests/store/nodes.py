"""
Several nodes with one memory store on one virtual clock: each call takes its
time on the way there and back, in order as on one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.server import Server
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.errors import StoreUnavailable
from dynbalance.store.contract import Snapshot
from dynbalance.store.membership import Membership
from dynbalance.store.memory import MemoryStore
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish
from tests.health.stores import order

LEASE = 10.0
INTERVAL = 0.1
T = TypeVar("T")


class Far:
    """
    The store at some distance.

    @ivar delay: gives the seconds of each way.
    @ivar cut: calls are not answered any more, though they may arrive.
    """

    def __init__(self, inner: MemoryStore, clock: Clock, delay: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock
        self.delay = delay
        self.cut = False
        self._there = self._back = 0.0
        self._waiting: set[Deferred[Any]] = set()

    def _call(self, begin: Callable[[], Deferred[T]]) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        self._waiting.add(answer)
        now = self._clock.seconds()
        self._there = max(self._there, now + self.delay())
        self._clock.callLater(self._there - now, self._arrive, begin, answer)
        if self.cut:
            self._clock.callLater(0.3, self.lose)
        return answer

    def _arrive(self, begin: Callable[[], Deferred[T]], answer: Deferred[T]) -> None:
        now = self._clock.seconds()
        self._back = max(self._back, now + self.delay())
        result = begin()
        self._clock.callLater(self._back - now, self._return, result, answer)

    def _return(self, result: Deferred[T], answer: Deferred[T]) -> None:
        if answer in self._waiting and not self.cut:
            self._waiting.remove(answer)
            result.addBoth(answer.callback)

    def lose(self) -> None:
        """The connection breaks: whatever was not answered never is."""
        waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            answer.errback(StoreUnavailable("the connection broke"))

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        return self._call(lambda: self._inner.snapshot(upstream))

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        return self._call(lambda: self._inner.sync(node, lease, reports))

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        return self._call(lambda: self._inner.grant(upstream, node, number, seen, wishes))

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        return self._call(lambda: self._inner.leave(node, upstreams))


class Node:
    """
    @ivar leases: the connections that it holds.
    @ivar refused: how often it had no server.
    """

    def __init__(self, world: Nodes, name: str, options: UpstreamOptions) -> None:
        self.world = world
        self.leases: list[Lease] = []
        self.refused = 0
        self.store = Far(world.store, world.clock, world.delay)
        self.balancer = Balancer(
            [UpstreamOrder(name="default", options=options)], world.clock.seconds, world.random
        )
        self.upstream = self.balancer.upstream("default")
        far: Any = self.store
        self.membership = Membership(
            self.balancer, far, name, LEASE, INTERVAL, world.clock
        )
        self.membership.start()

    def come(self, *, only: Server | None = None) -> Client:
        """A client wants a connection."""
        client = Client(self)
        upstream = self.upstream
        if isinstance(upstream, StrictUpstream):
            upstream.ask(client, only=only)
        else:
            lease = upstream.choose()
            if lease is None:
                client.refused()
            else:
                client.granted(lease)
        return client

    def go(self, which: int) -> None:
        """A connection ends."""
        if self.leases:
            self.leases.pop(which % len(self.leases)).release()


class Client:
    """Who wants a connection."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.lease: Lease | None = None
        self.answered = False

    def granted(self, lease: Lease) -> None:
        self.answered = True
        self.lease = lease
        self.node.leases.append(lease)
        self.node.world.opened(self.node, lease)

    def refused(self) -> None:
        self.answered = True
        self.node.refused += 1

    def leave(self) -> None:
        self.node.upstream.leave_queue(self)


class Nodes:
    """
    @ivar most: connections that there were at once over all nodes, to any
        server.
    @ivar history: when each connection was opened, and on which node.
    """

    def __init__(
        self,
        count: int,
        options: UpstreamOptions,
        random: Callable[[], float],
        delay: Callable[[], float],
        **servers: int,
    ) -> None:
        """@param servers: ports, as C{p9001}, and their C{max_conns}."""
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.random = random
        self.delay = delay
        self.store = MemoryStore(self.clock)
        self.limits: dict[str, int] = {}
        for port, limit in servers.items():
            wanted = order(int(port[1:]), max_conns=limit, heartbeat=False)
            self.store.add("default", wanted, "test")
            self.limits[wanted.address] = limit
        self.most: dict[str, int] = dict.fromkeys(self.limits, 0)
        self.history: list[tuple[float, Node]] = []
        self.all: list[Node] = []
        for n in range(count):
            self.all.append(Node(self, f"node-{n}", options))
            self.clock.advance(INTERVAL / count)
        self.run(1.0)

    def run(self, seconds: float, step: float = 0.01) -> None:
        self.clock.pump([step] * round(seconds / step))

    def opened(self, node: Node, lease: Lease) -> None:
        self.history.append((self.clock.seconds(), node))
        key = lease.server.key
        self.most[key] = max(self.most[key], self.total(key))

    def total(self, key: str) -> int:
        """Connections of a server that there really are."""
        return sum(lease.server.key == key for node in self.all for lease in node.leases)

    def published(self) -> dict[str, int]:
        found: list[Snapshot] = []
        self.store.snapshot("default").addCallback(found.append)
        return {record.order.address: record.connections for record in found[0].servers}
