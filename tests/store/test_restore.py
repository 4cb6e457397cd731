"""
Tests for a store that lost what the nodes know, and for keys that somebody
changed by hand.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve

from dynbalance.store.contract import Drain, Intent, ServerRecord, Snapshot, Then
from dynbalance.store.reports import Mended, Report, SyncAnswer
from tests.store.contract_suite import A, B, order
from tests.store.real import age
from tests.store.stored import StoredCase

C = "10.0.0.3:80"

META, ZSET, BEAT = "upstream:servers:meta", "upstream:servers:zset", "upstream:heartbeat"


class _Stored(StoredCase):
    """A store with A and B."""

    async def setUp(self) -> None:
        await super().setUp()
        for address in (A, B):
            await self.store.add("default", order(address), "ops")
        await self.tell("one", {}, full=True)

    async def tell(self, node: str, held: dict[str, int], **more: Any) -> SyncAnswer:
        reports = {"default": Report(held=held, **more)}
        return (await self.store.sync(node, 10.0, reports))["default"]

    async def known(self) -> Snapshot:
        return await self.store.snapshot("default")

    async def servers(self) -> dict[str, ServerRecord]:
        return {record.order.address: record for record in (await self.known()).servers}

    async def give(self, snapshot: Snapshot, by: str = "one") -> int | None:
        return await self.store.restore("default", snapshot, by)

    def lines(self) -> list[dict[str, str]]:
        entries = [fields for _, fields in self.client("XRANGE", "upstream:history", "-", "+")]
        return [
            {k.decode(): v.decode() for k, v in zip(e[::2], e[1::2], strict=True)} for e in entries
        ]

    def sets(self) -> list[set[str]]:
        """The addresses in each of the three keys."""
        asked = (("HKEYS", META), ("ZRANGE", ZSET, 0, -1), ("HKEYS", BEAT))
        return [{address.decode() for address in self.client(*words)} for words in asked]


class LossTests(_Stored):
    """A store that was emptied, or is again as it was."""

    async def test_emptied(self) -> None:
        """Everything is given back as it was, with heartbeats from now on."""
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        drain = Drain(seconds=60.0, then=Then.REMOVE)
        await self.store.set_intent("default", B, Intent.DRAIN, "ops", drain)
        wanted = order(C, weight=3, max_conns=0, heartbeat=False, backup=True, fail_timeout=2.5)
        await self.store.add("default", wanted, "ops")
        await self.store.claim_checks("default", "one", [C], 10.0)
        await self.store.conclude_check("default", "one", C, "status 500")
        age(self.client, 20.0)
        await self.store.expire("default", 10.0)
        before = await self.known()
        self.client("FLUSHALL")
        self.assertEqual(3, await self.give(before))
        after = await self.known()
        self.assertEqual(before.revision + 1, after.revision)
        self.assertNotEqual(before.era, after.era)
        self.assertEqual(before.unhealthy, after.unhealthy)
        for old, new in zip(before.servers, after.servers, strict=True):
            self.assertApproximates(after.now, new.last_heartbeat, 2.0)
            self.assertEqual(evolve(old, last_heartbeat=new.last_heartbeat), new)
        self.assertEqual(({A, B, C},) * 3, tuple(self.sets()))

    async def test_expired(self) -> None:
        """A server that is out for its heartbeats remains out until the next one."""
        age(self.client, 20.0)
        self.client("HSET", "upstream:sync", "contact", f"{(await self.known()).now:.3f}")
        await self.store.expire("default", 10.0)
        before = await self.known()
        self.assertEqual([True, True], [record.expired for record in before.servers])
        self.client("FLUSHALL")
        await self.give(before)
        self.assertTrue((await self.servers())[A].expired)
        self.assertTrue((await self.store.beat("default", A, True)).enabled)

    async def test_history(self) -> None:
        """The history says who gave back."""
        before = await self.known()
        self.client("FLUSHALL")
        await self.give(before, "node 1")
        (line,) = self.lines()
        self.assertEqual(("node%201", "restore"), (line["by"], line["action"]))
        self.assertEqual(str(before.revision + 1), line["revision"])

    async def test_once(self) -> None:
        """Of several nodes that know the same one gives back; the others see that."""
        before = await self.known()
        self.client("FLUSHALL")
        self.assertEqual(2, await self.give(before))
        await self.store.remove("default", A, "ops")
        self.assertIsNone(await self.give(before, "two"))
        self.assertEqual({B}, set(await self.servers()))
        # And a node that slept through it all.
        self.assertIsNone(await self.give(evolve(before, revision=before.revision - 1), "three"))

    async def test_clock_set_back(self) -> None:
        """
        Where a restoration follows what it gives back it is the later one, though
        the clock was set back in between: nobody takes it for an earlier state.
        """
        before = await self.known()
        began, node, root = before.era.split(" ")
        before = evolve(before, era=f"{float(began) + 3600:.6f} {node} {root}")
        self.client("FLUSHALL")
        self.assertEqual(2, await self.give(before))
        await self.store.remove("default", A, "ops")
        self.assertIsNone(await self.give(before, "two"))
        self.assertEqual({B}, set(await self.servers()))

    async def test_nothing_lost(self) -> None:
        """A store that knows as much or more is left alone."""
        before = await self.known()
        self.assertIsNone(await self.give(before))
        await self.store.remove("default", A, "ops")
        self.assertIsNone(await self.give(before))
        self.assertEqual({B}, set(await self.servers()))

    async def test_changed_since(self) -> None:
        """What was changed between the loss and the return holds."""
        before = await self.known()
        self.client("FLUSHALL")
        await self.store.add("default", order(A, weight=7), "agent")
        await self.store.add("default", order(C), "agent")
        await self.store.remove("default", C, "ops")
        answer = await self.tell("one", {}, full=True)
        self.assertNotEqual(before.era, answer.era)
        self.assertEqual(1, await self.give(before))
        servers = await self.servers()
        self.assertEqual({A, B}, set(servers))
        self.assertEqual(7, servers[A].order.weight)

    async def test_newer_view(self) -> None:
        """
        After a node that knew less, one that knew more corrects it, but for what
        was changed since.
        """
        old = await self.known()
        await self.store.remove("default", A, "ops")
        await self.store.add("default", order(C), "ops")
        await self.store.set_intent("default", B, Intent.DISABLE, "ops")
        new = await self.known()
        self.client("FLUSHALL")
        self.assertEqual(2, await self.give(old, "late"))
        await self.store.set_intent("default", B, Intent.ENABLE, "ops")
        self.assertEqual(1, await self.give(new, "early"))
        servers = await self.servers()
        self.assertEqual({B, C}, set(servers))
        self.assertTrue(servers[B].enabled)
        self.assertGreater((await self.known()).revision, new.revision)
        self.assertIsNone(await self.give(old, "late"))

    async def test_revisions_of_others(self) -> None:
        """
        A node that has seen higher revisions in an era before the one that was given
        back changes nothing; but none of them will ever mean anything else.
        """
        old = await self.known()
        high = evolve(old, revision=old.revision + 9)
        self.client("FLUSHALL")
        await self.give(old, "late")
        low = await self.known()
        self.client("FLUSHALL")
        await self.give(low, "late")
        self.assertLess((await self.known()).revision, high.revision)
        self.assertIsNone(await self.give(high, "early"))
        self.assertEqual({A, B}, set(await self.servers()))
        revision = (await self.known()).revision
        self.assertGreater(revision, high.revision)
        self.assertIsNone(await self.give(high, "early"))
        self.assertEqual(revision, (await self.known()).revision)

    async def test_as_it_was(self) -> None:
        """A store that came back without its last changes is told them."""
        saved = {key: self.client("DUMP", key) for key in self.client("KEYS", "*")}
        await self.store.remove("default", A, "ops")
        await self.store.add("default", order(C), "ops")
        new = await self.known()
        self.client("FLUSHALL")
        for key, value in saved.items():
            self.client("RESTORE", key, 0, value)
        self.assertEqual(2, await self.give(new))
        self.assertEqual({B, C}, set(await self.servers()))
        self.assertGreater((await self.known()).revision, new.revision)

    async def test_revision_deleted(self) -> None:
        """Whoever deletes the revision has deleted nothing else."""
        before = await self.known()
        self.client("DEL", "upstream:revision")
        self.assertEqual(2, await self.give(before))
        self.assertEqual({A, B}, set(await self.servers()))
        self.assertGreater((await self.known()).revision, before.revision)

    async def test_another_deployment(self) -> None:
        """A view that is not of the same line takes nothing away, and is heard once."""
        before = await self.known()
        self.client("FLUSHALL")
        await self.give(before)
        for began in (1.5, before.now + 1e6):
            stranger = Snapshot(revision=99, now=1.0, era=f"{began:.6f} x {began:.6f}/x")
            self.assertEqual(0, await self.give(stranger))
            self.assertIsNone(await self.give(stranger))
        self.assertEqual({A, B}, set(await self.servers()))

    async def test_counts(self) -> None:
        """What the nodes hold is counted before and after the servers are back."""
        before = await self.known()
        self.client("FLUSHALL")
        await self.tell("one", {A: 2, C: 1}, full=True)
        await self.give(before)
        self.assertEqual({A: "2", B: "0"}, self.client.pairs("ZRANGE", ZSET, 0, -1, "WITHSCORES"))
        totals = (await self.tell("two", {A: 1}, full=True)).totals
        self.assertEqual({A: 3, B: 0, C: 1}, dict(totals))

    async def test_upstreams_apart(self) -> None:
        """The loss of one upstream is no loss of another."""
        await self.store.add("api", order(C), "ops")
        reports = {name: Report(held={}, full=True) for name in ("default", "api")}
        before = await self.store.sync("one", 10.0, reports)
        self.client("DEL", *(k for k in self.client("KEYS", "*") if b":api:" not in k))
        after = await self.store.sync("one", 10.0, reports)
        self.assertEqual(before["api"].era, after["api"].era)
        self.assertNotEqual(before["default"].era, after["default"].era)


class HandTests(_Stored):
    """Keys that somebody changed by hand."""

    async def mended(self) -> dict[str, Mended]:
        """What the next exchange makes of it; the one after that finds nothing."""
        before = await self.known()
        first = await self.tell("one", {})
        self.assertGreater(first.revision, before.revision)
        self.assertEqual(before.era, first.era)
        second = await self.tell("one", {})
        self.assertEqual((first.revision, {}), (second.revision, dict(second.mended)))
        here = set(await self.servers())
        self.assertEqual([here] * 3, self.sets())
        return dict(first.mended)

    async def test_untouched(self) -> None:
        """Changes by the calls are none by hand."""
        self.assertEqual({}, (await self.tell("one", {A: 1})).mended)
        await self.store.add("default", order(C), "ops")
        await self.store.beat("default", A, True)
        self.assertEqual({}, (await self.tell("one", {A: 0})).mended)
        for address in (A, B, C):
            await self.store.remove("default", address, "ops")
        self.assertEqual({}, (await self.tell("one", {})).mended)
        self.assertEqual([set()] * 3, self.sets())

    async def test_meta_deleted(self) -> None:
        """Without its meta a server is none, whatever else there is of it."""
        await self.tell("one", {A: 2})
        self.client("HDEL", META, A)
        self.assertEqual({A: Mended.REMOVED}, await self.mended())
        self.assertEqual(("by hand", "remove", A), _said(self.lines()[-1]))
        running = self.client.pairs("ZRANGE", "upstream:file:zset", 0, -1, "WITHSCORES")
        self.assertEqual({A: "2"}, running)

    async def test_all_metas_deleted(self) -> None:
        """Likewise with all of them."""
        self.client("DEL", META)
        self.assertEqual({A: Mended.REMOVED, B: Mended.REMOVED}, await self.mended())
        self.assertEqual({}, await self.servers())

    async def test_meta_and_count_deleted(self) -> None:
        """A heartbeat alone is no server."""
        self.client("HDEL", META, A)
        self.client("ZREM", ZSET, A)
        self.assertEqual({A: Mended.REMOVED}, await self.mended())

    async def test_count_deleted(self) -> None:
        """A server without a count gets what is held to it."""
        await self.tell("one", {A: 2})
        self.client("ZREM", ZSET, A)
        self.assertEqual({A: Mended.COMPLETED}, await self.mended())
        self.assertEqual(b"2", self.client("ZSCORE", ZSET, A))
        self.assertEqual(("by hand", "repair", A), _said(self.lines()[-1]))

    async def test_heartbeat_deleted(self) -> None:
        """A server without a heartbeat has one from now."""
        self.client("DEL", BEAT)
        self.assertEqual({A: Mended.COMPLETED, B: Mended.COMPLETED}, await self.mended())
        known = await self.known()
        self.assertApproximates(known.now, known.servers[0].last_heartbeat, 2.0)

    async def test_one_for_another(self) -> None:
        """As many as before, but not the same ones."""
        self.client("HDEL", META, A)
        self.client("ZREM", ZSET, B)
        self.client("HDEL", BEAT, B)
        self.assertEqual({A: Mended.REMOVED, B: Mended.COMPLETED}, await self.mended())

    async def test_server_written(self) -> None:
        """A meta alone makes a server."""
        self.client("HSET", META, C, json.dumps({"weight": 2}))
        self.assertEqual({C: Mended.COMPLETED}, await self.mended())
        self.assertEqual(2, (await self.servers())[C].order.weight)

    async def test_whole_server(self) -> None:
        """A server that is deleted, or written, in all three keys is noticed as well."""
        for words in (("HDEL", META, A), ("ZREM", ZSET, A), ("HDEL", BEAT, A)):
            self.client(*words)
        self.assertEqual({"": Mended.CHANGED}, await self.mended())
        self.assertEqual(("by hand", "repair", ""), _said(self.lines()[-1]))

    async def test_whole_servers_all(self) -> None:
        """All of them likewise; that is an order, and no loss."""
        self.client("DEL", META, ZSET, BEAT)
        self.assertEqual({"": Mended.CHANGED}, await self.mended())


def _said(line: dict[str, str]) -> tuple[str, str, str]:
    return line["by"], line["action"], line["address"]
