"""What a hook may say in one attempt, and what becomes of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from dynbalance.balancer.attempts import Cause
from dynbalance.balancer.hook import Context, HttpContext, StreamContext
from dynbalance.balancer.hookoutcome import (
    Declined,
    Exit,
    Failed,
    Fallback,
    Keepalive,
    PeerChosen,
    Timeouts,
)
from dynbalance.balancer.hookrequest import StreamRequest
from dynbalance.errors import BalancerError
from dynbalance.store.contract import Intent
from tests.balancer.building import order, record, snapshot, upstream
from tests.balancer.hooked import attempts, decided, hook, now, numbered, peer, request, run


class SetCurrentPeerTests(TestCase):
    """The peer of an attempt."""

    def test_chosen(self) -> None:
        """The peer is the outcome, in both subsystems."""
        for subsystem in ("http", "stream"):
            made = run(lambda b: b.set_current_peer("127.0.0.2", 8080), subsystem=subsystem)
            self.assertEqual(peer(made.attempt(1)), "127.0.0.2:8080")

    def test_last_call_wins(self) -> None:
        """Of several calls in one attempt the last one counts."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            balancer.set_current_peer("127.0.0.2", 2)

        self.assertEqual(peer(run(choose).attempt(1)), "127.0.0.2:2")

    def test_refused_call_changes_nothing(self) -> None:
        """A call that fails leaves the peer that was set before."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            error = self.assertRaises(BalancerError, balancer.set_current_peer, "a.example", 1)
            self.assertEqual(str(error), "no host allowed")

        self.assertEqual(peer(run(choose).attempt(1)), "127.0.0.2:1")

    def test_each_attempt_anew(self) -> None:
        """A peer is for one attempt: without a call in the next one there is none."""

        def choose(balancer: Context) -> None:
            if balancer.attempt == 1:
                balancer.set_current_peer("127.0.0.2", 1)

        made = run(choose)
        self.assertEqual(peer(made.attempt(2)), "127.0.0.2:1")
        self.assertEqual(decided(made.attempt(1)), Fallback())

    def test_no_peer(self) -> None:
        """Without a peer the upstream's own servers are used, whatever was returned."""
        for result in (None, True, "127.0.0.1:80", 500):
            self.assertEqual(decided(run(lambda b, r=result: r).attempt(1)), Fallback())

    def test_known_server(self) -> None:
        """An address of the upstream's, however written, is that server."""
        to = upstream(*numbered(1, 2), *numbered(1, host="::1"))
        for addr, key in (
            ("127.0.0.1:2", "127.0.0.1:2"),
            ("[0:0:0:0:0:0:0:1]:1", "::1:1"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ):
            made = run(lambda b, a=addr: b.set_current_peer(a), to)
            chosen = decided(made.attempt(1))
            assert isinstance(chosen, PeerChosen)
            self.assertIs(chosen.server, to.server(key))

    def test_known_server_comes_and_goes(self) -> None:
        """It is known as long as the upstream has it, in whatever form."""
        to = upstream(*numbered(1))
        made = run(lambda b: b.set_current_peer("[::1]:1"), to)
        stranger = decided(made.attempt(1))
        to.apply(snapshot(*numbered(1), *numbered(1, host="::1"), revision=2))
        known = decided(made.attempt(1))
        to.apply(snapshot(*numbered(1), revision=3))
        stranger_again = decided(made.attempt(1))
        assert isinstance(known, PeerChosen)
        self.assertEqual(known.server.key, "::1:1")
        self.assertNotEqual(stranger, known)
        self.assertEqual(stranger, stranger_again)

    def test_server_with_a_name(self) -> None:
        """One of the upstream's servers may be given itself, also with a name."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer(min(balancer.servers, key=lambda s: s.connections))

        to = upstream(order("web"))
        chosen = decided(run(choose, to).attempt(1))
        assert isinstance(chosen, PeerChosen)
        self.assertIs(chosen.server, to.server("web:80"))

    def test_counted(self) -> None:
        """A connection to a known server counts like any other's, and is given back."""
        to = upstream(*numbered(1, 2))
        server = to.server("127.0.0.1:1")
        assert server is not None
        chosen = decided(run(lambda b: b.set_current_peer("127.0.0.1:1"), to).attempt(1))
        assert isinstance(chosen, PeerChosen)
        lease = chosen.hold()
        self.assertEqual((server.held, server.picks), (1, 1))
        self.assertEqual(to.report(), {"127.0.0.1:1": 1})
        # The policy knows: it prefers the other one.
        other = to.choose()
        assert other is not None
        self.assertEqual(other.server.key, "127.0.0.1:2")
        other.release()
        lease.release()
        self.assertEqual(server.held, 0)
        self.assertEqual(to.report(), {})

    def test_limits_do_not_bind(self) -> None:
        """A hook may choose a server that is full or out; that is counted, too."""
        to = upstream()
        to.apply(
            snapshot(
                *numbered(1, max_conns=1), record(numbered(2)[0], intent=Intent.DISABLE)
            )
        )
        for key, twice in (("127.0.0.1:1", 2), ("127.0.0.1:2", 2)):
            server = to.server(key)
            assert server is not None
            leases = []
            for _ in range(twice):
                chosen = decided(run(lambda b, k=key: b.set_current_peer(k), to).attempt(1))
                assert isinstance(chosen, PeerChosen)
                leases.append(chosen.hold())
            self.assertEqual(server.held, 2)
            for lease in leases:
                lease.release()
            self.assertEqual(server.held, 0)
        # The full one has room again, the disabled one serves no policy.
        last = to.choose()
        assert last is not None
        self.assertEqual(last.server.key, "127.0.0.1:1")
        self.assertIsNone(to.choose())

    def test_stranger(self) -> None:
        """Another address is no server of the upstream, but always the same one."""
        to = upstream(*numbered(1))
        made = run(lambda b: b.set_current_peer("127.0.0.1", 9), to)
        first, second = decided(made.attempt(2)), decided(made.attempt(1))
        assert isinstance(first, PeerChosen) and isinstance(second, PeerChosen)
        self.assertIs(first.server, second.server)
        lease = first.hold()
        self.assertEqual(first.server.held, 1)
        self.assertEqual(to.report(full=True), {})
        self.assertEqual(len(to.servers), 1)
        lease.release()
        self.assertEqual(first.server.held, 0)

    def test_strangers_are_bounded(self) -> None:
        """A hook that follows what clients say does not fill the memory."""
        peers = hook(lambda b: None).peers
        made = run(lambda b: b.set_current_peer(f"10.0.{b.attempt >> 8}.{b.attempt & 255}:1"))
        for _ in range(1500):
            made.attempt(1)
        self.assertEqual(repr(made.hook.peers), "<Peers of api strangers=1024>")
        self.assertEqual(repr(peers), "<Peers of api strangers=0>")

    def test_failures_are_the_hooks(self) -> None:
        """A stranger is never taken out, however often it fails."""
        to = upstream(*numbered(1, 2))
        chosen = decided(run(lambda b: b.set_current_peer("127.0.0.1:9"), to).attempt(1))
        assert isinstance(chosen, PeerChosen)
        for _ in range(5):
            self.assertFalse(to.failed(chosen.server))
        self.assertFalse(chosen.server.failed)


class SetMoreTriesTests(TestCase):
    """How many attempts a request has."""

    def test_placeholder(self) -> None:
        """One server and no call: one attempt, whatever the limit."""
        self.assertEqual(attempts(run(_dead, tries=10)), 1)

    def test_servers_are_tries(self) -> None:
        """With three servers there are three attempts without a call."""
        self.assertEqual(attempts(run(_dead, upstream(*numbered(1, 2, 3)))), 3)
        self.assertEqual(attempts(run(_dead, upstream(*numbered(1, 2, 3)), tries=2)), 2)

    def test_backups_are_tries(self) -> None:
        """Backups count among them."""
        to = upstream(*numbered(1), *numbered(2, backup=True))
        self.assertEqual(attempts(run(_dead, to)), 2)

    def test_only_server_is_out(self) -> None:
        """A server that is out gives no try: then one more is none."""
        to = upstream(record(numbered(1)[0], intent=Intent.DISABLE))  # type: ignore[arg-type]
        made = run(More(1, 0), to)
        self.assertEqual(made.hook.first_tries, 0)
        self.assertEqual(attempts(made), 1)

    def test_no_servers_at_all(self) -> None:
        """An upstream without servers begins with one try."""
        to = upstream()
        self.assertEqual(attempts(run(_dead, to)), 1)
        self.assertEqual(attempts(run(More(1, 0), to)), 2)

    def test_further_tries(self) -> None:
        """The count is without the current attempt."""
        choose = More(3)
        self.assertEqual(attempts(run(choose)), 4)
        self.assertEqual(choose.said, [None])

    def test_within_the_limit(self) -> None:
        """Limit 10, one more in each of the first two: three, and no warning."""
        choose = More(1, 1)
        self.assertEqual(attempts(run(choose, tries=10)), 3)
        self.assertEqual(choose.said, [None, None])

    def test_reduced(self) -> None:
        """Limit 2, one more in each of the first two: two, and one warning."""
        choose = More(1, 1)
        self.assertEqual(attempts(run(choose, tries=2)), 2)
        self.assertEqual(choose.said, [None, "reduced tries due to limit"])

    def test_reduced_on_and_on(self) -> None:
        """Limit 5, two more every time: five exactly."""
        choose = More(*[2] * 9)
        self.assertEqual(attempts(run(choose, tries=5)), 5)
        self.assertEqual(choose.said, [None, None] + ["reduced tries due to limit"] * 3)

    def test_reduced_to_what_is_left(self) -> None:
        """What the limit allows of the count is given."""
        made = run(More(9), tries=4)
        outcome = decided(made.attempt(1))
        assert isinstance(outcome, PeerChosen)
        self.assertEqual(outcome.more_tries, 3)

    def test_no_limit_no_warning(self) -> None:
        """Without a limit each call is granted."""
        choose = More(*[1] * 30)
        self.assertEqual(attempts(run(choose), limit=20), 20)
        self.assertEqual(set(choose.said), {None})

    def test_never_below_zero(self) -> None:
        """When free tries have gone over the limit, nothing is taken away."""
        choose = More(*[1] * 9)
        made = run(choose, upstream(*numbered(1, 2)), tries=2)
        for _ in range(3):
            # Two tries are left all the time: kept connections were dead.
            outcome = decided(made.attempt(2))
            assert isinstance(outcome, PeerChosen)
            self.assertEqual(outcome.more_tries, 0)
        self.assertEqual(choose.said, ["reduced tries due to limit"] * 3)

    def test_last_call_wins(self) -> None:
        """Two calls in one attempt do not add up."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            if balancer.attempt == 1:
                balancer.set_more_tries(5)
                balancer.set_more_tries(1)

        self.assertEqual(attempts(run(choose)), 2)

    def test_needs_a_peer(self) -> None:
        """Without a peer in the same attempt the call has no effect."""
        made = run(lambda b: b.set_more_tries(5) and None)
        self.assertEqual(attempts(made), 1)

    def test_order_of_calls(self) -> None:
        """The peer may be set after it."""

        def choose(balancer: Context) -> None:
            if balancer.attempt == 1:
                balancer.set_more_tries(1)
            balancer.set_current_peer("127.0.0.2", 1)

        self.assertEqual(attempts(run(choose)), 2)

    def test_bad_count(self) -> None:
        """A count is a whole number and not negative."""

        def choose(balancer: Context) -> None:
            for count in (-1, "1", 1.5, None, True):
                bad: Any = count
                self.assertRaises(ValueError, balancer.set_more_tries, bad)

        decided(run(choose).attempt(1))


class GetLastFailureTests(TestCase):
    """How the attempt before has ended."""

    def seen(self, subsystem: str, *causes: Cause, own: str = "") -> list[Any]:
        """
        What each attempt is told, when the one before it failed by a cause.

        @param own: numbers of the attempts for which no peer is set.
        """
        told: list[Any] = []

        def choose(balancer: Context) -> None:
            told.append(balancer.get_last_failure())
            if str(balancer.attempt) not in own:
                balancer.set_current_peer("127.0.0.2", 1)

        made = run(choose, subsystem=subsystem)
        for cause in causes:
            decided(made.attempt(9))
            made.attempt_failed(cause)
        decided(made.attempt(9))
        return told

    def test_first_attempt(self) -> None:
        """There was none before the first."""
        self.assertEqual(self.seen("http"), [None])
        self.assertEqual(self.seen("stream"), [None])

    def test_http(self) -> None:
        """Each cause has its state and its status."""
        for cause, told in (
            (Cause.ERROR, ("failed", 502)),
            (Cause.TIMEOUT, ("failed", 504)),
            (Cause.INVALID_HEADER, ("failed", 502)),
            (Cause.HTTP_500, ("failed", 500)),
            (Cause.HTTP_502, ("failed", 502)),
            (Cause.HTTP_503, ("failed", 503)),
            (Cause.HTTP_504, ("failed", 504)),
            (Cause.HTTP_429, ("failed", 429)),
            (Cause.HTTP_403, ("next", 403)),
            (Cause.HTTP_404, ("next", 404)),
        ):
            self.assertEqual(self.seen("http", cause), [None, told])

    def test_stream(self) -> None:
        """In streams every failure is the same."""
        for cause in (Cause.ERROR, Cause.TIMEOUT):
            self.assertEqual(self.seen("stream", cause), [None, ("failed", 0)])

    def test_overwritten(self) -> None:
        """The last attempt counts."""
        self.assertEqual(
            self.seen("http", Cause.HTTP_404, Cause.TIMEOUT),
            [None, ("next", 404), ("failed", 504)],
        )

    def test_after_the_upstreams_own_choice(self) -> None:
        """An attempt without a peer tells nothing."""
        self.assertEqual(self.seen("http", Cause.ERROR, own="1"), [None, None])

    def test_own_choice_keeps_the_state(self) -> None:
        """It leaves the state of an earlier peer, and the status is the last one's."""
        self.assertEqual(
            self.seen("http", Cause.HTTP_404, Cause.TIMEOUT, own="2"),
            [None, ("next", 404), ("next", 504)],
        )


class SetTimeoutsTests(TestCase):
    """How long an attempt may take."""

    def after(self, *calls: tuple[Any, ...], subsystem: str = "http") -> Timeouts:
        """What is set after some calls in the first attempt."""

        def choose(balancer: Context) -> None:
            if balancer.attempt == 1:
                for call in calls:
                    balancer.set_timeouts(*call)

        made = run(choose, subsystem=subsystem)
        decided(made.attempt(1))
        kept = made.timeouts
        decided(made.attempt(1))
        # They hold for the further attempts.
        self.assertEqual(made.timeouts, kept)
        return kept

    def test_three(self) -> None:
        """Each by itself, in seconds, to the millisecond."""
        self.assertEqual(self.after((1.234, 5.678, 7.689)), Timeouts(1.234, 5.678, 7.689))
        self.assertEqual(self.after((1, 2.0009, 3)), Timeouts(1, 2.0, 3))

    def test_inherited(self) -> None:
        """None, or less than a millisecond, is the upstream's own."""
        self.assertEqual(self.after(()), Timeouts())
        self.assertEqual(self.after((None, 1, None)), Timeouts(None, 1, None))
        self.assertEqual(self.after((0.0009, 0.001, 1)), Timeouts(None, 0.001, 1))

    def test_none_leaves(self) -> None:
        """A further call changes what it names."""
        self.assertEqual(self.after((1, 2, 3), (None, 5, None)), Timeouts(1, 5, 3))

    def test_stream(self) -> None:
        """In streams the larger of two is the silence that is allowed."""
        for call, silence in (
            ((1.234, 5.678, 7.689), 7.689),
            ((1.234, 5.678, None), 5.678),
            ((1.234, None, 7.689), 7.689),
            ((1.234, None, None), None),
        ):
            self.assertEqual(
                self.after(call, subsystem="stream"), Timeouts(1.234, silence, silence)
            )
        self.assertEqual(
            self.after((1, 9, 9), (None, 1, None), subsystem="stream"), Timeouts(1, 1, 1)
        )

    def test_bad(self) -> None:
        """What is no positive number is named, the first in the order of the arguments."""
        for bad in (0, -1, "1", True, float("nan"), float("inf"), []):
            for call, name in (
                ((bad, bad, bad), "connect"),
                ((1, bad, bad), "send"),
                ((None, None, bad), "read"),
            ):
                for subsystem in ("http", "stream"):
                    made = run(lambda b, c=call: b.set_timeouts(*c), subsystem=subsystem)
                    outcome = now(made.attempt(1))
                    assert isinstance(outcome, Failed)
                    self.assertEqual(str(outcome.failure.value), f"bad {name} timeout")
                    self.assertEqual(made.timeouts, Timeouts())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 42)

    def test_other_requests(self) -> None:
        """They never concern another request."""
        shared = hook(lambda b: b.set_timeouts(1, 1, 1))
        first, second = (type(run(lambda b: None))(shared, request()) for _ in range(2))
        decided(first.attempt(1))
        self.assertEqual(second.timeouts, Timeouts())


class EnableKeepaliveTests(TestCase):
    """How a connection to a peer is kept."""

    def kept(self, *call: Any) -> Keepalive | None:
        def choose(balancer: HttpContext) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            balancer.enable_keepalive(*call)

        outcome = decided(run(choose).attempt(1))
        assert isinstance(outcome, PeerChosen)
        return outcome.keepalive

    def test_given(self) -> None:
        """Seconds and requests; 0 is no limit."""
        self.assertEqual(self.kept(1.5, 3), Keepalive(1.5, 3))
        self.assertEqual(self.kept(0, 0), Keepalive(0, 0))

    def test_defaults(self) -> None:
        """A minute and a hundred."""
        self.assertEqual(self.kept(), Keepalive(60, 100))
        self.assertEqual(self.kept(None, None), Keepalive(60, 100))

    def test_each_attempt_anew(self) -> None:
        """It is for the attempt in which it is called."""

        def choose(balancer: HttpContext) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            if balancer.attempt == 1:
                balancer.enable_keepalive()

        made = run(choose)
        for keepalive in (Keepalive(60, 100), None):
            outcome = decided(made.attempt(1))
            assert isinstance(outcome, PeerChosen)
            self.assertEqual(outcome.keepalive, keepalive)

    def test_needs_a_peer(self) -> None:
        """Before a peer is set there is nothing to be kept."""

        def choose(balancer: HttpContext) -> None:
            error = self.assertRaises(BalancerError, balancer.enable_keepalive)
            self.assertEqual(str(error), "no current peer set")

        decided(run(choose).attempt(1))

    def test_bad(self) -> None:
        """The argument and what is wrong with it are named."""

        def choose(balancer: HttpContext) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            for call, error, why in (
                (("1",), TypeError, "#1 to 'enable_keepalive' (number expected, got str)"),
                ((-1,), ValueError, "#1 to 'enable_keepalive' (expected >= 0)"),
                ((1, []), TypeError, "#2 to 'enable_keepalive' (number expected, got list)"),
                ((1, -1), ValueError, "#2 to 'enable_keepalive' (expected >= 0)"),
            ):
                raised = self.assertRaises(error, balancer.enable_keepalive, *call)
                self.assertEqual(str(raised), f"bad argument {why}")

        decided(run(choose).attempt(1))

    def test_stream(self) -> None:
        """A stream's connection is not kept."""

        def choose(balancer: StreamContext) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            error = self.assertRaises(BalancerError, balancer.enable_keepalive)
            self.assertEqual(
                str(error), "'enable_keepalive' not yet implemented in stream subsystem"
            )

        decided(run(choose, subsystem="stream").attempt(1))


class ExitTests(TestCase):
    """Ending a hook with a code."""

    def test_codes(self) -> None:
        """What each code leads to, in both subsystems."""
        for code, outcome in (
            (403, Exit(403)),
            (502, Exit(502)),
            (300, Exit(300)),
            (299, Exit(500)),
            (200, Exit(500)),
            (1, Exit(500)),
            (1000, Exit(500)),
            (Context.ERROR, Exit(500)),
            (Context.BUSY, Exit(502)),
            (Context.DECLINED, Declined()),
            (-2, Exit(500)),
        ):
            for subsystem in ("http", "stream"):
                made = run(lambda b, c=code: b.exit(c), subsystem=subsystem)
                self.assertEqual(decided(made.attempt(1)), outcome, code)

    def test_ok(self) -> None:
        """OK goes on with the peer, or without one."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            balancer.exit(balancer.OK)

        self.assertEqual(peer(run(choose).attempt(1)), "127.0.0.2:1")
        self.assertEqual(decided(run(lambda b: b.exit(b.OK)).attempt(1)), Fallback())

    def test_no_attempt(self) -> None:
        """A peer that was set is not used after a status."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            balancer.exit(403)

        self.assertEqual(decided(run(choose).attempt(1)), Exit(403))

    def test_at_once(self) -> None:
        """Nothing of the hook runs afterwards, an exception's net included."""

        def choose(balancer: Context) -> None:
            try:
                balancer.exit(403)
            except Exception:  # noqa: BLE001 - as hooks do around what they ask
                self.fail("caught")
            self.fail("went on")

        self.assertEqual(decided(run(choose).attempt(1)), Exit(403))

    def test_after_waiting(self) -> None:
        """It ends a hook that has waited, too."""
        gate: Deferred[None] = Deferred()

        async def choose(balancer: Context) -> None:
            await gate
            balancer.exit(404)

        outcome = run(choose).attempt(1)
        assert isinstance(outcome, Deferred)
        gate.callback(None)
        self.assertEqual(self.successResultOf(outcome), Exit(404))

    def test_type(self) -> None:
        """A code is a number."""

        def choose(balancer: Context) -> None:
            bad: Any = "403"
            self.assertRaises(TypeError, balancer.exit, bad)

        self.assertEqual(decided(run(choose).attempt(1)), Fallback())


class LookingTests(TestCase):
    """What a context shows."""

    def test_members(self) -> None:
        """Subsystem, upstream, number of the attempt, the request and a logger."""
        seen: list[Any] = []

        def choose(b: Any) -> None:
            seen.append((b.subsystem, b.upstream, b.attempt, b.request.client))
            b.log.debug("here")

        made = run(choose)
        decided(made.attempt(1))
        decided(made.attempt(1))
        stream = StreamRequest(
            client="192.0.2.1", client_port=5, local="192.0.2.2", local_port=10000,
            server_name="a.example",
        )
        decided(run(choose, subsystem="stream", seen=stream).attempt(1))
        self.assertEqual(
            seen,
            [
                ("http", "api", 1, "192.0.2.1"),
                ("http", "api", 2, "192.0.2.1"),
                ("stream", "api", 1, "192.0.2.1"),
            ],
        )

    def test_stream_has_less(self) -> None:
        """A stream has no request to be made anew."""
        self.assertFalse(hasattr(StreamContext, "recreate_request"))

    def test_servers(self) -> None:
        """The servers that are in, with their counts; those that are out are not shown."""
        to = upstream()
        to.apply(
            snapshot(
                *numbered(1, weight=3, max_conns=5),
                *numbered(2, max_conns=1),
                *numbered(3, backup=True, max_conns=0),
                record(numbered(4)[0], intent=Intent.DISABLE),
                record(numbered(5)[0], expired=True),
                *numbered(6),
            )
        )
        full, failed = to.server("127.0.0.1:2"), to.server("127.0.0.1:6")
        assert full is not None and failed is not None
        to.failed(failed)
        to.apply_totals({"127.0.0.1:1": 2, "127.0.0.1:2": 1})
        seen: list[Any] = []

        def choose(b: Context) -> None:
            seen.extend(
                (s.address, s.host, s.port, s.weight, s.backup, s.max_conns, s.connections,
                 s.node_connections, s.full)
                for s in b.servers
            )

        decided(run(choose, to).attempt(1))
        self.assertEqual(
            seen,
            [
                ("127.0.0.1:1", "127.0.0.1", 1, 3, False, 5, 2, 0, False),
                ("127.0.0.1:2", "127.0.0.1", 2, 1, False, 1, 1, 0, True),
                ("127.0.0.1:3", "127.0.0.1", 3, 1, True, 0, 0, 0, False),
            ],
        )

    def test_servers_cannot_be_changed(self) -> None:
        """A hook looks at servers only."""

        def choose(balancer: Context) -> None:
            server: Any = balancer.servers[0]
            self.assertRaises(AttributeError, setattr, server, "weight", 5)
            self.assertRaises(AttributeError, setattr, server, "down", True)

        decided(run(choose).attempt(1))

    def test_servers_are_compared(self) -> None:
        """A server remembered from an earlier attempt is found again."""

        def choose(balancer: Context) -> None:
            tried = balancer.ctx.setdefault("tried", set())
            left = [server for server in balancer.servers if server not in tried]
            tried.add(left[0])
            balancer.set_current_peer(left[0])

        made = run(choose, upstream(*numbered(1, 2)))
        self.assertEqual(peer(made.attempt(2)), "127.0.0.1:1")
        self.assertEqual(peer(made.attempt(1)), "127.0.0.1:2")

    def test_kept_context_is_dead(self) -> None:
        """A context that was kept past its attempt answers no more."""
        for subsystem in ("http", "stream"):
            kept: list[Any] = []
            made = run(kept.append, subsystem=subsystem)
            decided(made.attempt(1))
            context = kept[0]
            calls = [
                lambda c=context: c.set_current_peer("127.0.0.1", 1),
                lambda c=context: c.set_more_tries(1),
                context.get_last_failure,
                lambda c=context: c.set_timeouts(1),
                lambda c=context: c.exit(403),
                lambda c=context: c.servers,
                lambda c=context: c.request,
            ]
            if subsystem == "http":
                calls += [context.recreate_request, context.enable_keepalive]
            for call in calls:
                error = self.assertRaises(BalancerError, call)
                self.assertEqual(str(error), "API disabled in the current context")
            self.assertIn("ended", repr(context))
            self.assertEqual(made.timeouts, Timeouts())


def _dead(balancer: Context) -> None:
    """A hook whose peers never answer."""
    balancer.set_current_peer("127.0.0.2", 1)


class More:
    """
    A hook that asks for more tries.

    @param counts: in each of the first attempts.
    @ivar said: what it was told.
    """

    def __init__(self, *counts: int) -> None:
        self._counts = list(counts)
        self.said: list[str | None] = []

    def __call__(self, balancer: Context) -> None:
        balancer.set_current_peer("127.0.0.2", 1)
        if self._counts:
            self.said.append(balancer.set_more_tries(self._counts.pop(0)))
