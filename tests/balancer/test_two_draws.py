"""random_two and ewma: the better of two that are drawn."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.twodraws import MEMORY
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.contract import Intent
from tests.balancer.building import letters, only, order, record, snapshot, taken, upstream


class RandomTwoTests(TestCase):
    """The one with fewer connections for its weight."""

    def test_shares_follow_weights(self) -> None:
        """One request after the other is spread in proportion to the weights."""
        weights = {"a": 1, "b": 2, "c": 3, "d": 2, "e": 2}
        made = upstream(
            *(order(letter, weight) for letter, weight in weights.items()), policy="random_two"
        )
        word = letters(made, 20_000)
        for letter, weight in weights.items():
            self.assertApproximates(word.count(letter) / 20_000, weight / 10, 0.05)

    def test_less_loaded_of_two(self) -> None:
        """Of two servers it is always the one with the smaller load."""
        made = upstream(order("a"), order("b", 3), policy="random_two")
        word = letters(made, 40, hold=True)
        self.assertEqual((word.count("a"), word.count("b")), (10, 30))

    def test_other_nodes_count(self) -> None:
        """What other nodes hold weighs like what this one holds."""
        made = upstream(order("a"), order("b"), policy="random_two")
        made.apply_totals({"a:80": 5})
        self.assertEqual(letters(made, 5, hold=True), "bbbbb")

    def test_stuck_server_is_avoided(self) -> None:
        """The fullest of several servers gets nothing that another draw could have."""
        made = upstream(*map(order, "abcd"), policy="random_two")
        made.apply_totals({"a:80": 50})
        self.assertNotIn("a", letters(made, 500))

    def test_unusable_are_passed_over(self) -> None:
        """Full and disabled servers are not chosen, and a single usable one is found."""
        servers = [order(letter, max_conns=1) for letter in "abcdefgh"]
        made = upstream(*servers, policy="random_two")
        self.assertEqual("".join(sorted(letters(made, 8, hold=True))), "abcdefgh")
        self.assertIsNone(made.choose())
        out = [record(order(letter), intent=Intent.DISABLE) for letter in "abcdefg"]
        made = upstream(*out, order("h"), policy="random_two")
        self.assertEqual(letters(made, 50), 50 * "h")

    def test_hostile_random_source(self) -> None:
        """A source that always says the most or the least ends the draw all the same."""
        for value in (0.0, 1 - 2**-53):
            made = Upstream("api", "random_two", (), lambda: 0.0, lambda value=value: value)
            made.apply(snapshot(*map(order, "abc")))
            self.assertEqual(len(letters(made, 5)), 5)


class EwmaTests(TestCase):
    """The one with less waiting to be expected."""

    def setUp(self) -> None:
        self.clock = Clock()

    def run_traffic(
        self,
        made: Upstream,
        times: dict[str, float],
        failing: str = "",
        count: int = 1000,
        held: int = 1,
    ) -> str:
        """
        Requests of which some are always under way.

        @param times: what each server's answers take; time passes at the rate
            at which a good server answers.
        @return: the servers they went to.
        """
        open_leases: list[Lease] = []
        word = ""
        for _ in range(count):
            lease = taken(made)
            letter = lease.server.key[0]
            word += letter
            if letter in failing:
                made.answered(lease.server, times[letter], True)
                lease.release()
                continue
            open_leases.append(lease)
            if len(open_leases) >= held:
                self.clock.advance(0.01)
                done = open_leases.pop(0)
                made.answered(done.server, times[done.server.key[0]], False)
                done.release()
        for lease in open_leases:
            lease.release()
        return word

    def make(self, servers: str) -> Upstream:
        """An upstream of equal servers."""
        return upstream(*map(order, servers), policy="ewma", clock=self.clock)

    def test_wants_times(self) -> None:
        """It wants to be told times; the others do not, and do not mind."""
        self.assertTrue(self.make("ab").wants_times)
        for policy in ("least_conn", "round_robin", "random_two", "hash", "ip_hash"):
            made = upstream(order("a"), policy=policy)
            self.assertFalse(made.wants_times)
            made.answered(only(made, "a"), 1.0, False)

    def test_equal_servers(self) -> None:
        """Equal times give equal parts."""
        word = self.run_traffic(self.make("abcd"), dict.fromkeys("abcd", 0.01), held=8)
        for letter in "abcd":
            self.assertApproximates(word.count(letter) / 1000, 0.25, 0.08)

    def test_weights(self) -> None:
        """With equal times a server of twice the weight carries twice as much."""
        made = upstream(order("a"), order("b", 2), policy="ewma", clock=self.clock)
        made.answered(only(made, "a"), 0.01, False)
        made.answered(only(made, "b"), 0.01, False)
        word = letters(made, 90, hold=True)
        self.assertApproximates(word.count("b"), 60, 1)

    def test_slow_server_gets_less(self) -> None:
        """A server ten times as slow gets much less, though not nothing under load."""
        times = {"a": 0.01, "b": 0.01, "c": 0.1}
        word = self.run_traffic(self.make("abc"), times, held=30)
        self.assertLess(word.count("c"), 150)
        self.assertGreater(word.count("c"), 10)

    def test_peak_counts_at_once(self) -> None:
        """One very slow answer turns the traffic away, and fades in a while."""
        made = self.make("ab")
        self.run_traffic(made, {"a": 0.01, "b": 0.01})
        made.answered(only(made, "a"), 1.0, False)
        self.assertEqual(letters(made, 50), 50 * "b")
        self.clock.advance(4 * MEMORY)
        self.assertIn("a", letters(made, 20))

    def test_fast_failures_attract_nothing(self) -> None:
        """A server that fails a hundred times as fast gets a small part, under any load."""
        for held in (1, 10, 50):
            made = upstream(
                *(order(letter, max_fails=0) for letter in "ab"), policy="ewma", clock=self.clock
            )
            word = self.run_traffic(made, {"a": 0.01, "b": 0.0001}, "b", 2000, held)
            self.assertLess(word.count("b"), 60, held)

    def test_failed_server_returns(self) -> None:
        """When it answers again it has its part again before long."""
        made = upstream(
            *(order(letter, max_fails=0) for letter in "ab"), policy="ewma", clock=self.clock
        )
        times = {"a": 0.01, "b": 0.01}
        self.run_traffic(made, {"a": 0.01, "b": 0.0001}, "b", 500, 10)
        self.run_traffic(made, times, count=6000, held=10)
        word = self.run_traffic(made, times, count=1000, held=10)
        self.assertGreater(word.count("b"), 300)

    def test_all_fail(self) -> None:
        """Where all fail all get their part."""
        made = self.make("abc")
        for server in made.servers:
            server.max_fails = 0
        word = self.run_traffic(made, dict.fromkeys("abc", 0.001), "abc", 900)
        for letter in "abc":
            self.assertGreater(word.count(letter), 150)

    def test_new_server_is_neither_flooded_nor_avoided(self) -> None:
        """A server of which nothing is known is taken to be as the mean."""
        made = self.make("abc")
        times = dict.fromkeys("abcd", 0.01)
        self.run_traffic(made, times, held=20)
        made.apply(snapshot(*map(order, "abcd"), revision=2))
        word = self.run_traffic(made, times, count=100, held=20)
        self.assertGreater(word.count("d"), 12)
        self.assertLess(word.count("d"), 45)

    def test_full_and_retried(self) -> None:
        """max_conns and tried servers hold as everywhere."""
        made = upstream(order("a", max_conns=1), order("b", max_conns=1), policy="ewma")
        first = taken(made)
        second = taken(made, first.server)
        self.assertIsNot(first.server, second.server)
        self.assertIsNone(made.choose())
