"""Tests of what is looked at while a daemon runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.lease import Lease
from dynbalance.invariants import Invariants, Unpublished, wrong_counts, wrong_places
from tests.balancer.building import only, order, taken, upstream


class CountsTests(SynchronousTestCase):
    """Leases and servers that are compared."""

    def setUp(self) -> None:
        self.upstream = upstream(order("a", max_conns=2))
        self.server = only(self.upstream, "a")

    def wrong(self, *leases: Lease, active: int = 1) -> int:
        return len(list(wrong_counts([self.server], leases, active)))

    def test_sound(self) -> None:
        """A server with its leases, and one without any, are as they should be."""
        self.assertEqual(0, self.wrong())
        lease, other = taken(self.upstream), taken(self.upstream)
        self.assertEqual(0, self.wrong(lease, other))
        other.release()
        self.assertEqual(0, self.wrong(lease, other))

    def test_lost(self) -> None:
        """A lease that was dropped and not released is missed."""
        taken(self.upstream)
        self.assertEqual(1, self.wrong())

    def test_given_back_twice(self) -> None:
        """So is a count that was given back behind the lease's back."""
        lease = taken(self.upstream)
        self.server.policy.give(self.server)
        self.assertEqual(1, self.wrong(lease))

    def test_nobody_here(self) -> None:
        """A lease that is out while no client is connected belongs to nobody."""
        self.assertEqual(1, self.wrong(taken(self.upstream), active=0))

    def test_impossible_numbers(self) -> None:
        """More places asked for than held, and others below nothing."""
        self.server.asked = 1
        self.assertEqual(1, self.wrong())
        self.server.others = -1
        self.assertEqual(2, self.wrong())

    def test_places(self) -> None:
        """Exactly a server that is ready and not full may be chosen."""
        self.assertEqual([], list(wrong_places([self.server])))
        leases = [taken(self.upstream), taken(self.upstream)]
        self.assertEqual([], list(wrong_places([self.server])))
        self.server.usable = True
        self.assertEqual(1, len(list(wrong_places([self.server]))))
        self.server.usable = False
        self.server.ready = False
        self.assertEqual(1, len(list(wrong_places([self.server]))))
        self.assertEqual(2, len(leases))


class UnpublishedTests(SynchronousTestCase):
    """Counts that the store should know."""

    def setUp(self) -> None:
        self.upstream = upstream(order("a"))
        self.server = only(self.upstream, "a")
        self.unpublished = Unpublished()

    def looks(self, number: int) -> list[str]:
        """What the last one finds."""
        found: list[str] = []
        for _ in range(number):
            found = list(self.unpublished.look([self.server], patience=2))
        return found

    def test_told(self) -> None:
        """What was reported is never missed."""
        lease = taken(self.upstream)
        self.upstream.acknowledge(self.upstream.report())
        self.assertEqual([], self.looks(9))
        self.assertFalse(lease.released)

    def test_untold(self) -> None:
        """What was not is, but not at once."""
        lease = taken(self.upstream)
        self.assertEqual([], self.looks(2))
        self.assertEqual(1, len(self.looks(1)))
        self.assertFalse(lease.released)

    def test_busy(self) -> None:
        """Whoever is chosen all the time is between two reports."""
        for _ in range(9):
            lease = taken(self.upstream)
            self.assertEqual([], self.looks(1))
            lease.release()

    def test_away(self) -> None:
        """Nobody can be told while the store is away."""
        lease = taken(self.upstream)
        self.assertEqual([], self.looks(2))
        self.unpublished.forget()
        self.assertEqual([], self.looks(2))
        self.assertFalse(lease.released)


class LookTests(SynchronousTestCase):
    """The look once a second."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.clock.callWhenRunning = lambda call: call()
        self.clock.addSystemEventTrigger = lambda *trigger: None
        self.upstream = upstream(order(self._testMethodName))
        self.works: Any = SimpleNamespace(
            inventory=SimpleNamespace(detailed=False),
            balancer=[self.upstream],
            traffic=SimpleNamespace(active=1),
            membership=_membership(running=True),
            config=SimpleNamespace(store=SimpleNamespace(sync_interval=0.1, timeout=1.0)),
        )

    def errors(self, seconds: int) -> list[str]:
        """What is logged of this test's own server meanwhile."""
        with capturedLogs() as events:
            self.clock.pump([1] * seconds)
        return [
            event["line"]
            for event in events
            if event["log_level"] is LogLevel.error
            and f" {self._testMethodName}:80" in event["line"]
        ]

    def test_not_asked_for(self) -> None:
        """Without the variable, or with an empty one, nothing is looked at."""
        Invariants.watch({}, self.clock, lambda: self.works)
        Invariants.watch({"DYNBALANCE_INVARIANTS": ""}, self.clock, lambda: self.works)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertFalse(self.works.inventory.detailed)

    def test_not_begun(self) -> None:
        """A worker that was told nothing yet has nothing to look at."""
        Invariants.watch({"DYNBALANCE_INVARIANTS": "1"}, self.clock, lambda: None)
        self.assertEqual([], self.errors(3))

    def test_found(self) -> None:
        """A lost lease is found though nobody has it any more, and told of once."""
        Invariants.watch({"DYNBALANCE_INVARIANTS": "1"}, self.clock, lambda: self.works)
        lease = taken(self.upstream)
        self.upstream.acknowledge(self.upstream.report())
        self.assertEqual([], self.errors(9))
        del lease
        self.assertEqual(1, len(self.errors(9)))

    def test_objects(self) -> None:
        """Metrics count objects from then on."""
        Invariants.watch({"DYNBALANCE_INVARIANTS": "1"}, self.clock, lambda: self.works)
        self.assertEqual([], self.errors(1))
        self.assertTrue(self.works.inventory.detailed)

    def test_unpublished(self) -> None:
        """A lease that the store does not hear of is found after some seconds."""
        Invariants.watch({"DYNBALANCE_INVARIANTS": "1"}, self.clock, lambda: self.works)
        lease = taken(self.upstream)
        self.assertEqual([], self.errors(5))
        self.assertEqual(1, len(self.errors(9)))
        self.assertFalse(lease.released)

    def test_cannot_be_published(self) -> None:
        """Nor is one missed while the store is away, or was left to a successor."""
        Invariants.watch({"DYNBALANCE_INVARIANTS": "1"}, self.clock, lambda: self.works)
        lease = taken(self.upstream)
        self.works.membership.contact.available = False
        self.assertEqual([], self.errors(9))
        self.works.membership = _membership(running=False)
        self.assertEqual([], self.errors(9))
        self.assertFalse(lease.released)


def _membership(*, running: bool) -> SimpleNamespace:
    return SimpleNamespace(running=running, contact=SimpleNamespace(available=True))
