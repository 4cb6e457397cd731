"""Tests of the forecasts: they are what is then chosen, and they change nothing."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.explain import Decided, Explanation, explain
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.policies import POLICIES
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.contract import Intent
from tests.balancer.building import only, order, record, snapshot, taken, upstream

PLAIN = [name for name in Server.__slots__ if name not in ("policy", "flipped", "lane", "group")]

ACTIONS = st.lists(st.tuples(st.sampled_from("chfsr"), st.integers(0, 50)), max_size=40)
SERVERS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 4), st.booleans()), min_size=1, max_size=6
)


def state(made: Upstream) -> list[dict[str, Any]]:
    """All that is remembered of the servers."""
    return [{name: getattr(s, name, None) for name in PLAIN} for s in made.servers]


def chances(explanation: Explanation) -> dict[str, float | None]:
    return {outlook.server.address.host: outlook.chance for outlook in explanation.outlooks}


def reasons(explanation: Explanation) -> dict[str, str | None]:
    return {outlook.server.address.host: outlook.why_not for outlook in explanation.outlooks}


class Chance:
    """A random source that can tell whether it was used."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.draws = 0

    def __call__(self) -> float:
        self.draws += 1
        return self.random.random()


class AnyTests(SynchronousTestCase):
    """For every policy, whatever happened before."""

    @given(
        policy=st.sampled_from(sorted(POLICIES)),
        consistent=st.booleans(),
        servers=SERVERS,
        actions=ACTIONS,
        key=st.sampled_from([b"", b"a", b"192.0.2.7", b"2001:db8::1"]),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=300, deadline=None)
    def test_foreseen(
        self,
        policy: str,
        consistent: bool,
        servers: list[tuple[int, int, bool]],
        actions: list[tuple[str, int]],
        key: bytes,
        seed: int,
    ) -> None:
        """What is chosen had a chance; what was certain is chosen; nothing moves before."""
        clock, chance = Clock(), Chance(seed)
        options = UpstreamOptions(hash_consistent=consistent)
        made = Upstream("api", policy, (), clock.seconds, chance, options)
        made.apply(
            snapshot(
                *(
                    order(letter, weight, max_conns, backup)
                    for letter, (weight, max_conns, backup) in zip("abcdef", servers, strict=False)
                )
            )
        )
        held = []
        for action, number in actions:
            among = list(made.servers)
            server = among[number % len(among)]
            if action == "c" and (lease := made.choose((), key)) is not None:
                held.append(lease)
            elif action == "f":
                made.failed(server)
            elif action == "h" and made.wants_times:
                made.answered(server, number / 10, number % 7 == 0)
            elif action == "s":
                clock.advance(number / 10)
                made.tick()
            elif action == "r" and held:
                held.pop(number % len(held)).release()
        _ = made.usable
        before, draws = state(made), chance.draws
        explanation = explain(made, key)
        self.assertEqual((state(made), chance.draws), (before, draws))
        total = sum(outlook.chance or 0.0 for outlook in explanation.outlooks)
        lease = made.choose((), key)
        if lease is None:
            self.assertEqual((explanation.decided, total), (Decided.NOBODY, 0.0))
            return
        self.assertEqual(explanation.decided, Decided.POLICY)
        self.assertAlmostEqual(total, 1.0)
        mine = chances(explanation)[lease.server.address.host]
        assert mine is not None
        self.assertGreater(mine, 0.0)
        if explanation.chosen is not None:
            self.assertIs(explanation.chosen, lease.server)
        for outlook in explanation.outlooks:
            self.assertEqual(outlook.why_not is None, bool(outlook.chance))


class ChanceTests(SynchronousTestCase):
    """Where chance decides, it is told."""

    def drawn(self, made: Upstream, times: int = 20_000) -> dict[str, float]:
        counted: Counter[str] = Counter()
        for _ in range(times):
            lease = taken(made)
            counted[lease.server.address.host] += 1
            lease.release()
        return {letter: count / times for letter, count in counted.items()}

    def compare(self, made: Upstream) -> None:
        foreseen = chances(explain(made))
        drawn = self.drawn(made)
        for letter, chance in foreseen.items():
            assert chance is not None
            self.assertApproximates(chance, drawn.get(letter, 0.0), 0.015, letter)

    def test_least_conn(self) -> None:
        """Among the least loaded, as the weights are."""
        made = upstream(order("a", 1), order("b", 5), order("c", 60), order("d", 2))
        made.choose_this(only(made, "d"))
        self.compare(made)
        self.assertEqual(chances(explain(made))["d"], 0.0)

    def test_random_two(self) -> None:
        """The better of two that are drawn as the weights are, the second of equals."""
        made = upstream(
            *(order("a", 1), order("b", 2), order("c", 3), order("d", 2)), policy="random_two"
        )
        self.compare(made)
        made.choose_this(only(made, "c"))
        made.choose_this(only(made, "c"))
        made.choose_this(only(made, "a"))
        self.compare(made)

    def test_ewma(self) -> None:
        """Likewise, by the waiting that is expected."""
        made = upstream(order("a", 1), order("b", 2), order("c", 3), policy="ewma")
        for letter, seconds in (("a", 0.1), ("b", 0.3), ("c", 0.2)):
            made.answered(only(made, letter), seconds, False)
        self.compare(made)


class ReasonTests(SynchronousTestCase):
    """Why not."""

    def test_reasons(self) -> None:
        """Each server that has no chance says why."""
        made = upstream()
        made.apply(
            snapshot(
                order("a"),
                order("b"),
                order("c", max_conns=1),
                record(order("d"), Intent.DISABLE),
                record(order("e"), expired=True),
                order("f", backup=True),
            )
        )
        made.choose_this(only(made, "b"))
        made.choose_this(only(made, "c"))
        explanation = explain(made)
        self.assertEqual(
            reasons(explanation),
            {
                "a": None,
                "b": "another one has a better score",
                "c": "it holds max_conns connections",
                "d": "an operator disabled it",
                "e": "its heartbeats stopped",
                "f": "it is a backup, and others can serve",
            },
        )
        self.assertIs(explanation.chosen, only(made, "a"))
        scores = [outlook.score for outlook in explanation.outlooks]
        self.assertEqual(scores, [0.0, 1.0, None, None, None, None])

    def test_backups(self) -> None:
        """Without a primary the backups are foreseen."""
        made = upstream(order("a", max_conns=1), order("b", backup=True))
        made.choose_this(only(made, "a"))
        self.assertIs(explain(made).chosen, only(made, "b"))

    def test_key(self) -> None:
        """A key belongs to one server, the same again and again."""
        made = upstream(*map(order, "abc"), policy="ip_hash")
        explanation = explain(made, b"192.0.2.7")
        chosen = explanation.chosen
        assert chosen is not None
        self.assertIs(taken_for(made, b"192.0.2.7"), chosen)
        others = [why for why in reasons(explanation).values() if why is not None]
        self.assertEqual(others, ["the request belongs to another one"] * 2)

    def test_cookie(self) -> None:
        """A cookie decides while its server can serve."""
        made = upstream(order("a"), order("b", max_conns=1))
        named = only(made, "b")
        explanation = explain(made, route=named.route)
        self.assertEqual((explanation.decided, explanation.chosen), (Decided.COOKIE, named))
        made.choose_this(named)
        explanation = explain(made, route=named.route)
        self.assertEqual(explanation.decided, Decided.POLICY)
        self.assertEqual(explain(made, route="x").decided, Decided.POLICY)

    def test_hook(self) -> None:
        """What a hook decides is not known; the policy's scores are."""
        made = upstream(order("a"), order("b"))
        explanation = explain(made, hooked=True)
        self.assertEqual(explanation.decided, Decided.HOOK)
        self.assertIsNone(explanation.chosen)
        self.assertEqual(set(chances(explanation).values()), {None})
        self.assertEqual(set(reasons(explanation).values()), {None})
        self.assertEqual([outlook.score for outlook in explanation.outlooks], [0.0, 0.0])

    def test_panic(self) -> None:
        """In a panic it is told that the last good ones are used."""
        options = UpstreamOptions(last_good=True)
        made = Upstream("api", "least_conn", (), Clock().seconds, lambda: 0.0, options)
        made.apply(snapshot(record(order("a"), expired=True)))
        explanation = explain(made)
        self.assertEqual(explanation.decided, Decided.PANIC)
        self.assertEqual(reasons(explanation), {"a": "its heartbeats stopped"})


def taken_for(made: Upstream, key: bytes) -> Server:
    lease = made.choose((), key)
    assert lease is not None
    return lease.server
