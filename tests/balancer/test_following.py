"""An upstream that goes on under another order, as after a reload."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions, UpstreamOrder
from dynbalance.balancer.policies import POLICIES
from dynbalance.balancer.roll import FileServer
from dynbalance.balancer.server import Server, State
from dynbalance.balancer.upstream import Upstream
from tests.balancer.building import order, snapshot


def made_of(letters: str, policy: str = "least_conn", **options: float) -> UpstreamOrder:
    """An order for these servers of the file; a capital letter is a heavy one."""
    servers = tuple(
        FileServer(order=order(letter.lower(), weight=5 if letter.isupper() else 1))
        for letter in letters
    )
    return UpstreamOrder(
        name="u", policy=policy, servers=servers, options=UpstreamOptions(**options)  # type: ignore[arg-type]
    )


class FollowingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def upstream(self, first: UpstreamOrder) -> Upstream:
        return Upstream(
            first.name,
            first.policy,
            first.servers,
            self.clock.seconds,
            lambda: 0.0,
            first.options,
        )

    def server(self, upstream: Upstream, letter: str) -> Server:
        found = upstream.server(f"{letter}:80")
        assert found is not None
        return found

    def chosen(self, upstream: Upstream) -> Lease:
        lease = upstream.choose()
        assert lease is not None
        return lease


class FollowingTests(FollowingCase):
    """What stays, and what changes."""

    def test_servers_that_stay(self) -> None:
        """They are the same, with connections, failures and findings; the order is new."""
        upstream = self.upstream(made_of("ab"))
        a, b = self.server(upstream, "a"), self.server(upstream, "b")
        lease = upstream.choose_this(a)
        assert lease is not None
        upstream.failed(b)
        upstream.set_checked(a.key, True, "it is silent")
        for policy in POLICIES:
            upstream.follow(made_of("Abc", policy), None)
            self.assertIs(a, self.server(upstream, "a"))
            self.assertEqual((1, 5, State.UNHEALTHY), (a.held, a.weight, a.state))
            self.assertEqual((1, State.FAILED), (b.fails, b.state))
            self.assertEqual("c:80", self.chosen(upstream).server.key)
        lease.release()
        self.assertEqual(0, a.held)

    def test_servers_that_go(self) -> None:
        """They get nothing new, carry what they carry, and are told of until that ends."""
        upstream = self.upstream(made_of("a"))
        lease = self.chosen(upstream)
        upstream.follow(made_of("b"), None)
        self.assertEqual("b:80", self.chosen(upstream).server.key)
        self.assertEqual({"a:80": 1, "b:80": 1}, upstream.report(full=True))
        lease.release()
        self.assertEqual({"b:80": 1}, upstream.report(full=True))

    def test_between_file_and_store(self) -> None:
        """A server that leaves the file stays if the store has it, and by its word."""
        upstream = self.upstream(made_of("A"))
        known = snapshot(order("a", weight=2), order("b"))
        upstream.apply(known)
        a = self.server(upstream, "a")
        self.assertEqual(5, a.weight)
        upstream.follow(made_of(""), known)
        self.assertIs(a, self.server(upstream, "a"))
        self.assertEqual((2, False), (a.weight, a.from_file))
        upstream.follow(made_of("AB"), known)
        self.assertEqual((5, True), (a.weight, a.from_file))
        self.assertEqual(5, self.server(upstream, "b").weight)

    def test_options(self) -> None:
        """Queue, budget, last resort and slow starts are the new order's."""
        upstream = self.upstream(made_of("a", slow_start=60.0))
        a = self.server(upstream, "a")
        upstream.follow(made_of("ab", slow_start=60.0, queue=3, retry_budget=0.5), None)
        b = self.server(upstream, "b")
        self.assertEqual(1.0, a.slow)
        self.assertLess(b.slow, 1.0)
        self.assertEqual(0.5, upstream.budget.share)
        upstream.set_checked(a.key, True, "x")
        upstream.set_checked(b.key, True, "x")
        self.assertIsNone(upstream.choose())
        upstream.follow(made_of("ab", last_good=True), None)
        self.assertTrue(upstream.panicking)
        upstream.tick()
        self.assertEqual(1.0, b.slow)

    def test_slow_start_under_another_policy(self) -> None:
        """A policy that knows no parts of weights ends the slow starts."""
        upstream = self.upstream(made_of("a", slow_start=60.0))
        upstream.follow(made_of("ab", slow_start=60.0), None)
        upstream.follow(made_of("ab", "hash", slow_start=60.0), None)
        self.assertEqual(1.0, self.server(upstream, "b").slow)

    def test_waiting(self) -> None:
        """Who waits goes on waiting, and gets the server that comes."""
        first = UpstreamOrder(
            name="u",
            servers=(FileServer(order=order("a", max_conns=1)),),
            options=UpstreamOptions(queue=1),
        )
        upstream = self.upstream(first)
        self.chosen(upstream)
        granted: list[Lease] = []

        class Waiter:
            def granted(self, lease: Lease) -> None:
                granted.append(lease)

        self.assertTrue(upstream.wait(Waiter()))
        upstream.follow(made_of("bc"), None)
        self.assertEqual(1, len(granted))

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.just("take"),
                st.integers(0, 99),
                st.tuples(st.text("aAbBcd", max_size=4), st.sampled_from(sorted(POLICIES))),
            ),
            max_size=40,
        )
    )
    def test_any_order(self, steps: list[str | int | tuple[str, str]]) -> None:
        """However orders, choices and releases follow one another, each lease counts once."""
        upstream = self.upstream(made_of("ab"))
        leases: list[Lease] = []
        for step in steps:
            if isinstance(step, tuple):
                upstream.follow(made_of(*step), None)
            elif isinstance(step, int):
                if leases:
                    leases.pop(step % len(leases)).release()
            elif (lease := upstream.choose()) is not None:
                leases.append(lease)
            held: dict[str, int] = {}
            for lease in leases:
                held[lease.server.key] = held.get(lease.server.key, 0) + 1
            self.assertEqual(held, upstream.report(full=True))


class BalancerFollowingTests(SynchronousTestCase):
    """Upstreams that come and go."""

    def test_comes_back(self) -> None:
        """An upstream that the file names again is the same while it is not forgotten."""
        balancer = Balancer([made_of("a")], lambda: 0.0, lambda: 0.0)
        upstream = balancer.upstream("u")
        lease = upstream.choose()
        assert lease is not None
        balancer.follow([], {})
        self.assertEqual(([], [upstream]), (list(balancer), list(balancer.retired.values())))
        balancer.follow([made_of("ab")], {})
        self.assertIs(upstream, balancer.upstream("u"))
        self.assertEqual({}, balancer.retired)
        self.assertEqual({"a:80": 1}, upstream.report(full=True))

    def test_new(self) -> None:
        """A new upstream begins with what the store says of it."""
        balancer = Balancer([], lambda: 0.0, lambda: 0.0)
        balancer.follow([made_of("a")], {"u": snapshot(order("b"), revision=7)})
        upstream = balancer.upstream("u")
        self.assertEqual(["a:80", "b:80"], [server.key for server in upstream.servers])
        self.assertEqual(7, upstream.revision)
