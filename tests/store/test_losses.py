"""
Property tests of losses: random interleavings of orders, losses of any kind and
nodes that come late, on the scripts in a real server.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.upstream import Upstream
from dynbalance.store import codec, scripts, serverjson
from dynbalance.store.contract import Snapshot
from dynbalance.store.keys import upstream_keys
from dynbalance.store.reading import Reading
from dynbalance.store.reports import Report
from dynbalance.store.view import View
from tests.store.contract_suite import order
from tests.store.real import Client, Server

NODES = ("one", "two", "three")
ADDRESSES = tuple(f"10.0.0.{n}:80" for n in range(1, 5))

node = st.sampled_from(NODES)
address = st.sampled_from(ADDRESSES)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("look"), node),
        st.tuples(st.just("add"), node, address, st.integers(1, 9)),
        st.tuples(st.just("add"), node, address, st.integers(1, 9)),
        st.tuples(st.just("disable"), node, address),
        st.tuples(st.just("remove"), node, address),
        st.tuples(st.just("flush")),
        st.tuples(st.just("save")),
        st.tuples(st.just("back")),
        st.tuples(st.just("restart"), node),
    ),
    min_size=1,
    max_size=40,
)

Content = Mapping[str, tuple[int, str]]


class _World:
    """
    A store, and nodes that look at it when they get to it, as L{Membership
    <dynbalance.store.membership.Membership>} does.

    @ivar truth: what has to be there when every node has looked.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scripts = scripts.load()
        self._keys = upstream_keys("{x}", "default")
        self._saved: dict[bytes, bytes] = {}
        self._saved_line: list[str] = []
        self._knew: set[str] = set()
        self.truth: dict[str, tuple[int, str]] = {}
        self.views = {name: self._view() for name in NODES}
        client("FLUSHALL")

    def _view(self) -> View:
        return View(Upstream("default", "least_conn", (), lambda: 0.0, lambda: 0.0), False)

    def _run(self, name: str, args: list[str]) -> codec.Reply:
        text = self._scripts[name].text
        return self._client("EVAL", text, len(self._keys), *self._keys, *args)

    def _snapshot(self) -> Snapshot:
        reading = Reading()
        for _ in reading.pieces(self._run("snapshot", [])):
            pass
        assert not reading.broken
        return reading.snapshot

    def content(self) -> dict[str, tuple[int, str]]:
        return {
            record.order.address: (record.order.weight, record.intent.value)
            for record in self._snapshot().servers
        }

    def look(self, name: str) -> None:
        keys, args = codec.sync_call("{x}", name, 10.0, {"default": Report(held={}, full=True)})
        self._client("EVAL", self._scripts["sync"].text, len(keys), *keys, *args)
        view, snapshot = self.views[name], self._snapshot()
        lost = view.lost_by(snapshot)
        if lost is not None:
            self._run("restore", codec.restore_args(lost, name))
            snapshot = self._snapshot()
        view.apply(snapshot)
        self._knew.discard(name)

    def _order(self, name: str, script: str, address: str, args: list[str]) -> None:
        # No node gives an order before it has looked, or without a look after it.
        self.look(name)
        if self._run(script, args) is not None:
            now = self.content()
            self.truth.pop(address, None)
            if address in now:
                self.truth[address] = now[address]
        self.look(name)

    def add(self, name: str, address: str, weight: int) -> None:
        text = serverjson.order_text(order(address, weight=weight))
        self._order(name, "add", address, [address, text, "test", ""])

    def disable(self, name: str, address: str) -> None:
        self._order(name, "intent", address, [address, "disable", "test", "0", "", ""])

    def remove(self, name: str, address: str) -> None:
        self._order(name, "remove", address, [address, "test", ""])

    def _current(self) -> list[str]:
        """Who knows what the store has."""
        now = self._snapshot()
        return [
            name
            for name, view in self.views.items()
            if view.snapshot is not None
            and (view.snapshot.era, view.snapshot.revision) == (now.era, now.revision)
        ]

    def _lose(self) -> list[str]:
        """@return: who knows what was lost; if nobody would, nothing is."""
        if not self._current():
            return []
        # Who is of another line, of a store that was emptied while nobody else was
        # there, adds what it knows whenever it comes; who knew all that was lost
        # before and did not look since, puts right what others gave back.
        now = self._line()
        for name, view in self.views.items():
            known = view.snapshot
            if known is not None and (known.era.split()[-1:] != now or name in self._knew):
                self.look(name)
        self.truth = self.content()
        current = self._current()
        self._knew = set(current)
        self._client("FLUSHALL")
        return current

    def _line(self) -> list[str]:
        return self._snapshot().era.split()[-1:]

    def flush(self) -> None:
        self._lose()

    def save(self) -> None:
        self._saved_line = self._line()
        self._saved = {key: self._client("DUMP", key) for key in self._client("KEYS", "*")}

    def back(self) -> None:
        """
        Who knew most looks first, and the line is the same: see the documentation.
        """
        if not self._saved or self._saved_line != self._line():
            return
        current = self._lose()
        if current:
            for key, value in self._saved.items():
                self._client("RESTORE", key, 0, value)
            self.look(current[0])

    def restart(self, name: str) -> None:
        """Without a snapshot it takes with it what it alone knows; so it looks before."""
        self.look(name)
        if set(self._current()) - {name}:
            self.views[name] = self._view()

    def sets(self) -> list[set[str]]:
        asked = (
            ("HKEYS", "{x}:servers:meta"),
            ("ZRANGE", "{x}:servers:zset", 0, -1),
            ("HKEYS", "{x}:heartbeat"),
        )
        return [{key.decode() for key in self._client(*words)} for words in asked]


class LossesTests(TestCase):
    """Whoever loses what, and whoever looks when."""

    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.end)
        self.client = Client(self.server.path)
        self.addCleanup(self.client.close)

    def test_nothing_is_lost(self) -> None:
        """
        What any node knew at the moment of a loss, and what was ordered since, is
        there when all have looked; all agree; no revision is ever used again.
        """

        @settings(
            max_examples=60, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(steps, st.permutations(NODES))
        def check(story: list[tuple[str, ...]], last: list[str]) -> None:
            world = _World(self.client)
            for name, *args in story:
                getattr(world, name)(*args)
            highest = max(v.snapshot.revision if v.snapshot else 0 for v in world.views.values())
            for name in (*last, *last):
                world.look(name)
            self.assertEqual(world.truth, world.content())
            self.assertEqual([set(world.truth)] * 3, world.sets())
            known = {(v.snapshot.era, v.snapshot.revision) for v in world.views.values()}
            self.assertEqual(1, len(known))
            self.assertGreaterEqual(known.pop()[1], highest)

        check()
