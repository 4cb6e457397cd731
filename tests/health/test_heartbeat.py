"""Tests of the rounds that take out servers whose heartbeats stopped."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.health.heartbeat import HeartbeatCleanup
from dynbalance.store.contract import HEARTBEAT_TIMEOUT
from dynbalance.store.membership import Membership
from tests.health.stores import DoorStore, order

TTL = 30.0
ROUND = 10.0
KEY = "127.0.0.1:9001"


class HeartbeatCleanupTests(TestCase):
    """A node with one server that beats when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = DoorStore(self.clock)
        self.balancer = Balancer(
            [UpstreamOrder(name="default"), UpstreamOrder(name="api")],
            self.clock.seconds,
            lambda: 0.0,
        )
        # No exchange falls on a round: what is seen then, the round has brought.
        self.membership = Membership(self.balancer, self.store, "one", 10.0, 0.7, self.clock)
        self.cleanup = HeartbeatCleanup(
            self.store, self.membership, self.balancer.upstreams, TTL, ROUND, self.clock
        )
        self.successResultOf(self.store.inner.add("default", order(9001), "test"))
        self.successResultOf(self.membership.start())
        self.cleanup.start()

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))

    def beat(self) -> None:
        self.successResultOf(self.store.inner.beat("default", KEY, True))

    def is_expired(self) -> bool:
        server = self.balancer.upstream("default").server(KEY)
        assert server is not None
        return server.expired

    def test_silent_server_is_taken_out(self) -> None:
        """In the first round after ttl the server is out, on this node at once."""
        self.run_for(TTL + ROUND - 0.5)
        self.assertFalse(self.is_expired())
        self.run_for(0.5)
        self.assertTrue(self.is_expired())
        snapshot = self.successResultOf(self.store.inner.snapshot("default"))
        self.assertEqual(snapshot.servers[0].disabled_reason, HEARTBEAT_TIMEOUT)

    def test_beating_server_stays(self) -> None:
        """A server that beats in time is never taken out."""
        for _ in range(10):
            self.run_for(TTL - 5)
            self.beat()
        self.assertFalse(self.is_expired())

    def test_said_once(self) -> None:
        """An expired server is logged in the round that found it, and not again."""
        with capturedLogs() as events:
            self.run_for(200)
        expiries = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual([(e["server"], e["upstream"]) for e in expiries], [(KEY, "default")])

    def test_survives_its_own_exceptions(self) -> None:
        """A round that fails is logged, and the next one does its work."""
        expire = self.store.expire
        self.run_for(TTL)

        def broken(upstream: str, ttl: float) -> None:
            raise ZeroDivisionError("a mistake")

        self.patch(self.store, "expire", broken)
        self.run_for(ROUND)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.patch(self.store, "expire", expire)
        self.run_for(ROUND)
        self.assertTrue(self.is_expired())

    def test_nobody_expires_for_an_outage(self) -> None:
        """After an outage each server has a whole ttl to send its next heartbeat."""
        self.run_for(25)
        self.store.lose()
        self.run_for(8)
        self.store.find()
        self.run_for(TTL - 5)
        self.assertFalse(self.is_expired())
        self.beat()
        self.run_for(TTL - 5)
        self.assertFalse(self.is_expired())
        self.run_for(5 + ROUND)
        self.assertTrue(self.is_expired())

    def test_no_call_while_the_store_is_away(self) -> None:
        """A store that is away is not asked to expire anything."""
        self.run_for(TTL)
        self.store.lose()
        self.run_for(1)
        self.store.calls.clear()
        self.run_for(100)
        self.assertNotIn("expire", self.store.calls)

    def test_stop_leaves_no_timer(self) -> None:
        """At the end nothing is left on the clock."""
        self.cleanup.stop()
        self.successResultOf(self.membership.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
