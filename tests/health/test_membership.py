"""Tests of the exchange between a node's memory and the store."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.errors import StoreUnavailable
from dynbalance.store.contract import Intent, Snapshot
from dynbalance.store.membership import FIRST_ROUND, LEAVE, Membership
from dynbalance.store.reports import Mended, Report
from tests.health.stores import DoorStore, order

LEASE = 10.0
INTERVAL = 0.1


class MembershipTests(TestCase):
    """One node, sometimes two, on a memory store and a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = DoorStore(self.clock)
        self.balancer, self.membership = self.node("one")
        self.upstream = self.balancer.upstream("default")

    def node(self, name: str) -> tuple[Balancer, Membership]:
        balancer = Balancer(
            [UpstreamOrder(name="default"), UpstreamOrder(name="api")],
            self.clock.seconds,
            lambda: 0.0,
        )
        membership = Membership(balancer, self.store, name, LEASE, INTERVAL, self.clock)
        return balancer, membership

    def add(self, port: int) -> None:
        self.successResultOf(self.store.inner.add("default", order(port), "test"))

    def published(self) -> dict[str, int]:
        snapshot = self.successResultOf(self.store.inner.snapshot("default"))
        return {record.order.address: record.connections for record in snapshot.servers}

    def keys(self) -> list[str]:
        return [server.key for server in self.upstream.servers]

    def test_retired(self) -> None:
        """
        An upstream that is named no more is told of until nothing is left of it,
        and then this node has left it.
        """
        self.add(9001)
        self.successResultOf(self.membership.start())
        lease = self.upstream.choose()
        assert lease is not None
        self.balancer.follow([UpstreamOrder(name="api")], {})
        self.membership.follow(())
        self.clock.advance(INTERVAL)
        self.assertEqual({"127.0.0.1:9001": 1}, self.published())
        self.assertEqual([self.upstream], list(self.balancer.retired.values()))
        lease.release()
        for _ in range(3):
            self.clock.advance(INTERVAL)
        self.assertEqual({"127.0.0.1:9001": 0}, self.published())
        self.assertEqual({}, self.balancer.retired)
        self.assertIsNone(self.membership.known("default"))
        self.assertIn("leave", self.store.calls)

    def test_new_upstream(self) -> None:
        """One that is new can be looked up at once, and is exchanged from then on."""
        self.successResultOf(self.store.inner.add("new", order(9009), "test"))
        self.successResultOf(self.membership.start())
        known = self.successResultOf(Deferred.fromCoroutine(self.membership.look("new")))
        names = ("default", "api", "new")
        self.balancer.follow([UpstreamOrder(name=name) for name in names], {"new": known})
        self.membership.follow(())
        upstream = self.balancer.upstream("new")
        self.assertEqual(["127.0.0.1:9009"], [server.key for server in upstream.servers])
        self.clock.advance(INTERVAL)
        self.assertIsNotNone(self.membership.known("new"))
        self.store.lose()
        self.assertIsNone(
            self.successResultOf(Deferred.fromCoroutine(self.membership.look("another")))
        )

    def test_checks_that_end(self) -> None:
        """What checks have found ends with them, and is back with them."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        key = "127.0.0.1:9001"
        self.membership.follow(("default",))
        self.successResultOf(self.store.inner.claim_checks("default", "one", [key], 60.0))
        self.successResultOf(self.store.inner.conclude_check("default", "one", key, "silent"))
        self.clock.advance(INTERVAL)
        server = self.upstream.server(key)
        assert server is not None
        self.assertTrue(server.checked_down)
        self.membership.follow(())
        self.assertFalse(server.checked_down)
        self.membership.follow(("default",))
        self.assertTrue(server.checked_down)

    def test_loads_before_start_fires(self) -> None:
        """When start fires, the servers of the store can be chosen."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])
        self.assertTrue(self.membership.contact.available)
        self.assertEqual(self.membership.known("default").revision, 1)

    def test_start_waits_a_bounded_time(self) -> None:
        """A store that does not answer holds up the start for a limited time."""
        self.store.slow = True
        started = self.membership.start()
        self.clock.advance(FIRST_ROUND - 0.01)
        self.assertNoResult(started)
        self.clock.advance(0.02)
        self.successResultOf(started)

    def test_start_with_store_away(self) -> None:
        """A store that is away does not hold up the start, and is found later."""
        self.add(9001)
        self.store.lose()
        self.successResultOf(self.membership.start())
        self.assertFalse(self.membership.contact.available)
        self.assertEqual(self.keys(), [])
        self.store.find()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_changes_arrive_within_an_interval(self) -> None:
        """What another node changed in the store is seen with the next exchange."""
        self.successResultOf(self.membership.start())
        self.add(9001)
        self.assertEqual(self.keys(), [])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])
        self.successResultOf(self.store.inner.remove("default", "127.0.0.1:9001", "test"))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), [])

    def test_loads_only_what_changed(self) -> None:
        """An exchange in which nothing changed loads no servers."""
        self.successResultOf(self.membership.start())
        self.store.calls.clear()
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual(self.store.calls, ["sync"] * 5)

    def test_time_passes(self) -> None:
        """With every exchange, also with a failing one, time passes for each upstream."""
        ticks: list[str] = []
        for upstream in self.balancer:
            self.patch(upstream, "tick", lambda name=upstream.name: ticks.append(name))
        self.successResultOf(self.membership.start())
        self.store.lose()
        self.clock.advance(INTERVAL)
        self.assertEqual(["default", "api"] * 2, ticks)

    def test_publishes_absolute_numbers(self) -> None:
        """The store hears what this node holds, and that it ended."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        leases = [self.upstream.choose() for _ in range(3)]
        self.clock.advance(INTERVAL)
        self.assertEqual(self.published(), {"127.0.0.1:9001": 3})
        for lease in leases:
            assert lease is not None
            lease.release()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.published(), {"127.0.0.1:9001": 0})

    def test_only_changes_are_reported(self) -> None:
        """After the first, full report, only what changed is told."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.assertTrue(self.store.reports[0]["default"].full)
        self.upstream.choose()
        self.clock.pump([INTERVAL, INTERVAL])
        told, silent = self.store.reports[-2]["default"], self.store.reports[-1]["default"]
        self.assertEqual((told.held, told.full), ({"127.0.0.1:9001": 1}, False))
        self.assertEqual((silent.held, silent.full), ({}, False))

    def test_two_nodes_see_each_other(self) -> None:
        """Each node knows the connections of the other as such."""
        self.add(9001)
        other, membership = self.node("two")
        self.successResultOf(self.membership.start())
        self.successResultOf(membership.start())
        self.upstream.choose()
        for _ in range(2):
            other.upstream("default").choose()
        self.clock.pump([INTERVAL] * 3)
        (mine,) = self.upstream.servers
        (theirs,) = other.upstream("default").servers
        self.assertEqual((mine.held, mine.others), (1, 2))
        self.assertEqual((theirs.held, theirs.others), (2, 1))

    def test_lapsed_node_tells_all_again(self) -> None:
        """A node that was given up re-enters with all that it holds."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.upstream.choose()
        self.clock.advance(INTERVAL)
        self.successResultOf(self.store.inner.leave("one", ["default", "api"]))
        self.assertEqual(self.published(), {"127.0.0.1:9001": 0})
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual(self.published(), {"127.0.0.1:9001": 1})
        (server,) = self.upstream.servers
        self.assertEqual((server.held, server.others), (1, 0))

    def test_never_two_at_once(self) -> None:
        """While an answer is awaited, no other exchange begins."""
        self.store.slow = True
        self.membership.start()
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(self.store.calls, ["sync"])

    def test_outage_is_logged_once_and_survived(self) -> None:
        """One line when the store goes, one when it comes back; servers stay."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.store.lose()
        with capturedLogs() as events:
            self.clock.pump([INTERVAL] * 20)
            self.assertEqual(self.keys(), ["127.0.0.1:9001"])
            self.assertFalse(self.membership.contact.available)
            self.assertAlmostEqual(self.membership.contact.stale_for, 2.0)
            self.store.find()
            self.clock.pump([INTERVAL] * 20)
        self.assertEqual(
            [event["log_level"] for event in events], [LogLevel.warn, LogLevel.info]
        )
        self.assertEqual(self.membership.contact.stale_for, 0.0)
        self.assertAlmostEqual(self.membership.contact.available_for, 1.9)

    def test_after_an_outage_everything_is_agreed_anew(self) -> None:
        """The store may be another one: full report, all totals, all servers."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.upstream.choose()
        self.store.lose()
        self.clock.advance(INTERVAL)
        self.store.find()
        self.store.calls.clear()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.store.calls, ["sync", "snapshot", "snapshot"])
        expected = Report(held={"127.0.0.1:9001": 1}, full=True, seen=0, number=3, settled=3)
        self.assertEqual(self.store.reports[-1]["default"], expected)

    def test_counts_are_heard_though_servers_cannot_be_loaded(self) -> None:
        """A store lost between the two halves of an exchange is asked again."""
        self.successResultOf(self.membership.start())
        self.add(9001)
        snapshot = self.store.snapshot
        self.patch(self.store, "snapshot", lambda name: self.store.lose() or snapshot(name))
        self.clock.advance(INTERVAL)
        self.assertFalse(self.membership.contact.available)
        self.patch(self.store, "snapshot", snapshot)
        self.store.find()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_survives_mistakes(self) -> None:
        """An exception that nobody foresaw is logged once, and the exchange goes on."""
        self.successResultOf(self.membership.start())
        self.store.failure = ZeroDivisionError("a mistake")
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.store.find()
        self.add(9001)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_unusable_record_is_logged_once(self) -> None:
        """A record that cannot be a server is named once, not at every change."""
        bad = order(9001, weight=0)
        self.successResultOf(self.store.inner.add("default", bad, "test"))
        with capturedLogs() as events:
            self.successResultOf(self.membership.start())
            self.add(9002)
            self.clock.advance(INTERVAL)
        self.assertEqual(len([e for e in events if e["log_level"] is LogLevel.error]), 1)
        self.assertEqual(self.keys(), ["127.0.0.1:9002"])

    def test_refresh_applies_at_once(self) -> None:
        """A refresh answers the snapshot and has applied it."""
        self.successResultOf(self.membership.start())
        self.add(9001)
        snapshot = self.successResultOf(self.membership.refresh("default"))
        self.assertEqual(snapshot.revision, 1)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_expiry_and_intent_reach_the_live_server(self) -> None:
        """What the store says of a server is what the choice goes by."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        answer = self.store.inner.set_intent("default", "127.0.0.1:9001", Intent.DISABLE, "x")
        self.successResultOf(answer)
        self.clock.advance(INTERVAL)
        self.assertIsNone(self.upstream.choose())

    def lose_all(self, given_back: bool) -> list[tuple[str, Snapshot, str]]:
        """
        Let the store be emptied.

        @param given_back: whether it takes what it is given back.
        @return: gets what it is given back.
        """
        whole, calls = self.store.inner.snapshot, []

        def empty(upstream: str) -> Deferred[Snapshot]:
            return succeed(Snapshot(revision=0, now=1.0, era="new"))

        def restore(upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
            calls.append((upstream, snapshot, by))
            if given_back:
                self.patch(self.store.inner, "snapshot", whole)
            return succeed(len(snapshot.servers) if given_back else None)

        self.patch(self.store.inner, "snapshot", empty)
        self.patch(self.store.inner, "restore", restore)
        return calls

    def test_gives_back_what_was_lost(self) -> None:
        """A store that was emptied is told what it knew; the servers never go."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        known = self.membership.known("default")
        calls = self.lose_all(given_back=True)
        with capturedLogs() as events:
            self.successResultOf(self.membership.refresh("default"))
        self.assertEqual([("default", known, "one")], calls)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])
        self.assertEqual([LogLevel.warn], [event["log_level"] for event in events])

    def test_believes_a_store_that_refuses(self) -> None:
        """Who is refused takes what the store has."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        calls = self.lose_all(given_back=False)
        with capturedLogs() as events:
            self.successResultOf(self.membership.refresh("default"))
            self.successResultOf(self.membership.refresh("default"))
        self.assertEqual((1, [], []), (len(calls), self.keys(), events))

    def test_nothing_is_no_loss(self) -> None:
        """Nobody gives back an upstream in which there was never anything."""
        self.successResultOf(self.membership.start())
        calls = self.lose_all(given_back=True)
        self.successResultOf(self.membership.refresh("default"))
        self.assertEqual([], calls)

    def test_lost_before_it_is_given_back(self) -> None:
        """A store that is lost again before it was told leaves the servers as they are."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.lose_all(given_back=True)
        away = StoreUnavailable("again")
        self.patch(self.store.inner, "restore", lambda *_: fail(away))
        self.failureResultOf(self.membership.refresh("default"), StoreUnavailable)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_changes_by_hand_are_told(self) -> None:
        """What the store mended is one line of the log, of limited length."""
        self.successResultOf(self.membership.start())
        sync = self.store.inner.sync
        mended = {f"10.0.0.{i}:80": Mended.REMOVED for i in range(12)}

        def mend(*args: object) -> object:
            answers = self.successResultOf(sync(*args))
            return succeed({name: evolve(each, mended=mended) for name, each in answers.items()})

        self.patch(self.store.inner, "sync", mend)
        with capturedLogs() as events:
            self.clock.advance(INTERVAL)
        self.assertEqual(2, len(events))
        self.assertTrue(events[0]["what"].startswith("10.0.0.0:80 removed, "))
        self.assertTrue(events[0]["what"].endswith("10.0.0.9:80 removed and 2 more"))

    def test_orders_need_agreement(self) -> None:
        """Nobody may give an order before the store and this node agree."""
        with self.assertRaises(StoreUnavailable):
            self.membership.contact.require()
        self.successResultOf(self.membership.start())
        self.membership.contact.require()
        self.store.lose()
        self.clock.advance(INTERVAL)
        with self.assertRaisesRegex(StoreUnavailable, "the door is closed"):
            self.membership.contact.require()

    def test_remembered(self) -> None:
        """With the store away at the start, what was known once is used; later the store is."""
        self.add(9001)
        old = self.successResultOf(self.store.inner.snapshot("default"))
        self.membership.remember({"default": old, "gone": old}, "the file, 3 s old")
        self.store.lose()
        with capturedLogs() as events:
            self.successResultOf(self.membership.start())
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])
        self.assertEqual(self.membership.known("default"), old)
        self.assertIn("the file, 3 s old", [event.get("origin") for event in events])
        self.successResultOf(self.store.inner.remove("default", "127.0.0.1:9001", "test"))
        self.add(9002)
        self.store.find()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9002"])

    def test_remembered_with_the_store_there(self) -> None:
        """What was known once is not used while the store says what is."""
        old = Snapshot(revision=1, now=1.0, era="memory")
        self.add(9001)
        self.membership.remember({"default": old}, "the file")
        self.successResultOf(self.membership.start())
        self.store.lose()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_remembered_and_lost(self) -> None:
        """What was known once is given back to a store that has lost it."""
        self.add(9001)
        old = self.successResultOf(self.store.inner.snapshot("default"))
        calls = self.lose_all(given_back=True)
        self.membership.remember({"default": old}, "the file")
        self.successResultOf(self.membership.start())
        self.assertEqual([("default", old, "one")], calls)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_remembered_by_a_slow_store(self) -> None:
        """A store that keeps silent at the start is away as well."""
        self.add(9001)
        old = self.successResultOf(self.store.inner.snapshot("default"))
        self.membership.remember({"default": old}, "the file")
        self.store.slow = True
        started = self.membership.start()
        self.clock.advance(FIRST_ROUND)
        self.successResultOf(started)
        self.assertEqual(self.keys(), ["127.0.0.1:9001"])

    def test_news_are_noted(self) -> None:
        """Whoever keeps what is known hears of each change, and of nothing else."""
        noted: list[int] = []
        membership = Membership(
            self.balancer,
            self.store,
            "two",
            LEASE,
            INTERVAL,
            self.clock,
            noted=lambda: noted.append(membership.known("default").revision),
        )
        self.add(9001)
        self.successResultOf(membership.start())
        before = len(noted)
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual(len(noted), before)
        self.add(9002)
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual(noted[before:], [2])
        self.successResultOf(membership.stop())

    def test_stop_gives_back(self) -> None:
        """At the end the store no longer counts this node's connections."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.upstream.choose()
        self.clock.advance(INTERVAL)
        self.successResultOf(self.membership.stop())
        self.assertEqual(self.published(), {"127.0.0.1:9001": 0})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_is_bounded(self) -> None:
        """A store that does not answer holds up the end for a limited time."""
        self.successResultOf(self.membership.start())
        self.store.slow = True
        self.clock.advance(INTERVAL)
        stopped = self.membership.stop()
        self.clock.advance(LEAVE)
        self.assertNoResult(stopped)
        self.clock.advance(LEAVE)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_again(self) -> None:
        """What has left says no second farewell: its name may be a successor's by then."""
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.successResultOf(self.membership.stop())
        farewells: list[str] = []
        self.patch(self.store, "leave", lambda node, upstreams: farewells.append(node))
        self.successResultOf(self.membership.stop())
        self.assertEqual([], farewells)

    def test_stop_without_start(self) -> None:
        """A membership that never began can be ended."""
        self.successResultOf(self.membership.stop())

    def test_name_of_a_dead_process(self) -> None:
        """
        A process that was killed and started again has the name and begins to
        count its calls anew: it is heard with its first exchange.
        """
        self.add(9001)
        self.successResultOf(self.membership.start())
        self.upstream.choose()
        self.clock.pump([INTERVAL] * 5)
        self.membership._loop.stop()
        self.assertEqual({"127.0.0.1:9001": 1}, self.published())
        _, again = self.node("one")
        self.successResultOf(again.start())
        self.assertEqual({"127.0.0.1:9001": 0}, self.published())
        self.assertTrue(again.contact.available)
