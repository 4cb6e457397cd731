"""panic = last_good: whom to use when nobody is good."""

from __future__ import annotations

from random import Random

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.lastgood import TOGETHER
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.server import State
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord
from tests.balancer.building import letters, only, order, record, snapshot, taken


class LastGoodTests(TestCase):
    """An upstream whose servers fall ill."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.revision = 0

    def make(
        self, *servers: ServerOrder | ServerRecord, panic: bool = True, policy: str = "least_conn"
    ) -> Upstream:
        """With panic or without."""
        made = Upstream(
            "api", policy, (), self.clock.seconds, Random(1).random,
            UpstreamOptions(last_good=panic, queue=10),
        )  # fmt: skip
        self.say(made, *servers)
        return made

    def say(self, made: Upstream, *servers: ServerOrder | ServerRecord) -> None:
        """The store says something new."""
        self.revision += 1
        made.apply(snapshot(*servers, revision=self.revision))

    def test_off(self) -> None:
        """Without the option there is nobody."""
        made = self.make(record(order("a"), expired=True), panic=False)
        self.assertIsNone(made.choose())
        self.assertNotIn("panic", made.why_none())
        self.assertFalse(made.panicking)

    def test_all_expired_together(self) -> None:
        """When all heartbeats stop at once all servers are used, by every policy."""
        for policy in ("least_conn", "round_robin", "random_two", "hash", "ip_hash", "ewma"):
            made = self.make(*map(order, "abc"), policy=policy)
            self.say(made, *(record(order(letter), expired=True) for letter in "abc"))
            self.assertEqual(set(letters(made, 100)), set("abc"))
            word = letters(made, 300, hold=True)
            for letter in "abc":
                self.assertApproximates(word.count(letter), 100, 10)
            self.assertIs(only(made, "a").state, State.EXPIRED)
            self.assertIsNotNone(made.choose((), b"key"))

    def test_not_while_one_is_good(self) -> None:
        """One good server is enough, even when it is full or tried."""
        made = self.make(record(order("a"), expired=True), order("b", max_conns=1))
        self.assertEqual(letters(made, 3), "bbb")
        self.assertIsNone(made.choose((only(made, "b"),)))
        taken(made)
        self.assertIsNone(made.choose())
        self.assertEqual(
            made.why_none(),
            "no live upstreams: of 2 servers 1 expired, 1 full; panic: 0 were good last",
        )

    def test_never_against_an_order(self) -> None:
        """Disabled, draining, down and removed servers are not used."""
        made = Upstream(
            "api",
            "least_conn",
            (FileServer(order=order("f"), down=True),),
            self.clock.seconds,
            Random(1).random,
            UpstreamOptions(last_good=True),
        )
        self.say(made, order("r"))
        self.say(
            made,
            record(order("a"), intent=Intent.DISABLE, expired=True),
            record(order("b"), intent=Intent.DRAIN, expired=True),
        )
        made.set_checked("f:80", True, "")
        self.assertIsNone(made.choose())

    def test_never_against_traffic(self) -> None:
        """A server that real requests have found dead is out in panic too, but for probes."""
        made = self.make(order("a"), order("b"))
        made.failed(only(made, "a"))
        self.assertEqual(letters(made, 3), "bbb")
        self.say(made, record(order("a"), expired=True), record(order("b"), expired=True))
        self.assertEqual(letters(made, 10), 10 * "b")
        made.failed(only(made, "b"))
        self.assertIsNone(made.choose())
        self.clock.advance(10.1)
        leases = [taken(made), taken(made)]
        self.assertEqual({lease.server.key for lease in leases}, {"a:80", "b:80"})
        self.assertIsNone(made.choose())

    def test_long_dead_is_excluded(self) -> None:
        """Who was lost long before the last one is not used, who was shortly before is."""
        made = self.make(*map(order, "abc"))
        gone = [record(order(letter), expired=True) for letter in "abc"]
        self.say(made, gone[0], order("b"), order("c"))
        self.clock.advance(TOGETHER)
        self.say(made, gone[0], gone[1], order("c"))
        self.clock.advance(1)
        made.set_checked("c:80", True, "refused")
        self.assertEqual(set(letters(made, 50)), set("bc"))
        self.assertIn("panic", made.why_none())

    def test_longest_of_two_causes(self) -> None:
        """A server is lost since the first of its causes."""
        made = self.make(order("a"), order("b"))
        made.set_checked("a:80", True, "refused")
        self.clock.advance(TOGETHER + 1)
        self.say(made, record(order("a"), expired=True), record(order("b"), expired=True))
        self.assertEqual(letters(made, 10), 10 * "b")

    def test_known_from_the_store(self) -> None:
        """At a fresh start the store tells since when a server is out."""
        old = evolve(record(order("a"), expired=True), disabled_at=500.0)
        new = evolve(record(order("b"), expired=True), disabled_at=990.0)
        made = Upstream(
            "api", "least_conn", (), self.clock.seconds, Random(1).random,
            UpstreamOptions(last_good=True),
        )  # fmt: skip
        made.apply(evolve(snapshot(old, new), now=1000.0))
        self.assertEqual(only(made, "a").lost_at, self.clock.seconds() - 500)
        self.assertEqual(letters(made, 10), 10 * "b")

    def test_limits_and_tried(self) -> None:
        """max_conns holds, nobody is tried twice, each lease counts and is given back."""
        made = self.make(order("a", max_conns=2), order("b", max_conns=2))
        self.say(
            made,
            record(order("a", max_conns=2), expired=True),
            record(order("b", max_conns=2), expired=True),
        )
        first = taken(made)
        second = taken(made, first.server)
        self.assertIsNot(first.server, second.server)
        self.assertIsNone(made.choose((first.server, second.server)))
        leases = [first, second, taken(made), taken(made)]
        self.assertIsNone(made.choose())
        self.assertEqual(made.report(), {"a:80": 2, "b:80": 2})
        for lease in leases:
            lease.release()
        self.assertEqual(made.report(), {})
        self.say(made, order("a", max_conns=2), order("b", max_conns=2))
        self.assertEqual(len(letters(made, 4, hold=True)), 4)

    def test_backups_last(self) -> None:
        """Primaries are used before backups."""
        made = self.make(
            record(order("a", max_conns=1), expired=True),
            record(order("b", backup=True), expired=True),
        )
        self.assertEqual(letters(made, 3, hold=True), "abb")

    def test_over_when_one_returns(self) -> None:
        """The first good server ends it."""
        made = self.make(*(record(order(letter), expired=True) for letter in "abc"))
        self.assertEqual(set(letters(made, 50)), set("abc"))
        self.assertTrue(made.panicking)
        self.say(made, order("a"), *(record(order(letter), expired=True) for letter in "bc"))
        self.assertEqual(letters(made, 10), 10 * "a")
        self.assertFalse(made.panicking)

    def test_waiters_are_served(self) -> None:
        """Those who wait when everybody falls ill are served by the last good."""
        made = self.make(order("a", max_conns=1), record(order("b"), expired=True))
        taken(made)
        got = []

        class Waiting:
            """Keeps what it gets."""

            def granted(self, lease: object) -> None:
                """Here it is."""
                got.append(lease)

        self.assertTrue(made.wait(Waiting()))
        made.set_checked("a:80", True, "refused")
        self.assertEqual(len(got), 1)
