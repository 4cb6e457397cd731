"""Tests of the rounds that end drains."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.health.drains import Drains
from dynbalance.store.contract import Drain, Intent, Then
from dynbalance.store.membership import Membership
from tests.health.stores import DoorStore, order

SETTLE = 2.0
KEY = "127.0.0.1:9001"


class DrainsTests(TestCase):
    """Two nodes; the first one holds a connection to the server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = DoorStore(self.clock)
        self.asked = 0
        finish = self.store.inner.finish_drains

        def finish_drains(upstream: str, settle: float) -> object:
            self.asked += 1
            return finish(upstream, settle)

        self.patch(self.store.inner, "finish_drains", finish_drains)
        self.successResultOf(self.store.inner.add("default", order(9001), "test"))
        self.nodes = [self.node("one"), self.node("two")]
        lease = self.nodes[0].upstream("default").choose()
        assert lease is not None
        self.lease = lease
        self.clock.advance(0.2)

    def node(self, name: str) -> Balancer:
        balancer = Balancer([UpstreamOrder(name="default")], self.clock.seconds, lambda: 0.0)
        membership = Membership(balancer, self.store, name, 10.0, 0.1, self.clock)
        drains = Drains(self.store, membership, balancer.upstreams, SETTLE, self.clock)
        self.successResultOf(membership.start())
        drains.start()
        self.addCleanup(drains.stop)
        return balancer

    def drain(self, then: Then, seconds: float = 0.0) -> None:
        drain = Drain(seconds=seconds, then=then)
        self.successResultOf(
            self.store.inner.set_intent("default", KEY, Intent.DRAIN, "test", drain)
        )

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds * 20))

    def states(self) -> list[str]:
        """What each node says of the server."""
        servers = [node.upstream("default").server(KEY) for node in self.nodes]
        return ["gone" if server is None else server.state.value for server in servers]

    def test_when_nothing_runs(self) -> None:
        """The server is out on all nodes at once, and gone when its last connection is."""
        self.drain(Then.REMOVE)
        self.run_for(0.2)
        self.assertEqual(["draining", "draining"], self.states())
        self.assertEqual([None, None], [n.upstream("default").choose() for n in self.nodes])
        self.run_for(30.0)
        self.assertEqual(["draining", "draining"], self.states())
        self.lease.release()
        with capturedLogs() as events:
            self.run_for(1.5)
        self.assertEqual(["gone", "gone"], self.states())
        said = [event for event in events if "is drained and" in event["log_format"]]
        self.assertEqual([(KEY, "removed")], [(e["server"], e["done"]) for e in said])

    def test_when_the_time_is_up(self) -> None:
        """At its deadline the drain is over, whatever still runs, and that is said."""
        self.drain(Then.DISABLE, 5.0)
        self.run_for(4.9)
        self.assertEqual(["draining", "draining"], self.states())
        with capturedLogs() as events:
            self.run_for(1.5)
        self.assertEqual(["disabled", "disabled"], self.states())
        [said] = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual((KEY, 1), (said["server"], said["left"]))
        self.lease.release()

    def test_undone(self) -> None:
        """Enabling it undoes the drain."""
        self.drain(Then.REMOVE, 5.0)
        self.run_for(1.0)
        self.successResultOf(
            self.store.inner.set_intent("default", KEY, Intent.ENABLE, "test")
        )
        self.run_for(10.0)
        self.assertEqual(["up", "up"], self.states())
        self.lease.release()

    def test_not_asked_in_vain(self) -> None:
        """Without a drain that is to end the store is not asked."""
        self.run_for(5.0)
        self.drain(Then.STAY)
        self.run_for(5.0)
        self.assertEqual(0, self.asked)
        self.lease.release()

    def test_store_away(self) -> None:
        """While the store is away a drain goes on, and ends afterwards."""
        self.drain(Then.REMOVE, 2.0)
        self.run_for(0.2)
        self.store.lose()
        self.run_for(10.0)
        self.assertEqual(["draining", "draining"], self.states())
        self.store.find()
        self.run_for(1.5)
        self.assertEqual(["gone", "gone"], self.states())
        self.lease.release()
