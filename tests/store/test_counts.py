"""
Property tests of the counts: random interleavings of what nodes do, on the
scripts in a real server and on their twin in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Protocol

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.store import codec, ledger, scripts
from dynbalance.store.contract import Report, SyncAnswer
from dynbalance.store.keys import upstream_keys
from tests.store.contract_suite import order
from tests.store.real import Client, Server

LEASE = 10.0
NODES = ("one", "two", "three")
ADDRESSES = tuple(f"10.0.0.{n}:80" for n in range(1, 6))

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
        self._run("add", self._keys, [address, codec.order_text(order(address)), "test"])

    def remove(self, address: str) -> None:
        self._run("remove", self._keys, [address, "test"])

    def recount(self) -> None:
        self._run("recount", self._keys, [])

    def published(self) -> tuple[dict[str, int], dict[str, int]]:
        zset = self._client.pairs("ZRANGE", "{x}:servers:zset", 0, -1, "WITHSCORES")
        other = self._client.pairs("ZRANGE", "{x}:file:zset", 0, -1, "WITHSCORES")
        return _ints(zset), _ints(other)


def _ints(scores: dict[str, str]) -> dict[str, int]:
    return {address: int(score) for address, score in scores.items()}


class LedgerCounts:
    """The twin in memory."""

    def __init__(self) -> None:
        self._ledger = ledger.Ledger()
        self._servers: set[str] = set()
        self._now = 100.0
        self._lapsed: set[str] = set()

    def sync(self, node: str, report: Report) -> SyncAnswer:
        for lapsed in self._lapsed:
            self._ledger.drop(lapsed)
        self._lapsed.clear()
        lapsed = not report.full and not self._ledger.live(node)
        if not lapsed:
            self._ledger.apply(node, report, self._now + LEASE)
        complete, totals = self._ledger.changes(report.seen, self._servers)
        return SyncAnswer(
            revision=0, seq=self._ledger.seq, totals=totals, complete=complete, lapsed=lapsed
        )

    def lapse(self, node: str) -> None:
        self._lapsed.add(node)

    def leave(self, node: str) -> None:
        self._lapsed.discard(node)
        self._ledger.drop(node)

    def add(self, address: str) -> None:
        self._servers.add(address)

    def remove(self, address: str) -> None:
        self._servers.discard(address)

    def recount(self) -> None:
        for lapsed in self._lapsed:
            self._ledger.drop(lapsed)
        self._lapsed.clear()

    def published(self) -> tuple[dict[str, int], dict[str, int]]:
        totals = self._ledger.totals
        known = {address: totals.get(address, 0) for address in self._servers}
        return known, {a: count for a, count in totals.items() if a not in self._servers}


class Node:
    """One balancer node: what it holds, what it told, what it heard."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        self.told: dict[str, int] = {}
        self.view: dict[str, int] = {}
        self.seen = 0
        self.full = True

    def report(self, full: bool) -> Report:
        full = full or self.full
        if full:
            held = {a: count for a, count in self.held.items() if count}
        else:
            news = {*self.held, *self.told}
            held = {a: self.held[a] for a in news if self.held[a] != self.told.get(a, 0)}
        return Report(held=held, full=full, seen=self.seen)

    def hear(self, answer: SyncAnswer) -> None:
        if answer.complete:
            self.view = {}
        self.view.update(answer.totals)
        self.seen = answer.seq
        self.full = answer.lapsed
        self.told = {} if answer.lapsed else dict(self.held)


class World:
    """What has happened, by the book; compared with the store after each step."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.nodes = {name: Node() for name in NODES}
        self.live: dict[str, dict[str, int]] = {}
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
        assert answer.lapsed is expected_lapse
        if not expected_lapse:
            before = {} if report.full else self.live[name]
            self.live[name] = {**before, **report.held}
        if heard:
            node.hear(answer)
            assert +Counter(node.view) == self.sums(), (node.view, self.sums())
        else:
            # It knows nothing of how it went, so it tells all again.
            node.full = True

    def unheard(self, name: str) -> None:
        self.sync(name, False, heard=False)

    def lapse(self, name: str) -> None:
        if name in self.live:
            self.over.add(name)
            self.counts.lapse(name)

    def leave(self, name: str) -> None:
        self.counts.leave(name)
        self.live.pop(name, None)
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
            self.live.pop(name, None)
        self.over.clear()

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


class CountsTests(TestCase):
    """The published counts are the sums of what the live nodes hold, always."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.end()

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

    def test_ledger(self) -> None:
        """In memory likewise."""
        self.patch(ledger, "REMEMBERED", 1)

        @settings(max_examples=150, deadline=None, database=None)
        @given(steps)
        def run(story: list[tuple[object, ...]]) -> None:
            play(LedgerCounts(), story)

        run()

    def test_sha(self) -> None:
        """A script is called by the name that the server gives it."""
        client = Client(self.server.path)
        self.addCleanup(client.close)
        for script in scripts.load().values():
            self.assertEqual(script.sha, client("SCRIPT", "LOAD", script.text).decode())
            self.assertEqual(script.sha, hashlib.sha1(script.text.encode()).hexdigest())
