"""
Property tests of the counts: random interleavings of what nodes do, on the
scripts in a real server and on their twin in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Protocol, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynbalance.errors import ServerExists, ServerNotFound
from dynbalance.store import codec, ledger, scripts, serverjson
from dynbalance.store.keys import upstream_keys
from dynbalance.store.memory import MemoryStore
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish
from tests.store.contract_suite import order
from tests.store.real import Client
from tests.store.stored import ServedCase

LEASE = 10.0
LIMIT = 4
NODES = ("one", "two", "three")
ADDRESSES = tuple(f"10.0.0.{n}:80" for n in range(1, 4))

node = st.sampled_from(NODES)
address = st.sampled_from(ADDRESSES)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), node, address, st.integers(0, 3)),
        st.tuples(st.just("hold"), node, address, st.integers(0, 3)),
        st.tuples(st.just("sync"), node, st.booleans()),
        st.tuples(st.just("sync"), node, st.booleans()),
        st.tuples(st.just("unheard"), node),
        st.tuples(st.just("lapse"), node),
        st.tuples(st.just("leave"), node),
        st.tuples(st.just("add"), address),
        st.tuples(st.just("remove"), address),
        st.tuples(st.just("recount")),
        st.tuples(st.just("ask"), node, address, st.integers(1, 3)),
        st.tuples(st.just("ask"), node, address, st.integers(1, 3)),
        st.tuples(st.just("get"), node),
        st.tuples(st.just("get"), node),
        st.tuples(st.just("lose"), node),
        st.tuples(st.just("late"), node, st.integers(0, 99)),
        st.tuples(st.just("flush")),
    ),
    # Hypothesis makes short lists of its own accord; a lease needs a longer story.
    min_size=30,
    max_size=80,
)


class Counts(Protocol):
    """The store, as far as it counts one upstream."""

    def sync(self, node: str, report: Report) -> SyncAnswer: ...
    def lapse(self, node: str) -> None: ...
    def leave(self, node: str) -> None: ...
    def add(self, address: str) -> None: ...
    def remove(self, address: str) -> None: ...
    def recount(self) -> None: ...
    def grant(self, node: str, number: int, seen: int, wish: Wish) -> Granted: ...
    def flush(self) -> None: ...
    def published(self) -> tuple[dict[str, int], dict[str, int]]: ...


class ScriptCounts:
    """The scripts in a server, which remember little so that they have to forget."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys = upstream_keys("{x}", "default")
        self._text = {name: script.text for name, script in scripts.load().items()}
        small = self._text["sync"].replace("REMEMBERED = 1000", "REMEMBERED = 1")
        assert small != self._text["sync"]
        self._text["sync"] = small
        client("FLUSHALL")

    def _run(self, name: str, keys: list[str] | tuple[str, ...], args: list[str]) -> codec.Reply:
        return self._client("EVAL", self._text[name], len(keys), *keys, *args)

    def sync(self, node: str, report: Report) -> SyncAnswer:
        keys, args = codec.sync_call("{x}", node, LEASE, {"default": report})
        return codec.sync_answers(["default"], self._run("sync", keys, args))["default"]

    def lapse(self, node: str) -> None:
        self._client("ZADD", "{x}:nodes", "XX", 1, node)

    def leave(self, node: str) -> None:
        self._run("leave", *codec.leave_call("{x}", node, ["default"]))

    def add(self, address: str) -> None:
        text = serverjson.order_text(order(address, max_conns=LIMIT))
        self._run("add", self._keys, [address, text, "test"])

    def remove(self, address: str) -> None:
        self._run("remove", self._keys, [address, "test"])

    def recount(self) -> None:
        self._run("recount", self._keys, [])

    def grant(self, node: str, number: int, seen: int, wish: Wish) -> Granted:
        keys, args = codec.grant_call("{x}", "default", node, number, seen, [wish])
        return codec.granted(self._run("grant", keys, args))

    def flush(self) -> None:
        self._client("FLUSHALL")

    def published(self) -> tuple[dict[str, int], dict[str, int]]:
        zset = self._client.pairs("ZRANGE", "{x}:servers:zset", 0, -1, "WITHSCORES")
        other = self._client.pairs("ZRANGE", "{x}:file:zset", 0, -1, "WITHSCORES")
        return _ints(zset), _ints(other)


T = TypeVar("T")


def _now(deferred: Deferred[T]) -> T:
    """What is there already."""
    results: list[T] = []
    deferred.addCallback(results.append)
    return results[0]


def _ints(scores: dict[str, str]) -> dict[str, int]:
    return {address: int(score) for address, score in scores.items()}


class MemoryCounts:
    """The store in memory."""

    def __init__(self) -> None:
        self._clock = Clock()
        self.flush()

    def sync(self, node: str, report: Report) -> SyncAnswer:
        return _now(self._store.sync(node, LEASE, {"default": report}))["default"]

    def lapse(self, node: str) -> None:
        # There is no way to let a lease end for one node alone.
        self._store.roster("default").ledger._leases[node] = 1.0

    def leave(self, node: str) -> None:
        _now(self._store.leave(node, ["default"]))

    def add(self, address: str) -> None:
        added = self._store.add("default", order(address, max_conns=LIMIT), "test")
        added.addErrback(lambda failure: failure.trap(ServerExists) and None)

    def remove(self, address: str) -> None:
        removed = self._store.remove("default", address, "test")
        removed.addErrback(lambda failure: failure.trap(ServerNotFound) and None)

    def recount(self) -> None:
        _now(self._store.recount("default"))

    def grant(self, node: str, number: int, seen: int, wish: Wish) -> Granted:
        return _now(self._store.grant("default", node, number, seen, [wish]))

    def flush(self) -> None:
        self._store = MemoryStore(self._clock)
        self._clock.advance(100.0)

    def published(self) -> tuple[dict[str, int], dict[str, int]]:
        servers = _now(self._store.snapshot("default")).servers
        known = {record.order.address: record.connections for record in servers}
        totals = self._store.roster("default").ledger.totals
        return known, {a: count for a, count in totals.items() if a not in known}


class Node:
    """
    One balancer node: what it holds, what it told, what it heard.

    @ivar told: what the store has from it, as far as it knows.
    @ivar asked: the number of a grant whose answer is on its way; 0 for none.
    @ivar sent: its syncs so far, as they may arrive again.
    """

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.number = 0
        self.sent: list[Report] = []
        self.restart()

    def restart(self) -> None:
        self.told: Counter[str] = Counter()
        self.view: dict[str, int] = {}
        self.seen = 0
        self.full = True
        self.asked = 0
        self.answer = Granted()
        self.wish = Wish(address="")

    def next(self) -> int:
        self.number += 1
        return self.number

    def report(self, full: bool) -> Report:
        full = full or self.full
        if full:
            held = dict(+self.held)
        else:
            news = {*self.held, *self.told}
            held = {a: self.held[a] for a in news if self.held[a] != self.told[a]}
        number = self.next()
        report = Report(
            held=held,
            full=full,
            # Who tells all hears all: the store may be another one.
            seen=0 if full else self.seen,
            number=number,
            settled=self.asked - 1 if self.asked else number,
        )
        self.sent.append(report)
        return report

    def hear(self, answer: SyncAnswer) -> None:
        self.full = answer.lapsed
        if answer.lapsed:
            self.seen = 0
            return
        self.told = Counter(self.held)
        if answer.complete:
            self.view = {}
        self.view.update(answer.totals)
        self.seen = answer.seq


class World:
    """What has happened, by the book; compared with the store after each step."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.nodes = {name: Node() for name in NODES}
        self.live: dict[str, Counter[str]] = {}
        self.open: dict[str, dict[int, Counter[str]]] = {}
        self.over: set[str] = set()
        self.servers: set[str] = set()

    def hold(self, name: str, address: str, count: int) -> None:
        self.nodes[name].held[address] = count

    def sync(self, name: str, full: bool, *, heard: bool = True) -> None:
        node = self.nodes[name]
        report = node.report(full)
        self._reap()
        expected_lapse = name not in self.live and not report.full
        answer = self.counts.sync(name, report)
        assert (answer.lapsed, answer.late) == (expected_lapse, False)
        if not expected_lapse:
            self._take(name, report)
        if not heard:
            # It knows nothing of how it went, so it tells all again.
            self.lose(name)
            node.full = True
            return
        node.hear(answer)
        if not answer.lapsed:
            assert +Counter(node.view) == self.sums(), (node.view, self.sums())

    def _take(self, name: str, report: Report) -> None:
        grants = self.open.setdefault(name, {})
        for number in [number for number in grants if number <= report.settled]:
            del grants[number]
        still: Counter[str] = Counter()
        for each in grants.values():
            still.update(each)
        before = Counter() if report.full else self.live[name]
        told = Counter(still if report.full else {})
        told.update({a: n + (0 if report.full else still[a]) for a, n in report.held.items()})
        self.live[name] = Counter({**before, **told})

    def unheard(self, name: str) -> None:
        self.sync(name, False, heard=False)

    def ask(self, name: str, address: str, count: int) -> None:
        """The store grants something; that is on its way."""
        node = self.nodes[name]
        self.get(name)
        wish = Wish(address=address, count=count)
        number = node.next()
        answer = self.counts.grant(name, number, node.seen, wish)
        if name not in self.live or name in self.over:
            assert answer.lapsed, answer
            node.full = True
            return
        assert not (answer.lapsed or answer.late)
        room = max(0, LIMIT - self.sums()[address]) if address in self.servers else 0
        assert answer.counts == (min(count, room),), (answer, room)
        if answer.counts[0]:
            granted = Counter({address: answer.counts[0]})
            self.open.setdefault(name, {})[number] = granted
            self.live[name].update(granted)
        assert answer.totals.get(address, 0) == self.sums()[address] or not answer.complete
        node.asked, node.answer, node.wish = number, answer, wish

    def get(self, name: str) -> None:
        """The answer arrives."""
        node = self.nodes[name]
        if node.asked:
            [count] = node.answer.counts
            node.held[node.wish.address] += count
            node.told[node.wish.address] += count
            node.asked = 0

    def lose(self, name: str) -> None:
        """The answer never arrives."""
        node = self.nodes[name]
        if node.asked:
            node.asked, node.full = 0, True

    def late(self, name: str, which: int) -> None:
        """A sync arrives again, or only now."""
        node = self.nodes[name]
        if name not in self.live or name in self.over or not node.sent:
            return
        answer = self.counts.sync(name, node.sent[which % len(node.sent)])
        assert answer.late, answer
        self._reap()

    def flush(self) -> None:
        """Somebody empties the store."""
        self.counts.flush()
        self.live.clear()
        self.open.clear()
        self.over.clear()
        self.servers.clear()

    def lapse(self, name: str) -> None:
        if name in self.live:
            self.over.add(name)
            self.counts.lapse(name)

    def leave(self, name: str) -> None:
        self.counts.leave(name)
        self._drop(name)
        self.over.discard(name)
        self.nodes[name].restart()

    def add(self, address: str) -> None:
        self.counts.add(address)
        self.servers.add(address)

    def remove(self, address: str) -> None:
        self.counts.remove(address)
        self.servers.discard(address)

    def recount(self) -> None:
        self.counts.recount()
        self._reap()

    def _reap(self) -> None:
        for name in self.over:
            self._drop(name)
        self.over.clear()

    def _drop(self, name: str) -> None:
        self.live.pop(name, None)
        self.open.pop(name, None)

    def sums(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for held in self.live.values():
            total.update(held)
        return +total

    def check(self) -> None:
        known, others = self.counts.published()
        sums = self.sums()
        assert known == {a: sums[a] for a in self.servers}, (known, sums)
        assert others == {a: n for a, n in sums.items() if a not in self.servers}, (others, sums)


def play(counts: Counts, story: list[tuple[object, ...]]) -> None:
    """Do what the story says, and look after each step."""
    world = World(counts)
    for name, *args in story:
        getattr(world, str(name))(*args)
        world.check()


class CountsTests(ServedCase):
    """The published counts are the sums of what the live nodes hold, always."""

    def test_scripts(self) -> None:
        """On a real server, under any interleaving of nodes and operators."""
        client = Client(self.server.path)
        self.addCleanup(client.close)

        @settings(
            max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(steps)
        def run(story: list[tuple[object, ...]]) -> None:
            play(ScriptCounts(client), story)

        run()

    def test_memory(self) -> None:
        """In memory likewise."""
        self.patch(ledger, "REMEMBERED", 1)

        @settings(max_examples=150, deadline=None, database=None)
        @given(steps)
        def run(story: list[tuple[object, ...]]) -> None:
            play(MemoryCounts(), story)

        run()

    def test_sha(self) -> None:
        """A script is called by the name that the server gives it."""
        client = Client(self.server.path)
        self.addCleanup(client.close)
        for script in scripts.load().values():
            self.assertEqual(script.sha, client("SCRIPT", "LOAD", script.text).decode())
            self.assertEqual(script.sha, hashlib.sha1(script.text.encode()).hexdigest())
