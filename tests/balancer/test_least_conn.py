"""Least connections: the smallest load, ties by weight, work that does not grow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from random import Random
from types import FrameType
from typing import Any

from twisted.trial.unittest import TestCase

from dynbalance.balancer import lease, leastconn
from dynbalance.balancer import upstream as upstream_module
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import ServerOrder
from tests.balancer.building import letters, only, order, snapshot, taken, upstream


def crowd(
    size: int, weights: tuple[int, ...] = (1,), random: Callable[[], float] | None = None
) -> Upstream:
    """An upstream of many servers whose weights repeat."""
    servers = (
        FileServer(
            order=ServerOrder(
                address=f"s{n}:80",
                host=f"s{n}",
                port=80,
                weight=weights[n % len(weights)],
                max_conns=0,
            )
        )
        for n in range(size)
    )
    return Upstream("crowd", "least_conn", servers, lambda: 0.0, random or Random(1).random)


class OrderTests(TestCase):
    """Which server it is when loads differ."""

    def test_least_loaded_is_chosen(self) -> None:
        """With connections held, each choice goes where the fewest are."""
        made = upstream(order("a"), order("b"), order("c"))
        for _ in range(10):
            self.assertEqual(sorted(letters(made, 3, hold=True)), ["a", "b", "c"])

    def test_weights_divide_the_load(self) -> None:
        """Held connections are spread in proportion to the weights."""
        made = upstream(order("a", 1), order("b", 2), order("c", 7))
        word = letters(made, 100, hold=True)
        self.assertEqual([word.count(letter) for letter in "abc"], [10, 20, 70])

    def test_stuck_server_is_avoided(self) -> None:
        """Requests that end at once all go to the server without a stuck one."""
        made = upstream(order("a"), order("b"))
        stuck = taken(made).server
        other = "b" if stuck.key == "a:80" else "a"
        self.assertEqual(letters(made, 10), 10 * other)

    def test_other_nodes_count(self) -> None:
        """What other nodes hold weighs like what this one holds."""
        made = upstream(order("a"), order("b"))
        made.apply_totals({"a:80": 5})
        self.assertEqual(letters(made, 5, hold=True), "bbbbb")
        made.apply_totals({"a:80": 0})
        self.assertEqual(letters(made, 5, hold=True), "aaaaa")

    def test_equal_fractions_tie(self) -> None:
        """2 of 4, 3 of 6 and 50 of 100 are the same load: each is drawn."""
        made = upstream(order("a", 4), order("b", 6), order("c", 100))
        made.apply_totals({"a:80": 2, "b:80": 3, "c:80": 50})
        self.assertEqual(set(letters(made, 2000)), {"a", "b", "c"})

    def test_agrees_with_a_scan(self) -> None:
        """Over random counts and weights the choice has the smallest fraction."""
        random = Random(7)
        made = crowd(60, weights=(1, 2, 3, 5, 16, 40, 100))
        held: list[Lease] = []
        for _ in range(4000):
            if held and random.random() < 0.48:
                held.pop(random.randrange(len(held))).release()
                continue
            loads = [Fraction(server.load, server.weight) for server in made.servers]
            chosen = taken(made)
            self.assertEqual(
                Fraction(chosen.server.load - 1, chosen.server.weight), min(loads)
            )
            held.append(chosen)


class TieTests(TestCase):
    """Ties are fair: drawn at random, in proportion to the weights."""

    def shares(self, made: Upstream, choices: int) -> dict[str, float]:
        """The part of idle choices that each server got."""
        for _ in range(choices):
            taken(made).release()
        return {server.key: server.picks / choices for server in made.servers}

    def test_idle_servers_of_weights_1_2_1(self) -> None:
        """One request after the other spreads 1:2:1."""
        shares = self.shares(upstream(order("a"), order("b", 2), order("c")), 20_000)
        self.assertApproximates(shares["a:80"], 0.25, 0.015)
        self.assertApproximates(shares["b:80"], 0.50, 0.015)
        self.assertApproximates(shares["c:80"], 0.25, 0.015)

    def test_idle_servers_of_very_different_weights(self) -> None:
        """So it does when the weights lie in several lanes."""
        weights = {"a": 1, "b": 3, "c": 5, "d": 14, "e": 27, "f": 150}
        made = upstream(*(order(letter, weight) for letter, weight in weights.items()))
        shares = self.shares(made, 40_000)
        for letter, weight in weights.items():
            self.assertApproximates(shares[f"{letter}:80"], weight / 200, 0.01)

    def test_equal_servers(self) -> None:
        """Equal servers get equal parts, wherever they stand in the list."""
        shares = self.shares(crowd(8), 40_000)
        for share in shares.values():
            self.assertApproximates(share, 1 / 8, 0.01)

    def test_no_order_is_repeated(self) -> None:
        """Two nodes that start together do not choose the same servers in step."""
        servers = [order(letter) for letter in "abcdefgh"]
        first = letters(upstream(*servers, seed=1), 40)
        second = letters(upstream(*servers, seed=2), 40)
        self.assertNotEqual(first, second)

    def test_hostile_random_source(self) -> None:
        """A source that always says the most or the least ends the draw all the same."""
        for value in (0.0, 1 - 2**-53):
            made = crowd(9, weights=(2, 3, 40), random=lambda value=value: value)
            self.assertGreater(len({taken(made).server for _ in range(9)}), 1)


class LimitTests(TestCase):
    """A full server is no candidate."""

    def test_never_more_than_max_conns(self) -> None:
        """Each server fills to its limit, and then there is none."""
        made = upstream(order("a", max_conns=2), order("b", max_conns=3))
        self.assertEqual(sorted(letters(made, 5, hold=True)), list("aabbb"))
        self.assertIs(made.choose(), None)
        self.assertEqual(made.why_none(), "no live upstreams: of 2 servers 2 full")

    def test_released_slot_is_used_again(self) -> None:
        """One release makes room for one choice."""
        made = upstream(order("a", max_conns=1), order("b", max_conns=1))
        leases = [taken(made), taken(made)]
        leases[0].release()
        self.assertIs(taken(made).server, leases[0].server)
        self.assertIs(made.choose(), None)

    def test_other_nodes_fill_it(self) -> None:
        """Connections of other nodes count towards max_conns."""
        made = upstream(order("a", max_conns=3), order("b"))
        made.apply_totals({"a:80": 3})
        self.assertEqual(letters(made, 4, hold=True), "bbbb")
        made.apply_totals({"a:80": 2})
        self.assertEqual(letters(made, 2, hold=True), "ab")

    def test_limit_changes(self) -> None:
        """A raised limit opens a full server, a lowered one closes it."""
        made = upstream(order("a", max_conns=1))
        held = taken(made)
        self.assertIs(made.choose(), None)
        made.apply(snapshot(order("a", max_conns=2), revision=2))
        taken(made)
        made.apply(snapshot(order("a", max_conns=1), revision=3))
        held.release()
        self.assertIs(made.choose(), None)
        self.assertEqual(only(made, "a").held, 1)


class WorkTests(TestCase):
    """The steps of a choice do not depend on the number of servers."""

    def steps(self, size: int, weights: tuple[int, ...]) -> float:
        """Lines of the balancer that 400 choices and releases run, on average."""
        made = crowd(size, weights)
        files = {leastconn.__file__, lease.__file__, upstream_module.__file__}
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal count
            if frame.f_code.co_filename not in files:
                return None
            count += event == "line"
            return trace

        held = [taken(made) for _ in range(50)]
        former = sys.gettrace()
        sys.settrace(trace)
        try:
            for slot in range(400):
                held[slot % 50].release()
                held[slot % 50] = taken(made)
        finally:
            sys.settrace(former)
        return count / 400

    def test_same_for_10_and_10000_servers(self) -> None:
        """As many lines run for 10 servers as for 10,000."""
        few, many = self.steps(10, (1,)), self.steps(10_000, (1,))
        self.assertGreater(few, 10)
        self.assertApproximates(many / few, 1.0, 0.1)

    def test_same_with_mixed_weights(self) -> None:
        """So it is when weights differ."""
        few, many = self.steps(10, (1, 2, 5, 20, 100)), self.steps(10_000, (1, 2, 5, 20, 100))
        self.assertLess(many / few, 1.3)

    def test_empty_groups_do_not_pile_up(self) -> None:
        """Loads that were seen once are forgotten."""
        made = upstream(order("a", 3))
        server = only(made, "a")
        for total in range(1, 5000):
            made.apply_totals({"a:80": total * 7})
        self.assertLess(len(server.lane.groups), 100)
        self.assertEqual(len(server.lane.groups), len(server.lane.loads))
