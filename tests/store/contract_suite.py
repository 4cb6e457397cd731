"""
The contract of L{dynbalance.store.contract.Store}, as tests that every
implementation runs.
"""

from __future__ import annotations

from typing import Any

from dynbalance.errors import ServerExists, ServerNotFound
from dynbalance.store.contract import Drain, Drained, Intent, ServerOrder, ServerRecord, Store, Then
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish

A = "10.0.0.1:80"
B = "10.0.0.2:80"
V6 = "[::1]:8080"
UNIX = "unix:/run/a b.sock"


def order(address: str = A, **more: Any) -> ServerOrder:
    """An order for a server at C{address}."""
    host, _, port = address.rpartition(":")
    return ServerOrder(address=address, host=host.strip("[]"), port=int(port), **more)


class OfAStore:
    """
    Mixed into a TestCase that sets C{self.store} to an opened, empty store.
    """

    store: Store

    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIsNone: Any
    assertApproximates: Any
    assertGreater: Any
    assertFailure: Any

    async def elapse(self, seconds: float) -> None:
        """Let the store's clock go on."""
        raise NotImplementedError


class StoreContract(OfAStore):
    """Servers, heartbeats, counts and checks."""

    async def only(self, upstream: str = "default") -> ServerRecord:
        """The only server of an upstream."""
        (record,) = (await self.store.snapshot(upstream)).servers
        return record

    async def revision(self, upstream: str = "default") -> int:
        return (await self.store.snapshot(upstream)).revision

    async def tell(
        self,
        node: str,
        held: dict[str, int],
        *,
        full: bool = False,
        seen: int = 0,
        upstream: str = "default",
        lease: float = 10.0,
        number: int = 0,
        settled: int = 0,
        hungry: bool = False,
    ) -> SyncAnswer:
        """One node's sync of one upstream."""
        report = Report(
            held=held, full=full, seen=seen, number=number, settled=settled, hungry=hungry
        )
        return (await self.store.sync(node, lease, {upstream: report}))[upstream]

    async def _without(self, node: str) -> None:
        """A lease's time in which a node is silent, and another one is not."""
        await self.tell(f"not {node}", {}, full=True)
        for _ in range(2):
            await self.elapse(6.0)
            await self.tell(f"not {node}", {})

    # Membership.

    async def test_empty(self) -> None:
        """An upstream that nothing was ever stored in has no servers and revision 0."""
        snapshot = await self.store.snapshot("default")
        self.assertEqual((0, ()), (snapshot.revision, snapshot.servers))
        self.assertTrue(self.store.available)

    async def test_add(self) -> None:
        """An added server is there as ordered, enabled, with a first heartbeat now."""
        wanted = order(
            V6,
            weight=3,
            max_conns=0,
            heartbeat=False,
            backup=True,
            max_fails=0,
            fail_timeout=2.5,
        )
        added = await self.store.add("default", wanted, "ops")
        snapshot = await self.store.snapshot("default")
        self.assertEqual((added,), snapshot.servers)
        self.assertEqual(wanted, added.order)
        self.assertEqual((Intent.ENABLE, False, True), (added.intent, added.expired, added.enabled))
        self.assertEqual(0, added.connections)
        self.assertApproximates(snapshot.now, added.last_heartbeat, 2.0)
        self.assertEqual(added.created_at, added.last_heartbeat)
        self.assertEqual(
            (None, None, None), (added.updated_at, added.disabled_at, added.disabled_reason)
        )

    async def test_any_text(self) -> None:
        """Addresses, hosts and names with quotes, spaces and other scripts survive."""
        wanted = ServerOrder(address=UNIX, host='unix:/run/a "b".sock\\ü', port=0)
        await self.store.add("ünter pool", wanted, 'o"ps\n')
        self.assertEqual(wanted, (await self.only("ünter pool")).order)
        await self.store.set_intent("ünter pool", UNIX, Intent.DISABLE, "ops")
        self.assertEqual(wanted, (await self.only("ünter pool")).order)

    async def test_add_twice(self) -> None:
        """A server that exists is not added again, and nothing of it changes."""
        await self.store.add("default", order(weight=2), "ops")
        before = await self.store.snapshot("default")
        await self.assertFailure(self.store.add("default", order(weight=9), "ops"), ServerExists)
        after = await self.store.snapshot("default")
        self.assertEqual((before.revision, before.servers), (after.revision, after.servers))

    async def test_sorted(self) -> None:
        """A snapshot lists the servers in the order of their addresses."""
        for address in (B, V6, A):
            await self.store.add("default", order(address), "ops")
        servers = (await self.store.snapshot("default")).servers
        self.assertEqual([A, B, V6], [server.order.address for server in servers])

    async def test_remove(self) -> None:
        """A removed server is gone; removing it again fails."""
        await self.store.add("default", order(), "ops")
        await self.store.remove("default", A, "ops")
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        await self.assertFailure(self.store.remove("default", A, "ops"), ServerNotFound)

    async def test_upstreams_apart(self) -> None:
        """Upstreams have servers, counts and revisions of their own."""
        await self.store.add("default", order(), "ops")
        await self.store.add("api", order(B), "ops")
        await self.store.remove("default", A, "ops")
        self.assertEqual(B, (await self.only("api")).order.address)
        self.assertEqual(1, await self.revision("api"))
        self.assertEqual(2, await self.revision())

    async def test_revision(self) -> None:
        """Each change of membership, order or expiry raises the revision; beats do not."""
        seen = [await self.revision()]
        await self.store.add("default", order(), "ops")
        seen.append(await self.revision())
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        seen.append(await self.revision())
        await self.store.set_intent("default", A, Intent.ENABLE, "ops")
        seen.append(await self.revision())
        await self.elapse(31.0)
        await self.store.expire("default", 30.0)
        seen.append(await self.revision())
        await self.store.beat("default", A, True)
        seen.append(await self.revision())
        await self.store.remove("default", A, "ops")
        seen.append(await self.revision())
        self.assertEqual(list(range(7)), seen)
        await self.store.add("default", order(), "ops")
        before = await self.revision()
        await self.store.beat("default", A, True)
        await self.store.expire("default", 30.0)
        await self.tell("one", {A: 1}, full=True)
        self.assertEqual(before, await self.revision())

    # What was ordered, and what was observed.

    async def test_disable(self) -> None:
        """A disabled server says since when and why; enabling forgets both."""
        await self.store.add("default", order(), "ops")
        off = await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        self.assertEqual((Intent.DISABLE, False, False), (off.intent, off.expired, off.enabled))
        self.assertEqual("manual", off.disabled_reason)
        self.assertApproximates(off.created_at, off.disabled_at, 2.0)
        self.assertEqual(off.disabled_at, off.updated_at)
        self.assertEqual(off, await self.only())
        on = await self.store.set_intent("default", A, Intent.ENABLE, "ops")
        self.assertEqual((True, None, None), (on.enabled, on.disabled_at, on.disabled_reason))
        self.assertEqual(on, await self.only())

    async def test_unknown_server(self) -> None:
        """Orders and beats for an address that is no server fail and create nothing."""
        for call in (
            self.store.set_intent("default", A, Intent.ENABLE, "ops"),
            self.store.beat("default", A, True),
            self.store.remove("default", A, "ops"),
        ):
            await self.assertFailure(call, ServerNotFound)
        snapshot = await self.store.snapshot("default")
        self.assertEqual((0, ()), (snapshot.revision, snapshot.servers))

    async def test_beat(self) -> None:
        """A heartbeat is recorded with the store's time."""
        await self.store.add("default", order(), "ops")
        await self.elapse(20.0)
        beat = await self.store.beat("default", A, True)
        snapshot = await self.store.snapshot("default")
        self.assertEqual((beat,), snapshot.servers)
        self.assertApproximates(snapshot.now, beat.last_heartbeat, 2.0)

    async def test_expire(self) -> None:
        """A server whose heartbeats stopped is taken out once, with the cause."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("default", order(B), "ops")
        await self.elapse(31.0)
        await self.store.beat("default", B, True)
        first = await self.store.expire("default", 30.0)
        self.assertEqual((1, (A,)), (first.expired_count, first.disabled))
        second = await self.store.expire("default", 30.0)
        self.assertEqual((1, ()), (second.expired_count, second.disabled))
        gone, alive = (await self.store.snapshot("default")).servers
        self.assertEqual((Intent.ENABLE, True, False), (gone.intent, gone.expired, gone.enabled))
        self.assertEqual("heartbeat_timeout", gone.disabled_reason)
        self.assertGreater(gone.disabled_at, gone.last_heartbeat)
        self.assertTrue(alive.enabled)

    async def test_expired_returns(self) -> None:
        """The next heartbeat brings an expired server back, if that is wanted."""
        await self.store.add("default", order(), "ops")
        await self.elapse(31.0)
        await self.store.expire("default", 30.0)
        still = await self.store.beat("default", A, False)
        self.assertEqual((True, "heartbeat_timeout"), (still.expired, still.disabled_reason))
        back = await self.store.beat("default", A, True)
        self.assertEqual((True, False), (back.enabled, back.expired))
        self.assertEqual((None, None), (back.disabled_at, back.disabled_reason))
        self.assertEqual(back, await self.only())

    async def test_disabled_stays(self) -> None:
        """A heartbeat never brings back what an operator disabled."""
        await self.store.add("default", order(), "ops")
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        beaten = await self.store.beat("default", A, True)
        self.assertEqual((False, "manual"), (beaten.enabled, beaten.disabled_reason))

    async def test_disabled_is_not_expired(self) -> None:
        """A disabled server's silence is counted but changes nothing."""
        await self.store.add("default", order(), "ops")
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        await self.elapse(31.0)
        expiry = await self.store.expire("default", 30.0)
        self.assertEqual((1, ()), (expiry.expired_count, expiry.disabled))
        self.assertEqual("manual", (await self.only()).disabled_reason)

    async def test_expired_then_disabled(self) -> None:
        """Of an expired and disabled server a beat forgives only the expiry."""
        await self.store.add("default", order(), "ops")
        await self.elapse(31.0)
        await self.store.expire("default", 30.0)
        both = await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        self.assertEqual((Intent.DISABLE, True, "manual"), _cause(both))
        beaten = await self.store.beat("default", A, True)
        self.assertEqual((Intent.DISABLE, False, "manual"), _cause(beaten))
        self.assertFalse(beaten.enabled)

    async def test_enable_forgives(self) -> None:
        """Enabling an expired server gives it a full time to send its next beat."""
        await self.store.add("default", order(), "ops")
        await self.elapse(31.0)
        await self.store.expire("default", 30.0)
        await self.store.set_intent("default", A, Intent.ENABLE, "ops")
        await self.elapse(20.0)
        self.assertEqual((), (await self.store.expire("default", 30.0)).disabled)
        await self.elapse(20.0)
        self.assertEqual((A,), (await self.store.expire("default", 30.0)).disabled)

    async def test_without_heartbeat(self) -> None:
        """A server that was added without heartbeats is never expired."""
        await self.store.add("default", order(heartbeat=False), "ops")
        await self.elapse(1000.0)
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)
        self.assertTrue((await self.only()).enabled)

    # Counts.

    async def test_counts(self) -> None:
        """What is published is the sum of what the nodes hold."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 3}, full=True)
        answer = await self.tell("two", {A: 4}, full=True)
        self.assertEqual({A: 7}, answer.totals)
        self.assertEqual(7, (await self.only()).connections)
        await self.tell("one", {A: 1})
        self.assertEqual(5, (await self.only()).connections)
        await self.tell("two", {A: 0})
        self.assertEqual(1, (await self.only()).connections)

    async def test_changes_since(self) -> None:
        """An answer holds what changed since the last one, falls to 0 included."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("default", order(B), "ops")
        first = await self.tell("one", {A: 3, B: 1}, full=True)
        self.assertTrue(first.complete)
        quiet = await self.tell("one", {}, seen=first.seq)
        self.assertEqual(({}, False), (quiet.totals, quiet.complete))
        self.assertEqual(first.seq, quiet.seq)
        await self.tell("two", {B: 1}, full=True)
        second = await self.tell("one", {A: 0}, seen=first.seq)
        self.assertEqual({A: 0, B: 2}, second.totals)
        self.assertGreater(second.seq, first.seq)
        self.assertEqual({}, (await self.tell("one", {}, seen=second.seq)).totals)

    async def test_hear_all(self) -> None:
        """C{seen=0} is answered with all totals, and says that these are all."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("default", order(B), "ops")
        await self.tell("one", {A: 3}, full=True)
        answer = await self.tell("two", {}, full=True)
        self.assertEqual({A: 3, B: 0}, answer.totals)
        self.assertTrue(answer.complete)

    async def test_seen_from_elsewhere(self) -> None:
        """A C{seen} that this store never gave is answered with all totals."""
        await self.store.add("default", order(), "ops")
        answer = await self.tell("one", {A: 2}, full=True, seen=10_000)
        self.assertEqual((True, {A: 2}), (answer.complete, answer.totals))

    async def test_full_report_forgets(self) -> None:
        """A full report replaces what the node said before."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("default", order(B), "ops")
        first = await self.tell("one", {A: 3, B: 2}, full=True)
        answer = await self.tell("one", {B: 5}, full=True, seen=first.seq)
        self.assertEqual({A: 0, B: 5}, answer.totals)

    async def test_repeated_report(self) -> None:
        """A report that is sent again because its answer was lost counts once."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 3}, full=True)
        await self.tell("one", {A: 2})
        await self.tell("one", {A: 2})
        self.assertEqual(2, (await self.only()).connections)

    async def test_several_upstreams(self) -> None:
        """One sync serves all upstreams of a node."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("api", order(B), "ops")
        answers = await self.store.sync(
            "one",
            10.0,
            {"default": Report(held={A: 1}, full=True), "api": Report(held={B: 2}, full=True)},
        )
        self.assertEqual({A: 1}, answers["default"].totals)
        self.assertEqual({B: 2}, answers["api"].totals)
        self.assertEqual((1, 1), (answers["default"].revision, answers["api"].revision))

    async def test_new_node(self) -> None:
        """A new node that does not tell all is asked for it, and nothing is applied."""
        await self.store.add("default", order(), "ops")
        answer = await self.tell("one", {A: 3})
        self.assertTrue(answer.lapsed)
        self.assertEqual({A: 0}, answer.totals)
        answer = await self.tell("one", {A: 3}, full=True)
        self.assertFalse(answer.lapsed)
        self.assertEqual({A: 3}, answer.totals)

    async def test_dead_node(self) -> None:
        """A node that falls silent gives its counts back when its lease ends."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 3}, full=True)
        await self.tell("two", {A: 4}, full=True)
        await self.elapse(6.0)
        answer = await self.tell("two", {})
        self.assertEqual({A: 7}, answer.totals)
        await self.elapse(6.0)
        answer = await self.tell("two", {}, seen=answer.seq)
        self.assertEqual({A: 4}, answer.totals)
        self.assertEqual(4, (await self.only()).connections)

    async def test_paused_node(self) -> None:
        """A node that wakes after its lease enters again with its absolute numbers."""
        await self.store.add("default", order(), "ops")
        first = await self.tell("one", {A: 3}, full=True)
        await self._without("one")
        woken = await self.tell("one", {A: 2}, seen=first.seq)
        self.assertTrue(woken.lapsed)
        self.assertEqual({A: 0}, woken.totals)
        answer = await self.tell("one", {A: 2}, full=True, seen=woken.seq)
        self.assertEqual((False, {A: 2}), (answer.lapsed, answer.totals))

    async def test_leave(self) -> None:
        """A node that leaves gives back all that it holds."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 3}, full=True)
        two = await self.tell("two", {A: 4}, full=True)
        await self.store.leave("one", ["default", "api"])
        self.assertEqual({A: 4}, (await self.tell("two", {}, seen=two.seq)).totals)
        self.assertTrue((await self.tell("one", {})).lapsed)
        await self.store.leave("nobody", ["default"])
        self.assertEqual(4, (await self.only()).connections)

    async def test_late_decrement(self) -> None:
        """The last connections of a removed server end without a trace of it."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 2}, full=True)
        await self.store.remove("default", A, "ops")
        answer = await self.tell("one", {A: 1})
        self.assertEqual(1, answer.totals[A])
        answer = await self.tell("one", {A: 0}, seen=answer.seq)
        self.assertEqual({A: 0}, answer.totals)
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        await self.store.add("default", order(), "ops")
        self.assertEqual(0, (await self.only()).connections)

    async def test_added_again(self) -> None:
        """A server that is removed and added again has what the nodes still hold."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 2}, full=True)
        await self.tell("two", {A: 3}, full=True)
        await self.store.remove("default", A, "ops")
        await self.tell("two", {A: 1})
        again = await self.store.add("default", order(), "ops")
        self.assertEqual(3, again.connections)
        await self.tell("one", {A: 0})
        await self.tell("two", {A: 0})
        self.assertEqual(0, (await self.only()).connections)

    # Grants.

    async def wish(
        self, node: str, number: int, *wishes: Wish, seen: int = 0, upstream: str = "default"
    ) -> Granted:
        return await self.store.grant(upstream, node, number, seen, wishes)

    async def test_grant(self) -> None:
        """A node gets what there is room for, over all nodes, and it is counted at once."""
        await self.store.add("default", order(max_conns=5), "ops")
        await self.tell("one", {A: 1}, full=True, number=1)
        await self.tell("two", {}, full=True, number=1)
        first = await self.wish("one", 2, Wish(address=A, count=2))
        self.assertEqual(((2,), {A: 3}, 0, 2), (
            first.counts, first.totals, first.seq, first.last
        ))
        second = await self.wish("two", 2, Wish(address=A, count=3))
        self.assertEqual(((2,), {A: 5}, True), (second.counts, second.totals, second.complete))
        self.assertEqual((0,), (await self.wish("two", 3, Wish(address=A))).counts)
        self.assertEqual(5, (await self.only()).connections)

    async def test_refused_hears_the_news(self) -> None:
        """Whoever is refused hears of all that changed, to choose better."""
        await self.store.add("default", order(A, max_conns=1), "ops")
        await self.store.add("default", order(B, max_conns=1), "ops")
        await self.tell("two", {A: 1}, full=True)
        one = await self.tell("one", {}, full=True)
        await self.tell("two", {A: 1, B: 1}, full=True)
        answer = await self.wish("one", 1, Wish(address=A), seen=one.seq)
        self.assertEqual(((0,), {B: 1}, False), (
            answer.counts, answer.totals, answer.complete
        ))
        self.assertEqual({}, (await self.tell("one", {}, seen=answer.seq)).totals)

    async def test_grant_limits(self) -> None:
        """The limit is the server's, or the one that is told; 0 is none."""
        await self.store.add("default", order(A, max_conns=0), "ops")
        await self.tell("one", {}, full=True)
        answer = await self.wish(
            "one", 1, Wish(address=A, count=5000), Wish(address=B, count=3, limit=2)
        )
        self.assertEqual((5000, 2), answer.counts)
        self.assertEqual({A: 5000, B: 2}, answer.totals)
        answer = await self.wish("one", 2, Wish(address=B, count=3, limit=0))
        self.assertEqual(((3,), {B: 5}), (answer.counts, answer.totals))

    async def test_grant_by_state(self) -> None:
        """A server that is out, or gone, gets nothing unless its state does not matter."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {}, full=True)
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        self.assertEqual((0,), (await self.wish("one", 1, Wish(address=A))).counts)
        self.assertEqual((1,), (await self.wish("one", 2, Wish(address=A, anyhow=True))).counts)
        await self.store.remove("default", A, "ops")
        self.assertEqual((0,), (await self.wish("one", 3, Wish(address=A, anyhow=True))).counts)

    async def test_report_meets_grant(self) -> None:
        """A report that does not have a grant yet leaves it counted, whichever comes first."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 1}, full=True, number=1)
        await self.wish("one", 2, Wish(address=A, count=2))
        await self.tell("one", {A: 1}, full=True, number=3, settled=1)
        self.assertEqual(3, (await self.only()).connections)
        await self.tell("one", {A: 0}, number=4, settled=1)
        self.assertEqual(2, (await self.only()).connections)
        await self.tell("one", {}, number=5, settled=2)
        self.assertEqual(2, (await self.only()).connections)
        await self.tell("one", {A: 1}, number=6, settled=2)
        self.assertEqual(1, (await self.only()).connections)

    async def test_given_up(self) -> None:
        """A grant whose answer was lost is given back by the next full report."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 1}, full=True, number=1)
        await self.wish("one", 2, Wish(address=A, count=2), Wish(address=B, count=2, limit=9))
        answer = await self.tell("one", {A: 1}, full=True, number=3, settled=2)
        self.assertEqual({A: 1, B: 0}, answer.totals)

    async def test_hungry(self) -> None:
        """All nodes hear how often one of them went short, and how many they are."""
        one = await self.tell("one", {}, full=True)
        self.assertEqual((0, 1), (one.hungry, one.nodes))
        await self.tell("two", {}, full=True, hungry=True)
        await self.tell("two", {}, hungry=True, number=2)
        await self.tell("two", {}, hungry=True, number=1)
        one = await self.tell("one", {})
        self.assertEqual((2, 2), (one.hungry, one.nodes))
        await self.elapse(11.0)
        self.assertEqual(1, (await self.tell("three", {}, full=True)).nodes)

    async def test_late_calls(self) -> None:
        """What was overtaken by a later call of its node changes nothing."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 1}, full=True, number=5)
        late = await self.tell("one", {A: 9}, full=True, number=4)
        self.assertEqual((True, 5, {A: 1}), (late.late, late.last, late.totals))
        answer = await self.wish("one", 5, Wish(address=A))
        self.assertEqual((True, 5, ()), (answer.late, answer.last, answer.counts))
        self.assertEqual(1, (await self.only()).connections)

    async def test_grant_without_lease(self) -> None:
        """Who is not counted as live, or no longer, gets nothing and is told so."""
        await self.store.add("default", order(), "ops")
        self.assertTrue((await self.wish("one", 1, Wish(address=A))).lapsed)
        await self.tell("one", {}, full=True, number=2)
        await self.wish("one", 3, Wish(address=A))
        await self._without("one")
        self.assertTrue((await self.wish("one", 4, Wish(address=A))).lapsed)
        await self.tell("two", {}, full=True)
        self.assertEqual(0, (await self.only()).connections)

    async def test_leave_with_grants(self) -> None:
        """A node that leaves gives back its grants, too; nothing remembers them."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 1}, full=True, number=7)
        await self.wish("one", 8, Wish(address=A, count=2))
        await self.store.leave("one", ["default"])
        self.assertEqual(0, (await self.only()).connections)
        again = await self.tell("one", {A: 1}, full=True, number=1)
        self.assertEqual(({A: 1}, False), (again.totals, again.late))

    async def test_other_addresses(self) -> None:
        """Addresses of a node's configuration file are counted over all nodes too."""
        one = await self.tell("one", {B: 2}, full=True)
        await self.tell("two", {B: 3}, full=True)
        self.assertEqual({B: 5}, (await self.tell("one", {}, seen=one.seq)).totals)
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        await self.store.leave("two", ["default"])
        self.assertEqual({B: 2}, (await self.tell("one", {}, seen=one.seq)).totals)

    async def test_recount(self) -> None:
        """A recount answers the number of servers and takes dead nodes out."""
        await self.store.add("default", order(A), "ops")
        await self.store.add("default", order(B), "ops")
        await self.tell("one", {A: 3}, full=True)
        self.assertEqual(2, await self.store.recount("default"))
        self.assertEqual([3, 0], await self._connections())
        await self.elapse(6.0)
        await self.tell("two", {}, full=True)
        await self.elapse(6.0)
        self.assertEqual(2, await self.store.recount("default"))
        self.assertEqual([0, 0], await self._connections())

    async def _connections(self) -> list[int]:
        return [server.connections for server in (await self.store.snapshot("default")).servers]

    async def test_many_addresses(self) -> None:
        """Addresses that come and go are forgotten, and nobody hears a wrong total for it."""
        await self.store.add("default", order(), "ops")
        first = await self.tell("one", {A: 1}, full=True)
        crowd = {f"10.1.{n // 250}.{n % 250}:80": 1 for n in range(2500)}
        await self.tell("one", crowd)
        await self.tell("one", dict.fromkeys(crowd, 0))
        answer = await self.tell("one", {}, seen=first.seq)
        self.assertTrue(answer.complete)
        self.assertEqual({A: 1}, {key: n for key, n in answer.totals.items() if n})
        self.assertTrue(len(answer.totals) < 1100)

    # Gaps.

    async def test_gap(self) -> None:
        """Nobody is expired for a time in which no node was in contact."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {}, full=True)
        await self.elapse(5.0)
        await self.tell("one", {})
        await self.elapse(3600.0)
        await self.tell("one", {})
        self.assertEqual((), (await self.store.expire("default", 30.0)).disabled)
        record = await self.only()
        now = (await self.store.snapshot("default")).now
        self.assertApproximates(5.0, now - (record.last_heartbeat or 0.0), 2.0)
        for _ in range(4):
            await self.elapse(9.0)
            await self.tell("one", {})
        self.assertEqual((A,), (await self.store.expire("default", 30.0)).disabled)

    async def test_gap_seen_by_expiry(self) -> None:
        """An expiry round that comes before the first sync after a gap spares all too."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {}, full=True)
        await self.elapse(3600.0)
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)
        await self.tell("one", {})
        now = (await self.store.snapshot("default")).now
        self.assertApproximates(now, (await self.only()).last_heartbeat, 2.0)

    async def test_gap_after_leave(self) -> None:
        """The time between the last node's leave and the next node is a gap."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {}, full=True)
        await self.store.leave("one", ["default"])
        await self.elapse(3600.0)
        await self.tell("two", {}, full=True)
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)

    async def test_beat_within_gap(self) -> None:
        """A heartbeat is never moved into the future."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {}, full=True)
        await self.elapse(3600.0)
        await self.store.beat("default", A, True)
        await self.tell("one", {})
        now = (await self.store.snapshot("default")).now
        self.assertApproximates(now, (await self.only()).last_heartbeat, 2.0)

    async def test_first_contact(self) -> None:
        """The first node ever finds servers as alive as they were at their last beat."""
        await self.store.add("default", order(A), "ops")
        await self.elapse(20.0)
        await self.store.add("default", order(B), "ops")
        await self.elapse(3600.0)
        await self.tell("one", {}, full=True)
        expiry = await self.store.expire("default", 10.0)
        self.assertEqual((A,), expiry.disabled)

    # The clock.

    async def _with_two(self) -> None:
        """Two nodes with two and three connections to one server."""
        await self.store.add("default", order(A), "ops")
        await self.tell("one", {A: 2}, full=True)
        await self.tell("two", {A: 3}, full=True)

    async def test_clock_goes_on(self) -> None:
        """
        A clock that is set to an hour later ends no lease and expires nobody: a node
        that knows of no gap has not been away.
        """
        await self._with_two()
        await self.elapse(3600.0)
        answer = await self.tell("one", {})
        self.assertEqual((False, 2, {A: 5}), (answer.lapsed, answer.nodes, answer.totals))
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)
        # What there was to live goes on.
        await self.elapse(6.0)
        await self.tell("one", {})
        await self.elapse(6.0)
        self.assertEqual({A: 2}, (await self.tell("one", {})).totals)

    async def test_clock_goes_back(self) -> None:
        """
        With one that is set back by an hour, who dies is found dead as soon as ever:
        nodes, servers and those who check them.
        """
        await self._with_two()
        await self.store.claim_checks("default", "two", [A], 6.0)
        await self.elapse(-3600.0)
        await self.tell("one", {})
        now = (await self.store.snapshot("default")).now
        self.assertApproximates(now, (await self.only()).last_heartbeat, 2.0)
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "one", [A], 6.0))
        for _ in range(4):
            await self.elapse(8.0)
            answer = await self.tell("one", {})
        self.assertEqual({A: 2}, answer.totals)
        self.assertEqual((A,), (await self.store.expire("default", 30.0)).disabled)
        self.assertEqual({A}, await self.store.claim_checks("default", "one", [A], 6.0))

    async def test_clock_and_beats(self) -> None:
        """What comes before the first exchange by the new time is of the new time."""
        await self._with_two()
        for step in (-3600.0, 3600.0):
            await self.elapse(step)
            await self.store.beat("default", A, True)
            await self.store.add("default", order(B), "ops")
            await self.tell("one", {})
            now = (await self.store.snapshot("default")).now
            for record in (await self.store.snapshot("default")).servers:
                self.assertApproximates(now, record.last_heartbeat, 2.0)
            await self.store.remove("default", B, "ops")

    async def test_clock_after_outage(self) -> None:
        """A gap that nodes know of is none of the clock's: who does not come back is out."""
        await self._with_two()
        await self.elapse(3600.0)
        self.assertEqual({A: 2}, (await self.tell("one", {A: 2}, full=True)).totals)

    async def test_clock_seen_otherwise(self) -> None:
        """Whichever call sees the new time first, nobody loses what it holds."""
        for step in (3600.0, -3600.0):
            calls = (
                lambda: self.wish("one", 7, Wish(address=A)),
                lambda: self.store.recount("default"),
                lambda: self.store.expire("default", 30.0),
                lambda: self.store.leave("three", ["default"]),
            )
            for call in calls:
                await self.store.leave("one", ["default"])
                await self.store.leave("two", ["default"])
                await self.store.add("default", order(A), "ops")
                await self.tell("one", {A: 2}, full=True, number=1)
                await self.tell("two", {A: 3}, full=True)
                await self.elapse(step)
                await call()
                answer = await self.tell("two", {})
                self.assertEqual((False, 2), (answer.lapsed, answer.nodes))
                self.assertGreater(answer.totals[A], 4)
                await self.elapse(8.0)
                await self.tell("two", {})
                await self.elapse(8.0)
                self.assertEqual({A: 3}, (await self.tell("two", {})).totals)
                await self.store.remove("default", A, "ops")

    async def test_clock_and_drains(self) -> None:
        """A drain lasts as long as it was ordered to, wherever the clock goes."""
        for step in (3600.0, -3600.0):
            await self.drain(Then.REMOVE, 60.0)
            await self.elapse(step)
            await self.tell("one", {})
            self.assertEqual((), await self.store.finish_drains("default", 3.0))
            record, now = await self.only(), (await self.store.snapshot("default")).now
            self.assertApproximates(now + 60.0, record.drain_deadline, 2.0)
            self.assertApproximates(now, record.disabled_at, 2.0)
            await self.elapse(5.0)
            await self.tell("one", {A: 0})
            self.assertEqual(1, len(await self.store.finish_drains("default", 3.0)))

    # Health checks.

    async def test_one_prober(self) -> None:
        """Whoever claims a check first has it, as long as it goes on claiming."""
        both = frozenset({A, B})
        self.assertEqual(both, await self.store.claim_checks("default", "one", [A, B], 6.0))
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "two", [A, B], 6.0))
        await self.elapse(4)
        self.assertEqual({A}, await self.store.claim_checks("default", "one", [A], 6.0))
        await self.elapse(4)
        self.assertEqual({B}, await self.store.claim_checks("default", "two", [A, B], 6.0))
        self.assertEqual({A}, await self.store.claim_checks("default", "one", [A, B], 6.0))
        self.assertEqual(both, await self.store.claim_checks("other", "two", [A, B], 6.0))

    async def test_give_up_checks(self) -> None:
        """A node gives up what it has, and only that."""
        await self.store.claim_checks("default", "one", [A], 60.0)
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "two", [A], 0.0))
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "two", [A], 60.0))
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "one", [A], 0.0))
        self.assertEqual({A}, await self.store.claim_checks("default", "two", [A], 60.0))
        self.assertEqual(frozenset(), await self.store.claim_checks("default", "two", [], 60.0))

    async def test_conclude(self) -> None:
        """A conclusion is there for all, with its cause; each change is a revision."""
        await self.store.add("default", order(), "ops")
        await self.store.claim_checks("default", "one", [A], 60.0)
        before = await self.store.snapshot("default")
        self.assertEqual({}, before.unhealthy)
        for _ in range(2):
            self.assertTrue(await self.store.conclude_check("default", "one", A, 'st\u00e4tus "5"'))
            after = await self.store.snapshot("default")
            self.assertEqual({A: 'st\u00e4tus "5"'}, after.unhealthy)
            self.assertEqual(before.revision + 1, after.revision)
            self.assertEqual(before.servers, after.servers)
        for _ in range(2):
            self.assertTrue(await self.store.conclude_check("default", "one", A, ""))
            after = await self.store.snapshot("default")
            self.assertEqual(({}, before.revision + 2), (after.unhealthy, after.revision))

    async def test_conclude_without_claim(self) -> None:
        """Who has no claim concludes nothing: it was late, or is not asked."""
        self.assertFalse(await self.store.conclude_check("default", "one", A, "gone"))
        await self.store.claim_checks("default", "one", [A], 6.0)
        self.assertFalse(await self.store.conclude_check("default", "two", A, "gone"))
        await self.elapse(10)
        await self.store.claim_checks("default", "two", [A], 6.0)
        self.assertFalse(await self.store.conclude_check("default", "one", A, "gone"))
        snapshot = await self.store.snapshot("default")
        self.assertEqual(({}, 0), (snapshot.unhealthy, snapshot.revision))

    async def test_check_without_server(self) -> None:
        """The servers of a configuration file are checked like those of the store."""
        await self.store.claim_checks("default", "one", [A], 6.0)
        self.assertTrue(await self.store.conclude_check("default", "one", A, "gone"))
        snapshot = await self.store.snapshot("default")
        self.assertEqual((1, {A: "gone"}, ()), (
            snapshot.revision, snapshot.unhealthy, snapshot.servers
        ))

    async def test_remove_forgets_checks(self) -> None:
        """A server that is added again begins anew: well, and with anybody's check."""
        await self.store.add("default", order(), "ops")
        await self.store.claim_checks("default", "one", [A], 60.0)
        await self.store.conclude_check("default", "one", A, "gone")
        await self.store.remove("default", A, "ops")
        self.assertFalse(await self.store.conclude_check("default", "one", A, "gone"))
        await self.store.add("default", order(), "ops")
        self.assertEqual({}, (await self.store.snapshot("default")).unhealthy)
        self.assertEqual({A}, await self.store.claim_checks("default", "two", [A], 6.0))

    # Draining.

    async def drain(self, then: Then, seconds: float = 0.0) -> ServerRecord:
        """A server with two connections, that is to be drained."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 2}, full=True)
        drain = Drain(seconds=seconds, then=then)
        return await self.store.set_intent("default", A, Intent.DRAIN, "ops", drain)

    async def test_drain(self) -> None:
        """A draining server says since when, until when, and what comes then."""
        drained = await self.drain(Then.REMOVE, 60.0)
        self.assertEqual((Intent.DRAIN, False), (drained.intent, drained.enabled))
        self.assertEqual(("draining", Then.REMOVE), (drained.disabled_reason, drained.drain_then))
        assert drained.disabled_at is not None
        self.assertApproximates(drained.disabled_at + 60.0, drained.drain_deadline, 0.01)
        self.assertEqual(drained, await self.only())
        await self.store.beat("default", A, True)
        self.assertIs(Intent.DRAIN, (await self.only()).intent)

    async def test_drain_undone(self) -> None:
        """Any other order is the end of a drain."""
        await self.drain(Then.REMOVE, 60.0)
        for intent in (Intent.ENABLE, Intent.DISABLE):
            drain = Drain(seconds=60.0, then=Then.REMOVE)
            await self.store.set_intent("default", A, Intent.DRAIN, "ops", drain)
            record = await self.store.set_intent("default", A, intent, "ops")
            self.assertEqual((intent, None, Then.STAY), (
                record.intent, record.drain_deadline, record.drain_then
            ))
            await self.elapse(61.0)
            self.assertEqual((), await self.store.finish_drains("default", 0.0))

    async def test_drain_ends_with_the_connections(self) -> None:
        """A drain is over when nothing runs any more, and once only."""
        await self.drain(Then.DISABLE)
        self.assertEqual((), await self.store.finish_drains("default", 0.0))
        before = await self.revision()
        await self.tell("one", {A: 0})
        over = Drained(address=A, then=Then.DISABLE)
        self.assertEqual((over,), await self.store.finish_drains("default", 0.0))
        self.assertEqual((), await self.store.finish_drains("default", 0.0))
        record = await self.only()
        self.assertEqual((Intent.DISABLE, "manual"), (record.intent, record.disabled_reason))
        self.assertEqual((None, Then.STAY), (record.drain_deadline, record.drain_then))
        self.assertEqual(before + 1, await self.revision())

    async def test_drain_removes(self) -> None:
        """A drain may end with the removal; what still ran goes on being counted."""
        await self.drain(Then.REMOVE, 5.0)
        await self.elapse(6.0)
        self.assertEqual(
            (Drained(address=A, then=Then.REMOVE, left=2),),
            await self.store.finish_drains("default", 0.0),
        )
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        self.assertEqual({A: 2}, (await self.tell("two", {}, full=True)).totals)

    async def test_drain_settles(self) -> None:
        """Without its time being up a drain lasts until the other nodes can have told."""
        await self.drain(Then.REMOVE)
        await self.tell("one", {A: 0})
        self.assertEqual((), await self.store.finish_drains("default", 3.0))
        await self.elapse(4.0)
        await self.tell("one", {A: 0}, full=True)
        self.assertEqual(1, len(await self.store.finish_drains("default", 3.0)))

    async def test_drain_without_end(self) -> None:
        """A drain that nothing follows goes on until somebody ends it."""
        await self.drain(Then.STAY)
        await self.tell("one", {A: 0})
        self.assertEqual((), await self.store.finish_drains("default", 0.0))
        self.assertIs(Intent.DRAIN, (await self.only()).intent)

    async def test_slow_start(self) -> None:
        """How slowly a server starts is part of its order."""
        added = await self.store.add("default", order(slow_start=2.5), "ops")
        self.assertEqual(2.5, added.order.slow_start)
        self.assertEqual(added, await self.only())


def _cause(record: ServerRecord) -> tuple[Intent, bool, str | None]:
    return record.intent, record.expired, record.disabled_reason
