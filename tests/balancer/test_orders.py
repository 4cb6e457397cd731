"""One particular server, draining, and what health checks say."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.server import State
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent
from tests.balancer.building import letters, only, order, record, snapshot, taken, upstream

POLICIES = ("least_conn", "round_robin", "random_two", "hash", "ip_hash", "ewma")


class ChooseThisTests(TestCase):
    """A sticky client or a hook names the server."""

    def test_counts_like_any_other(self) -> None:
        """The lease counts, limits and is given back, with every policy."""
        for policy in POLICIES:
            made = upstream(order("a", max_conns=2), order("b"), policy=policy)
            server = only(made, "a")
            leases = [made.choose_this(server), made.choose_this(server)]
            self.assertEqual((server.held, server.picks, server.state), (2, 2, State.FULL))
            self.assertIsNone(made.choose_this(server))
            self.assertEqual(letters(made, 4), "bbbb")
            for lease in leases:
                assert lease is not None
                self.assertIs(lease.server, server)
                lease.release()
            self.assertEqual((server.held, server.usable), (0, True))
            self.assertIn("a", letters(made, 40, hold=True))

    def test_moves_the_load(self) -> None:
        """least_conn sees what was counted so."""
        made = upstream(order("a"), order("b"))
        for _ in range(3):
            made.choose_this(only(made, "a"))
        self.assertEqual(letters(made, 3, hold=True), "bbb")

    def test_only_if_usable(self) -> None:
        """Not when it was tried, nor when it is out for any reason."""
        made = upstream(order("a"), order("b"))
        server = only(made, "a")
        self.assertIsNone(made.choose_this(server, (server,)))
        self.assertIsNotNone(made.choose_this(server, (only(made, "b"),)))
        made.failed(server)
        self.assertIsNone(made.choose_this(server))
        made.apply(snapshot(order("b"), revision=2))
        self.assertIsNone(made.choose_this(server))

    def test_backup(self) -> None:
        """A backup can be named while primaries are there."""
        made = upstream(order("a"), order("b", backup=True))
        self.assertIsNotNone(made.choose_this(only(made, "b")))

    def test_is_the_probe(self) -> None:
        """After fail_timeout it is the one request that is let through."""
        clock = Clock()
        made = upstream(order("a"), order("b"), clock=clock)
        server = only(made, "a")
        made.failed(server)
        clock.advance(10.1)
        self.assertIsNotNone(made.choose_this(server))
        self.assertIsNone(made.choose_this(server))
        made.succeeded(server)
        self.assertIsNotNone(made.choose_this(server))


class RouteTests(TestCase):
    """The name of a server in a cookie."""

    def test_stable_and_opaque(self) -> None:
        """The same on every node and after a restart, another in another upstream."""
        one, other = upstream(order("a"), order("b")), upstream(order("b"), order("a"))
        routes = [server.route for server in one.servers]
        self.assertEqual(routes, [only(other, letter).route for letter in "ab"])
        self.assertEqual(routes, ["2673afb33e214001", "d27fcc2fa51c0724"])
        api = Upstream(
            "web", "least_conn", (FileServer(order=order("a")),), lambda: 0.0, lambda: 0.0
        )
        self.assertNotEqual(only(api, "a").route, routes[0])

    def test_by_route(self) -> None:
        """A server is found while it is here: of the file, of the store, come back."""
        made = upstream(order("a"), file=(FileServer(order=order("f")),))
        for letter in "af":
            self.assertIs(made.by_route(only(made, letter).route), only(made, letter))
        for nobody in ("", "f", 16 * "0", "\udcff"):
            self.assertIsNone(made.by_route(nobody))
        server = only(made, "a")
        made.apply(snapshot(revision=2))
        self.assertIsNone(made.by_route(server.route))
        self.assertEqual(len(made._roll._routes), 1)
        made.apply(snapshot(order("a"), revision=3))
        self.assertIs(made.by_route(server.route), only(made, "a"))


class DrainTests(TestCase):
    """No new work; what runs finishes."""

    def test_draining(self) -> None:
        """A draining server keeps its connections and gets no other, by no way."""
        for policy in POLICIES:
            made = upstream(order("a"), order("b"), policy=policy)
            server = only(made, "a")
            lease = made.choose_this(server)
            assert lease is not None
            made.apply(
                snapshot(record(order("a"), intent=Intent.DRAIN), order("b"), revision=2)
            )
            self.assertEqual((server.state, server.held), (State.DRAINING, 1))
            self.assertEqual(server.why_not, "an operator drains it")
            self.assertEqual(letters(made, 20), 20 * "b")
            self.assertIsNone(made.choose_this(server))
            self.assertEqual(made.tries, 1)
            lease.release()
            self.assertEqual((server.held, server.usable), (0, False))
            made.apply(snapshot(order("a"), order("b"), revision=3))
            self.assertIs(server.state, State.UP)

    def test_word(self) -> None:
        """Draining goes before what was observed, behind what the file says."""
        made = upstream(record(order("a"), intent=Intent.DRAIN, expired=True))
        made.set_checked("a:80", True, "refused")
        self.assertIs(only(made, "a").state, State.DRAINING)
        self.assertEqual(made.why_none(), "no live upstreams: of 1 servers 1 draining")


class CheckedTests(TestCase):
    """What a health check has found, beside heartbeats and failures."""

    def test_out_and_in(self) -> None:
        """A server is out while its check fails; only a change is told."""
        for policy in POLICIES:
            made = upstream(order("a"), order("b"), policy=policy)
            server = only(made, "a")
            self.assertFalse(made.set_checked("a:80", False, "status 200"))
            self.assertTrue(made.set_checked("a:80", True, "status 503"))
            self.assertFalse(made.set_checked("a:80", True, "refused"))
            self.assertEqual((server.state, made.tries), (State.UNHEALTHY, 1))
            self.assertEqual(server.why_not, "its health check fails: refused")
            self.assertEqual(letters(made, 20), 20 * "b")
            self.assertTrue(made.set_checked("a:80", False, "status 200"))
            self.assertEqual((server.state, server.why_not, made.tries), (State.UP, None, 2))
            self.assertEqual(server.check_cause, "status 200")

    def test_without_cause(self) -> None:
        """Without a cause the reason stands alone."""
        made = upstream(order("a"))
        made.set_checked("a:80", True, "")
        self.assertEqual(only(made, "a").why_not, "its health check fails")

    def test_unknown(self) -> None:
        """Word of a server that is not here changes nothing."""
        self.assertFalse(upstream(order("a")).set_checked("x:80", True, "refused"))

    def test_kept_when_membership_changes(self) -> None:
        """Neither another server nor another weight makes it good; removal forgets it."""
        made = upstream(order("a"), order("b"), file=(FileServer(order=order("f")),))
        made.set_checked("a:80", True, "refused")
        made.set_checked("f:80", True, "refused")
        made.apply(snapshot(order("a", 5), order("c"), revision=2))
        self.assertEqual(letters(made, 20), 20 * "c")
        made.apply(snapshot(order("c"), revision=3))
        made.apply(snapshot(order("a"), revision=4))
        self.assertEqual(letters(made, 5), "aaaaa")
        self.assertIs(only(made, "f").state, State.UNHEALTHY)

    def test_independent_of_heartbeats_and_failures(self) -> None:
        """Each of them keeps the server out alone; all have to be over."""
        clock = Clock()
        made = upstream(order("a"), order("b"), clock=clock)
        server = only(made, "a")
        made.failed(server)
        made.set_checked("a:80", True, "refused")
        made.apply(snapshot(record(order("a"), expired=True), order("b"), revision=2))
        self.assertIs(server.state, State.EXPIRED)
        made.apply(snapshot(order("a"), order("b"), revision=3))
        self.assertIs(server.state, State.UNHEALTHY)
        made.set_checked("a:80", False, "")
        self.assertIs(server.state, State.FAILED)
        self.assertEqual(letters(made, 5), "bbbbb")
        clock.advance(10.1)
        self.assertIs(taken(made, only(made, "b")).server, server)

    def test_even_the_only_server(self) -> None:
        """Unlike failures, a check takes out the only server, too."""
        made = upstream(order("a"))
        made.set_checked("a:80", True, "refused")
        self.assertIsNone(made.choose())
        self.assertEqual(made.why_none(), "no live upstreams: of 1 servers 1 unhealthy")
