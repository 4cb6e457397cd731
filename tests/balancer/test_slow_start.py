"""Servers that are new or came back reach their weight by and by."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.leastconn import LeastConn
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.server import STEPS
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord
from tests.balancer.building import letters, only, order, record, snapshot, taken

POLICIES = ("least_conn", "round_robin", "random_two", "ewma")


class SlowStartTests(TestCase):
    """A slow start of 64 seconds: one step a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.revision = 0

    def make(
        self, *servers: ServerOrder, policy: str = "least_conn", seconds: float = 64.0
    ) -> Upstream:
        """An upstream after its first snapshot."""
        made = Upstream(
            "api", policy, (FileServer(order=order("f", 4)),), self.clock.seconds,
            Random(1).random, UpstreamOptions(slow_start=seconds),
        )  # fmt: skip
        self.say(made, *servers)
        return made

    def say(self, made: Upstream, *servers: ServerOrder | ServerRecord) -> None:
        """The store says something new."""
        self.revision += 1
        made.apply(snapshot(*servers, revision=self.revision))

    def slow(self, made: Upstream) -> float:
        """How far the server a is."""
        return only(made, "a").slow

    def test_all_are_new_at_first(self) -> None:
        """The servers of the file and of the first snapshot have their weight at once."""
        made = self.make(order("a"))
        self.assertEqual((self.slow(made), only(made, "f").slow), (1, 1))

    def test_without_a_store(self) -> None:
        """A server of the file that comes back starts slowly before any snapshot, too."""
        made = Upstream(
            "api", "least_conn", (FileServer(order=order("a")),), self.clock.seconds,
            Random(1).random, UpstreamOptions(slow_start=64.0),
        )  # fmt: skip
        made.set_checked("a:80", True, "refused")
        made.set_checked("a:80", False, "")
        self.assertEqual(self.slow(made), 1 / STEPS)
        self.say(made, order("b"))
        self.assertEqual((self.slow(made), only(made, "b").slow), (1 / STEPS, 1))

    def test_added(self) -> None:
        """A server added later begins with a 64th, and grows evenly."""
        made = self.make()
        self.say(made, order("a", 8))
        seen = []
        for _ in range(66):
            made.tick()
            seen.append((self.slow(made), only(made, "a").pull))
            self.clock.advance(1)
        expected = [max(1, step) / STEPS for step in range(64)] + [1, 1]
        self.assertEqual(seen, [(slow, 8 * slow) for slow in expected])
        self.assertIsInstance(only(made, "a").pull, int)

    def test_off(self) -> None:
        """Without the option a new server has its weight at once."""
        made = self.make(seconds=0)
        self.say(made, order("a"))
        self.assertEqual(self.slow(made), 1)

    def test_own_time(self) -> None:
        """A server's own time goes before the upstream's."""
        for seconds in (0.0, 1000.0):
            made = self.make(seconds=seconds)
            own = ServerOrder(address="a:80", host="a", port=80, slow_start=8.0)
            self.say(made, own)
            self.clock.advance(4)
            made.tick()
            self.assertEqual(self.slow(made), 0.5)
            self.clock.advance(4)
            made.tick()
            self.assertEqual(self.slow(made), 1)

    def test_after_recovery(self) -> None:
        """So it is after each way to be out, and not after being merely full."""
        for out in (
            record(order("a"), expired=True),
            record(order("a"), intent=Intent.DISABLE),
            record(order("a"), intent=Intent.DRAIN),
        ):
            made = self.make(order("a"))
            self.say(made, out)
            self.assertEqual(self.slow(made), 1)
            self.say(made, order("a"))
            self.assertEqual(self.slow(made), 1 / STEPS)
        made = self.make(order("a"))
        made.set_checked("a:80", True, "refused")
        made.set_checked("a:80", False, "")
        self.assertEqual(self.slow(made), 1 / STEPS)
        made = self.make(order("a", max_conns=1))
        self.say(made, order("a", 9, max_conns=1))
        lease = taken(made, only(made, "f"))
        lease.release()
        self.assertEqual(self.slow(made), 1)

    def test_after_failures(self) -> None:
        """The probe meets a server of full weight, its success begins the slow start."""
        made = self.make(order("a"))
        server = only(made, "a")
        made.failed(server)
        self.clock.advance(10.1)
        made.tick()
        self.assertEqual(server.slow, 1)
        self.assertIs(taken(made, only(made, "f")).server, server)
        made.succeeded(server)
        self.assertEqual(server.slow, 1 / STEPS)

    def test_out_while_starting(self) -> None:
        """Who goes out in the midst of it begins anew, and is not followed meanwhile."""
        made = self.make()
        self.say(made, order("a"))
        self.clock.advance(32)
        made.tick()
        self.assertEqual(self.slow(made), 0.5)
        self.say(made, record(order("a"), expired=True))
        self.assertEqual(self.slow(made), 1)
        self.say(made, order("a"))
        made.tick()
        self.assertEqual(self.slow(made), 1 / STEPS)
        self.say(made)
        self.clock.advance(100)
        made.tick()
        self.say(made, order("a"))
        self.assertEqual(self.slow(made), 1 / STEPS)

    def test_changes_while_starting(self) -> None:
        """Another weight, time or tier is followed in the midst of it."""
        for policy in POLICIES:
            made = self.make(policy=policy)
            self.say(made, order("a", 2))
            self.clock.advance(32)
            made.tick()
            self.say(made, order("a", 40))
            self.assertEqual(only(made, "a").pull, 20)
            self.say(made, order("a", 40, backup=True))
            self.clock.advance(16)
            made.tick()
            self.assertEqual(only(made, "a").pull, 30)
            self.assertEqual(letters(made, 5), "fffff")
            self.clock.advance(16)
            made.tick()
            self.assertEqual(only(made, "a").pull, 40)

    def test_time_switched_off(self) -> None:
        """Who has no slow start any more has its weight with the next tick."""
        made = self.make(seconds=0)
        self.say(made, evolve(order("a"), slow_start=8.0))
        self.assertEqual(self.slow(made), 1 / STEPS)
        self.say(made, order("a"))
        made.tick()
        self.assertEqual(self.slow(made), 1)

    def test_share_rises_to_the_weight(self) -> None:
        """With each quarter of the time the new server's share of requests is larger."""
        for policy in POLICIES:
            made = self.make(policy=policy)
            self.say(made, order("a", 4), order("b", 4))
            self.clock.advance(64)
            made.tick()
            self.say(made, order("a", 4), order("b", 4), order("c", 4))
            shares = []
            for _ in range(5):
                made.tick()
                word = letters(made, 3000)
                shares.append(word.count("c") / 3000)
                self.clock.advance(16)
            self.assertEqual(shares, sorted(shares), policy)
            self.assertLess(shares[0], 0.03, policy)
            self.assertApproximates(shares[-1], 0.25, 0.03)
            for earlier, later in pairwise(shares):
                self.assertGreater(later, earlier + 0.02, policy)

    def test_held_connections_follow(self) -> None:
        """least_conn gives a starting server connections in proportion to its part."""
        made = self.make()
        self.say(made, order("a", 4))
        self.clock.advance(16)
        made.tick()
        word = letters(made, 100, hold=True)
        self.assertEqual((word.count("a"), word.count("f")), (20, 80))

    def test_sequences_afterwards(self) -> None:
        """When it is over round robin is even, with nothing left of the parts."""
        made = self.make(policy="round_robin")
        self.say(made, order("a", 2))
        for _ in range(70):
            made.tick()
            letters(made, 3)
            self.clock.advance(1)
        word = letters(made, 60)
        self.assertEqual((word.count("a"), word.count("f")), (20, 40))
        self.assertEqual(word[:6], word[6:12])

    def test_failures_while_starting(self) -> None:
        """What failures took comes back up to the part that is reached, not above it."""
        made = self.make(policy="round_robin")
        self.say(made, order("a", 2, max_fails=2))
        self.clock.advance(16)
        made.tick()
        server = only(made, "a")
        made.failed(server)
        self.assertEqual((server.pull, server.effective), (0.5, 0))
        letters(made, 3)
        self.assertEqual(server.effective, 0.5)

    def test_lanes_are_cleared(self) -> None:
        """least_conn is back to one group of servers, and to its shortest way, afterwards."""
        made = self.make()
        self.say(made, order("a", 4))
        policy = made._primaries
        assert isinstance(policy, LeastConn)
        self.assertEqual(len(policy._lanes), 2)
        self.assertIsNone(policy._only)
        self.clock.advance(64)
        made.tick()
        self.assertEqual(list(policy._lanes.values()), [policy._only])
