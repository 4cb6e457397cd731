"""Passive judgement: max_fails and fail_timeout, as nginx has them."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.server import State
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent
from tests.balancer.building import letters, only, order, record, snapshot, taken, upstream


class FailureTests(TestCase):
    """A server a that fails, and a server b that does not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)

    def pair(self, policy: str = "least_conn", max_fails: int = 1) -> Upstream:
        a = order("a", max_fails=max_fails, fail_timeout=10.0)
        return upstream(a, order("b"), policy=policy, clock=self.clock)

    def test_one_failure_takes_out(self) -> None:
        """With max_fails 1 the first failure takes a server out, and says so once."""
        for policy in ("least_conn", "round_robin"):
            made = self.pair(policy)
            self.assertTrue(made.failed(only(made, "a")))
            self.assertFalse(made.failed(only(made, "a")))
            self.assertEqual(letters(made, 10), 10 * "b")
            self.assertIs(only(made, "a").state, State.FAILED)

    def test_every_third_failure(self) -> None:
        """With max_fails 3 it takes three failures, successes between them or not."""
        made = self.pair(max_fails=3)
        server = only(made, "a")
        for out in (False, False, True):
            self.assertEqual(made.failed(server), out)
            made.succeeded(server)
        self.assertIs(server.state, State.FAILED)

    def test_out_of_thirty_requests_six(self) -> None:
        """
        Where each third request to a server fails, and the ninth takes it out
        with max_fails 3, it gets 9 requests, and its fellow all the others.
        """
        made = self.pair("round_robin", max_fails=3)
        word = ""
        for _ in range(30):
            lease = taken(made)
            letter = lease.server.key[0]
            word += letter
            lease.release()
            if letter == "a" and word.count("a") % 3 == 0:
                made.failed(lease.server)
            elif lease.server.fails:
                made.succeeded(lease.server)
        self.assertEqual((word.count("a"), word.count("b")), (9, 21))

    def test_max_fails_0_is_never_out(self) -> None:
        """max_fails 0 counts failures and does nothing."""
        made = self.pair(max_fails=0)
        for _ in range(10):
            self.assertFalse(made.failed(only(made, "a")))
        self.assertEqual(only(made, "a").failures, 10)
        self.assertEqual(set(letters(made, 50)), {"a", "b"})

    def test_one_probe_in_a_window(self) -> None:
        """After fail_timeout one request goes to the server; the others wait for it."""
        for policy in ("least_conn", "round_robin"):
            made = self.pair(policy)
            made.failed(only(made, "a"))
            self.clock.advance(10.0)
            self.assertEqual(letters(made, 10), 10 * "b")
            self.clock.advance(0.1)
            # Held, so that least_conn comes to a as well.
            word = letters(made, 10, hold=True)
            self.assertEqual(word.count("a"), 1)
            self.clock.advance(10.1)
            self.assertEqual(letters(made, 10, hold=True).count("a"), 1)

    def test_successful_probe_recovers(self) -> None:
        """A probe that succeeds brings the server back at once."""
        made = self.pair()
        server = only(made, "a")
        made.failed(server)
        self.clock.advance(10.1)
        self.assertEqual(taken(made, only(made, "b")).server, server)
        self.assertIs(server.state, State.FAILED)
        self.assertTrue(made.succeeded(server))
        self.assertEqual((server.fails, server.state), (0, State.UP))
        self.assertIn("a", letters(made, 4, hold=True))

    def test_failed_probe_begins_again(self) -> None:
        """A probe that fails costs another fail_timeout."""
        made = self.pair()
        server = only(made, "a")
        made.failed(server)
        self.clock.advance(10.1)
        taken(made, only(made, "b")).release()
        self.clock.advance(5)
        self.assertFalse(made.failed(server))
        self.clock.advance(9.9)
        self.assertEqual(letters(made, 5), "bbbbb")
        self.clock.advance(0.2)
        self.assertIn("a", letters(made, 20))

    def test_old_success_proves_nothing(self) -> None:
        """A request that began before the failure does not bring the server back."""
        made = self.pair()
        server = only(made, "a")
        made.failed(server)
        self.assertFalse(made.succeeded(server))
        self.assertIs(server.state, State.FAILED)

    def test_old_failures_are_forgotten_by_a_late_success(self) -> None:
        """A choice more than fail_timeout after a failure is a probe too."""
        made = self.pair(max_fails=2)
        server = only(made, "a")
        made.failed(server)
        self.clock.advance(10.1)
        taken(made, only(made, "b")).release()
        self.assertFalse(made.succeeded(server))
        self.assertEqual(server.fails, 0)

    def test_only_server_is_never_out(self) -> None:
        """The single server of an upstream stays in, whatever it does."""
        made = upstream(order("a"), clock=self.clock)
        for _ in range(5):
            self.assertFalse(made.failed(only(made, "a")))
        self.assertEqual(letters(made, 3), "aaa")

    def test_backup_makes_two(self) -> None:
        """A server with a backup beside it is not the only one."""
        made = upstream(order("a"), order("b", backup=True), clock=self.clock)
        self.assertTrue(made.failed(only(made, "a")))
        self.assertEqual(letters(made, 3), "bbb")

    def test_all_out_is_none(self) -> None:
        """When all have failed there is none, until the first may be probed."""
        made = self.pair()
        made.failed(only(made, "a"))
        self.clock.advance(4)
        made.failed(only(made, "b"))
        self.assertIs(made.choose(), None)
        self.assertEqual(made.why_none(), "no live upstreams: of 2 servers 2 failed")
        self.assertEqual(made.usable, 0)
        self.clock.advance(6.1)
        self.assertEqual(made.usable, 1)
        self.assertEqual(taken(made).server.key, "a:80")
        self.assertIs(made.choose(), None)
        self.clock.advance(4)
        self.assertEqual(taken(made).server.key, "b:80")

    def test_snapshot_does_not_forgive(self) -> None:
        """A change of another server or of the weight leaves the judgement alone."""
        made = self.pair()
        made.failed(only(made, "a"))
        made.apply(snapshot(order("a", 5), order("b", 2), order("c"), revision=2))
        self.assertNotIn("a", letters(made, 30))

    def test_removal_forgives(self) -> None:
        """A server that was removed and added again begins anew."""
        made = self.pair()
        made.failed(only(made, "a"))
        made.apply(snapshot(order("b"), revision=2))
        made.apply(snapshot(order("a"), order("b"), revision=3))
        self.assertEqual(only(made, "a").fails, 0)
        self.assertIn("a", letters(made, 30))

    def test_failure_of_a_removed_server(self) -> None:
        """A failure told after the removal harms nobody."""
        made = upstream(order("a"), order("b"), order("c"), clock=self.clock)
        server = only(made, "a")
        lease = taken(made, only(made, "b"), only(made, "c"))
        made.apply(snapshot(order("b"), order("c"), revision=2))
        self.assertFalse(made.failed(server))
        self.assertFalse(made.succeeded(server))
        self.assertEqual((server.failures, server.fails), (1, 0))
        lease.release()
        self.assertEqual(set(letters(made, 20)), {"b", "c"})

    def test_becoming_the_only_server(self) -> None:
        """A failed server that is left alone is in at once, and stays in."""
        made = self.pair()
        made.failed(only(made, "a"))
        made.apply(snapshot(order("a"), revision=2))
        self.assertEqual(letters(made, 2), "aa")
        self.clock.advance(11)
        self.assertEqual(letters(made, 3), "aaa")

    def test_more_patience(self) -> None:
        """A failed server whose max_fails is raised, or switched off, is in at once."""
        for max_fails in (0, 2):
            made = self.pair()
            made.failed(only(made, "a"))
            made.apply(snapshot(order("a", max_fails=max_fails), order("b"), revision=2))
            self.assertIn("a", letters(made, 30))

    def test_disabled_while_failed(self) -> None:
        """A failed server that is disabled does not come back with its fail_timeout."""
        made = self.pair()
        made.failed(only(made, "a"))
        made.apply(
            snapshot(record(order("a"), intent=Intent.DISABLE), order("b"), revision=2)
        )
        self.clock.advance(11)
        self.assertEqual(letters(made, 20), 20 * "b")

    def test_shorter_fail_timeout(self) -> None:
        """A fail_timeout that is shortened holds for those that are out."""
        made = self.pair()
        made.failed(only(made, "a"))
        made.apply(snapshot(order("a", fail_timeout=2.0), order("b"), revision=2))
        self.clock.advance(2.1)
        self.assertIs(taken(made, only(made, "b")).server, only(made, "a"))

    def test_each_in_its_time(self) -> None:
        """When all fail_timeouts have changed each is probed after its own."""
        made = upstream(*map(order, "abcd"), policy="round_robin", clock=self.clock)
        for letter in "abc":
            made.failed(only(made, letter))
        times = {"a": 30.0, "b": 5.0, "c": 20.0}
        orders = [order(letter, fail_timeout=time) for letter, time in times.items()]
        made.apply(snapshot(*orders, order("d"), revision=2))
        for seconds, letter in ((5.1, "b"), (15.0, "c"), (10.0, "a")):
            self.clock.advance(seconds)
            word = letters(made, 4)
            self.assertIn(letter, word)
            self.assertLessEqual(set(word), {*"bd", letter})

    def test_failures_while_out(self) -> None:
        """Attempts that were under way and fail later put the probe off."""
        made = self.pair()
        made.failed(only(made, "a"))
        self.clock.advance(8)
        made.failed(only(made, "a"))
        self.clock.advance(4)
        self.assertEqual(letters(made, 5), "bbbbb")
        self.clock.advance(6.1)
        self.assertIs(taken(made, only(made, "b")).server, only(made, "a"))

    def test_tried_server_is_not_probed(self) -> None:
        """A server whose turn comes between two looks at the clock is still tried."""
        ticks = iter(range(1000))
        made = Upstream(
            "api",
            "least_conn",
            (FileServer(order=order("a", fail_timeout=1.0)), FileServer(order=order("b"))),
            lambda: float(next(ticks)),
            lambda: 0.5,
        )
        made.failed(only(made, "a"))
        for _ in range(20):
            self.assertEqual(taken(made, only(made, "a")).server.key, "b:80")
