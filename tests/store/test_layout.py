"""
Tests for what the Redis store writes and reads, seen by another program: the
seed's deployments, people with redis-cli, and accidents.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.logger import globalLogPublisher

from dynbalance.errors import ServerNotFound
from dynbalance.store.changes import Change, Edit, Update
from dynbalance.store.contract import Intent, ServerRecord
from dynbalance.store.endpoints import unix_endpoint
from dynbalance.store.redis import RedisStore
from dynbalance.store.reports import Report, SyncAnswer
from tests.store.contract_suite import A, B, order
from tests.store.stored import StoredCase

clock: Any = reactor

META, ZSET, BEAT = "upstream:servers:meta", "upstream:servers:zset", "upstream:heartbeat"


class _Stored(StoredCase):
    """What is in the keys."""

    def now(self) -> float:
        seconds, micros = self.client("TIME")
        return int(seconds) + int(micros) / 1e6

    def put(self, address: str, meta: str, count: int = 0, age: float = 0.0) -> None:
        """As the seed stores a server."""
        self.client("HSET", META, address, meta)
        self.client("ZADD", ZSET, count, address)
        self.client("HSET", BEAT, address, f"{self.now() - age:.3f}")

    def meta(self, address: str = A) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.client("HGET", META, address))
        return fields

    async def only(self) -> ServerRecord:
        (record,) = (await self.store.snapshot("default")).servers
        return record

    async def tell(self, node: str, held: dict[str, int], **more: Any) -> SyncAnswer:
        reports = {"default": Report(held=held, **more)}
        return (await self.store.sync(node, 10.0, reports))["default"]


class SeedTests(_Stored):
    """A deployment of the seed carries over."""

    PLAIN = (
        '{"host":"10.0.0.1","port":80,"weight":2,"max_conns":2000,"enabled":true,'
        '"created_at":1700000000.123,"last_heartbeat":1700000000}'
    )

    async def test_enabled(self) -> None:
        """A server as the seed stored it serves, with defaults for what is ours."""
        self.put(A, self.PLAIN, count=7)
        record = await self.only()
        self.assertEqual(order(A, weight=2, max_conns=2000), record.order)
        self.assertEqual((Intent.ENABLE, False), (record.intent, record.expired))
        self.assertEqual(1700000000.123, record.created_at)

    async def test_expired(self) -> None:
        """What the seed's cleanup took out comes back with its next heartbeat."""
        self.put(
            A,
            '{"host":"10.0.0.1","port":80,"enabled":false,"disabled_at":1700000000,'
            '"disabled_reason":"heartbeat_timeout"}',
        )
        record = await self.only()
        self.assertEqual((Intent.ENABLE, True), (record.intent, record.expired))
        self.assertTrue((await self.store.beat("default", A, True)).enabled)
        self.assertNotIn("disabled_reason", self.meta())
        self.assertNotIn("disabled_at", self.meta())

    async def test_toggled(self) -> None:
        """What a person disabled with the seed stays disabled."""
        self.put(A, '{"host":"10.0.0.1","port":80,"enabled":false,"updated_at":1700000000}')
        self.assertIs(Intent.DISABLE, (await self.only()).intent)
        self.assertFalse((await self.store.beat("default", A, True)).enabled)

    async def test_leaked_counts(self) -> None:
        """Counts that the seed leaked are gone with the first node's first report."""
        self.put(A, self.PLAIN, count=41)
        self.put(B, self.PLAIN.replace("0.1", "0.2"), count=-1)
        answer = await self.tell("one", {A: 2}, full=True)
        self.assertEqual({A: 2, B: 0}, answer.totals)
        self.assertEqual(2, (await self.store.snapshot("default")).servers[0].connections)

    async def test_ghost(self) -> None:
        """A count without a server is no server, is added like a new one, and is swept."""
        self.client("ZADD", ZSET, -1, A, 3, B)
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        await self.assertFailure(self.store.beat("default", A, True), ServerNotFound)
        self.assertEqual(0, (await self.store.add("default", order(), "ops")).connections)
        await self.tell("one", {}, full=True)
        self.assertEqual({A: "0"}, self.client.pairs("ZRANGE", ZSET, 0, -1, "WITHSCORES"))

    async def test_written_by_the_seed_later(self) -> None:
        """A switch that a program without our fields throws is believed."""
        await self.store.add("default", order(), "ops")
        for enabled in (False, True):
            fields = {**self.meta(), "enabled": enabled}
            self.client("HSET", META, A, json.dumps(fields))
            record = await self.only()
            self.assertEqual(enabled, record.enabled)
            self.assertEqual(enabled, record.intent is Intent.ENABLE)
            beaten = await self.store.beat("default", A, True)
            self.assertEqual(enabled, beaten.enabled)

    async def test_fields(self) -> None:
        """The seed's fields are there for its programs, with their types."""
        await self.store.add("default", order(weight=3, max_conns=5), "ops")
        fields = self.meta()
        self.assertEqual(
            ("10.0.0.1", 80, 3, 5, True),
            tuple(fields[n] for n in ("host", "port", "weight", "max_conns", "enabled")),
        )
        self.assertIsInstance(fields["created_at"], float)
        self.assertEqual(fields["created_at"], fields["last_heartbeat"])
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        fields = self.meta()
        self.assertEqual((False, "manual"), (fields["enabled"], fields["disabled_reason"]))
        self.assertEqual(fields["updated_at"], fields["disabled_at"])
        await self.store.set_intent("default", A, Intent.ENABLE, "ops")
        self.assertEqual(set(), {"disabled_at", "disabled_reason"} & set(self.meta()))


class TextTests(_Stored):
    """The JSON text of a server."""

    async def test_unknown_fields(self) -> None:
        """What is not ours survives every change to the letter."""
        odd = (
            '"list":[],"none":{},"null":null,"big":12345678901234567890,"long":0.12345678901234567,'
            '"text":"a \\"q\\", {[ \\\\","deep":{"a":[{"b":"]}"},[]]},"\\u00fc":"\\/"'
        )
        text = '{ "host" : "10.0.0.1" , "port":80,' + odd + ',\n "enabled" : true }'
        self.put(A, text)
        await self.store.set_intent("default", A, Intent.DISABLE, "ops")
        await self.store.set_intent("default", A, Intent.ENABLE, "ops")
        await self.store.beat("default", A, True)
        self.client("HSET", BEAT, A, 1)
        await self.store.expire("default", 30.0)
        await self.store.beat("default", A, True)
        stored = self.client("HGET", META, A).decode()
        self.assertIn(odd, stored)
        ours = {"host": "10.0.0.1", "port": 80, "enabled": True, "intent": "enable"}
        self.assertEqual(ours, {name: self.meta()[name] for name in ours})

    async def test_broken(self) -> None:
        """A field that is no server is left out and logged once; the others are there."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        await self.store.add("default", order(B), "ops")
        texts = ["{", "", "[]", "7", "null", '{"port":"x"}', "{} {}", "[" * 5000]
        texts += [f'{{"weight":{"9" * digits}}}' for digits in (400, 5000)]
        for number, text in enumerate(texts):
            self.put(f"10.0.1.{number}:80", text, age=100.0)
        self.put("no address", "{}")
        for _ in range(2):
            self.assertEqual(B, (await self.only()).order.address)
        logged = [event["address"] for event in events if "address" in event]
        self.assertEqual(len(texts) + 1, len(logged))
        await self.store.expire("default", 30.0)
        await self.tell("one", {B: 1}, full=True)
        await self.assertFailure(self.store.beat("default", "10.0.1.0:80", True), ServerNotFound)
        await self.store.add("default", order("10.0.1.0:80"), "ops")
        await self.store.remove("default", "10.0.1.1:80", "ops")
        self.assertEqual(2, len((await self.store.snapshot("default")).servers))

    async def test_odd_values(self) -> None:
        """Numbers in quotes, lists for names and other oddities are read as well as can be."""
        self.put(A, '{"host":[],"weight":"3","max_conns":5.0,"created_at":"x","enabled":null}')
        self.client("HSET", BEAT, A, "soon")
        self.client("ZADD", ZSET, "+inf", A)
        record = await self.only()
        self.assertEqual(order(weight=3, max_conns=5), record.order)
        self.assertEqual(
            (None, None, 0, True),
            (
                record.created_at,
                record.last_heartbeat,
                record.connections,
                record.enabled,
            ),
        )

    async def test_long_numbers(self) -> None:
        """A time that no float can hold is none."""
        self.put(A, f'{{"created_at":{"9" * 400}}}')
        self.assertIsNone((await self.only()).created_at)

    async def test_weight_zero(self) -> None:
        """The seed used no weights, so that a weight of 0 served."""
        self.put(A, '{"host":"10.0.0.1","port":80,"weight":0,"enabled":true}')
        self.assertEqual(1, (await self.only()).order.weight)

    async def test_never_beaten(self) -> None:
        """A server without a heartbeat is given the time to send its first."""
        self.put(A, '{"host":"10.0.0.1","port":80,"enabled":true}')
        self.client("HDEL", BEAT, A)
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)
        self.assertAlmostEqual(self.now(), (await self.only()).last_heartbeat or 0.0, places=-1)


class HandTests(_Stored):
    """People and accidents."""

    async def test_flushed(self) -> None:
        """After a FLUSHALL the nodes are asked for all, and hear that all is gone."""
        await self.store.add("default", order(), "ops")
        first = await self.tell("one", {A: 2}, full=True)
        self.client("FLUSHALL")
        answer = await self.tell("one", {}, seen=first.seq)
        self.assertEqual(
            (True, True, {}, 0),
            (
                answer.lapsed,
                answer.complete,
                dict(answer.totals),
                answer.revision,
            ),
        )
        answer = await self.tell("one", {A: 2}, full=True, seen=answer.seq)
        self.assertEqual({A: 2}, answer.totals)

    async def test_deleted_member(self) -> None:
        """A count that somebody deleted comes back as the sum, never as a difference."""
        await self.store.add("default", order(), "ops")
        await self.tell("one", {A: 5, B: 5}, full=True)
        await self.tell("two", {A: 2, B: 2}, full=True)
        self.client("DEL", ZSET, "upstream:file:zset")
        answer = await self.tell("one", {A: 4, B: 4})
        self.assertEqual({A: 6, B: 6}, answer.totals)

    async def test_recount_mends(self) -> None:
        """A recount sets right what somebody wrote, and the nodes hear of it."""
        await self.store.add("default", order(), "ops")
        seen = (await self.tell("one", {A: 5, B: 1}, full=True)).seq
        self.client("ZADD", ZSET, 99, A, 4, "ghost:1")
        self.client("ZADD", "upstream:file:zset", 9, B, 9, "10.0.0.9:80")
        self.assertEqual(1, await self.store.recount("default"))
        self.assertEqual({A: "5"}, self.client.pairs("ZRANGE", ZSET, 0, -1, "WITHSCORES"))
        others = self.client.pairs("ZRANGE", "upstream:file:zset", 0, -1, "WITHSCORES")
        self.assertEqual({B: "1"}, others)
        heard = (await self.tell("one", {}, seen=seen)).totals
        self.assertEqual({A: 5, B: 1, "ghost:1": 0, "10.0.0.9:80": 0}, heard)

    async def test_history(self) -> None:
        """The audit trail has each change: when, who, what, before, after, revision."""
        await self.store.add("default", order(), "ann")
        await self.store.set_intent("default", A, Intent.DISABLE, "bob")
        await self.store.set_intent("default", A, Intent.ENABLE, "bob")
        await self.store.beat("default", A, True)
        self.client("HSET", BEAT, A, 1)
        await self.store.expire("default", 30.0)
        await self.store.beat("default", A, True)
        await self.store.remove("default", A, "ann")
        lines = []
        for _, flat in self.client("XRANGE", "upstream:history", "-", "+"):
            words = [word.decode() for word in flat]
            lines.append(dict(zip(words[::2], words[1::2], strict=True)))
        told = [(line["by"], line["action"], line["revision"]) for line in lines]
        self.assertEqual(
            [
                ("ann", "add", "1"),
                ("bob", "disable", "2"),
                ("bob", "enable", "3"),
                ("heartbeat", "expire", "4"),
                ("heartbeat", "return", "5"),
                ("ann", "remove", "6"),
            ],
            told,
        )
        self.assertEqual({A}, {line["address"] for line in lines})
        self.assertEqual(("", ""), (lines[0]["before"], lines[-1]["after"]))
        self.assertEqual(lines[1]["after"], lines[2]["before"])
        self.assertAlmostEqual(self.now(), float(lines[0]["at"]), places=-1)

    async def test_history_of_checks(self) -> None:
        """What health checks conclude is in the audit trail, with the cause and the node."""
        await self.store.claim_checks("default", "one", [A], 10.0)
        await self.store.conclude_check("default", "one", A, "status 500")
        await self.store.conclude_check("default", "one", A, "")
        entries = [fields for _, fields in self.client("XRANGE", "upstream:history", "-", "+")]
        lines = [
            {k.decode(): v.decode() for k, v in zip(e[::2], e[1::2], strict=True)} for e in entries
        ]
        self.assertEqual(["unhealthy", "healthy"], [line["action"] for line in lines])
        self.assertEqual({"health_check"}, {line["by"] for line in lines})
        found = json.loads(lines[0]["after"])
        self.assertEqual(("status 500", "one"), (found["cause"], found["node"]))
        self.assertAlmostEqual(self.now(), found["at"], places=-1)
        self.assertEqual(lines[0]["after"], lines[1]["before"])

    async def test_checks_written_by_hand(self) -> None:
        """Whoever writes an entry wants the server out; a claim that is none is free."""
        for text, cause in (("", "unhealthy"), ("[]", "unhealthy"), ('{"cause":"hm"}', "hm")):
            self.client("HSET", "upstream:unhealthy", A, text)
            self.assertEqual({A: cause}, (await self.store.snapshot("default")).unhealthy)
        self.client("HSET", "upstream:probers", A, "me")
        self.assertEqual({A}, await self.store.claim_checks("default", "one", [A], 10.0))

    async def test_forgotten_checks(self) -> None:
        """What nobody has claimed for an hour is no server of anybody."""
        await self.store.claim_checks("default", "one", [A, B], 10.0)
        await self.store.conclude_check("default", "one", A, "gone")
        for hours, left in ((0.9, {A.encode(), B.encode()}), (1.1, {B.encode()})):
            till = f"{self.now() - 3600 * hours:.3f} one"
            self.client("HSET", "upstream:probers", A, till)
            await self.store.claim_checks("default", "one", [B], 10.0)
            self.assertEqual(left, set(self.client("HKEYS", "upstream:probers")))
        self.assertEqual({}, (await self.store.snapshot("default")).unhealthy)

    async def test_history_is_bounded(self) -> None:
        """The audit trail keeps about the last ten thousand changes."""
        many = "for i = 1, 12000 do redis.call('XADD', KEYS[1], '*', 'revision', i) end"
        self.client("EVAL", many, 1, "upstream:history")
        await self.store.add("default", order(), "ops")
        self.assertLess(self.client("XLEN", "upstream:history"), 10_200)
        line = (await self.store.history("default", 2)).lines[-1]
        self.assertEqual((12000, "", ""), (line.revision, line.action, line.address))

    async def test_unknown_fields_through_changes(self) -> None:
        """What others wrote into a server keeps its text through updates and edits."""
        self.put(A, '{"host":"10.0.0.1","port":80,"weight":1,"zone":[],"n":12345678901234567890}')
        await self.store.update("default", A, Update(weight=2), "ops")
        edit = Edit(address=A, order=order(weight=3))
        await self.store.amend({"default": Change(edits=(edit,))}, "ops", "import")
        text = self.client("HGET", META, A)
        self.assertIn(b'"zone":[],"n":12345678901234567890', text)
        self.assertEqual(3, json.loads(text)["weight"])

    async def test_keys(self) -> None:
        """The keys are the documented ones, all in the slot of the prefix's hash tag."""
        for prefix, name, base in (
            ("{up}", "default", "{up}"),
            ("{up}", "a{b}:c d", "{up}:a%7Bb%7D%3Ac%20d"),
        ):
            self.client("FLUSHALL")
            store = RedisStore(unix_endpoint(reactor, self.server.path), clock, prefix=prefix)
            self.addCleanup(store.close)
            await store.open()
            await store.add(name, order(), "ops")
            await store.sync("n:1", 10.0, {name: Report(held={A: 1, B: 1}, full=True)})
            await store.claim_checks(name, "n:1", [A], 10.0)
            await store.conclude_check(name, "n:1", A, "status 500")
            keys = {key.decode() for key in self.client("KEYS", "*")}
            suffixes = "servers:zset servers:meta heartbeat revision nodes sync changed file:zset"
            suffixes += " unhealthy probers"
            self.assertEqual(
                {f"{base}:{s}" for s in [*suffixes.split(), "history", "node:n%3A1:conns"]}, keys
            )

    async def test_negative_hold(self) -> None:
        """A node that says it holds less than nothing is a mistake of ours."""
        with self.assertRaises(ValueError):
            await self.tell("one", {A: -1}, full=True)
