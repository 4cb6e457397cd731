"""The sequences of smooth weighted round robin are nginx's, to the letter."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.store.contract import Intent
from tests.balancer.building import letters, only, order, record, snapshot, taken, upstream


def sequence(*weights: int, choices: int) -> str:
    """The word that servers a, b, ... of these weights are chosen in."""
    servers = [order(chr(ord("a") + n), weight) for n, weight in enumerate(weights)]
    return letters(upstream(*servers, policy="round_robin"), choices)


class SequenceTests(TestCase):
    """Healthy servers, one request after the other."""

    def test_known_sequences(self) -> None:
        """Each set of weights gives nginx's sequence, and repeats it."""
        for weights, word in (
            ((1, 1), "ab"),
            ((1, 2), "bab"),
            ((2, 1), "aba"),
            ((3, 1), "aaba"),
            ((1, 1, 1), "abc"),
            ((5, 1, 1), "aabacaa"),
            ((1, 2, 3), "cbacbc"),
            ((4, 2, 1), "abacaba"),
        ):
            self.assertEqual(sequence(*weights, choices=2 * len(word)), 2 * word, weights)

    def test_shares_are_exact(self) -> None:
        """30 requests over weights 1 and 2 are 10 and 20."""
        word = sequence(1, 2, choices=30)
        self.assertEqual((word.count("a"), word.count("b")), (10, 20))

    def test_held_connections_do_not_matter(self) -> None:
        """Only weights count: the sequence is the same while connections stay."""
        made = upstream(order("a", 5), order("b"), order("c"), policy="round_robin")
        self.assertEqual(letters(made, 7, hold=True), "aabacaa")

    def test_retry_shifts_the_sequence(self) -> None:
        """A second choice for the same request is one more turn of the wheel."""
        made = upstream(order("a"), order("b"), order("c"), policy="round_robin")
        first = taken(made)
        second = taken(made, first.server)
        self.assertEqual(first.server.key + second.server.key, "a:80b:80")
        # a stands at -2, b at 0, c at 2: worked out by nginx's rule.
        self.assertEqual(letters(made, 3), "cbc")

    def test_tried_server_does_not_gain(self) -> None:
        """A tried server is passed over as if it were not there."""
        made = upstream(order("a", 2), order("b", 1), policy="round_robin")
        for _ in range(6):
            self.assertEqual(taken(made, only(made, "a")).server.key, "b:80")
        self.assertEqual(only(made, "a").current, 0)

    def test_unusable_is_passed_over(self) -> None:
        """Disabled, expired and full servers are not chosen."""
        made = upstream(
            order("a"), order("b"), order("c"), order("d", max_conns=1), policy="round_robin"
        )
        made.apply(
            snapshot(
                record(order("a"), intent=Intent.DISABLE),
                record(order("b"), expired=True),
                order("c"),
                order("d", max_conns=1),
            )
        )
        self.assertEqual(letters(made, 5, hold=True), "cdccc")


class EffectiveWeightTests(TestCase):
    """Failures lower a server's weight for a while."""

    def test_failure_lowers_and_choices_restore(self) -> None:
        """A failure costs weight / max_fails; each turn gives one back."""
        made = upstream(order("a", 6, max_fails=3), order("b", 6), policy="round_robin")
        server = only(made, "a")
        made.failed(server)
        self.assertEqual(server.effective, 4)
        letters(made, 1)
        self.assertEqual(server.effective, 5)
        letters(made, 5)
        self.assertEqual(server.effective, 6)

    def test_never_below_nothing(self) -> None:
        """Many failures end at weight 0, not below."""
        made = upstream(order("a", 5, max_fails=2), order("b"), policy="round_robin")
        for _ in range(5):
            made.failed(only(made, "a"))
        self.assertEqual(only(made, "a").effective, 0)

    def test_returned_server_begins_gently(self) -> None:
        """Back from its fail_timeout, a heavy server takes its share by and by."""
        clock = Clock()
        made = upstream(order("a", 4), order("b", 4), policy="round_robin", clock=clock)
        made.failed(only(made, "a"))
        self.assertEqual(letters(made, 3), "bbb")
        clock.advance(10.5)
        lease = taken(made)
        while lease.server.key != "a:80":
            lease = taken(made)
        made.succeeded(lease.server)
        self.assertEqual(lease.server.fails, 0)
        self.assertLess(lease.server.effective, 4)
        word = letters(made, 40)
        self.assertApproximates(word.count("a"), 20, 2)

    def test_weight_change_keeps_what_failures_took(self) -> None:
        """A server that is made heavier while it is in disgrace stays in it."""
        made = upstream(order("a", 4, max_fails=2), order("b"), policy="round_robin")
        made.failed(only(made, "a"))
        made.apply(snapshot(order("a", 10, max_fails=2), order("b"), revision=2))
        self.assertEqual(only(made, "a").effective, 8)
        made.apply(snapshot(order("a", 1, max_fails=2), order("b"), revision=3))
        self.assertEqual(only(made, "a").effective, 0)
