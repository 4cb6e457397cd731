"""Tests of long work in slices."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from dynbalance.slices import SLICE, Slices
from tests.turning import TurningClock


class SlicesTests(TestCase):
    """Two works and a clock that goes on while they are at it."""

    def setUp(self) -> None:
        self.clock = TurningClock()
        self.slices = Slices(self.clock)
        self.done: list[str] = []

    def work(self, name: str, pieces: int, seconds: float = SLICE) -> Iterator[str]:
        """@param seconds: that each piece takes."""
        for number in range(pieces):
            self.clock.rightNow += seconds
            self.done.append(f"{name}{number}")
            yield self.done[-1]

    def run_(self, pieces: Iterator[str]) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self.slices.run(pieces))

    def test_short(self) -> None:
        """What fits into a slice is done at once."""
        made = self.run_(self.work("a", 4, SLICE / 5))
        self.assertEqual(self.successResultOf(made), ["a0", "a1", "a2", "a3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long(self) -> None:
        """What is longer gives the reactor its turn after each slice."""
        made = self.run_(self.work("a", 4, SLICE / 2))
        self.assertEqual(self.done, ["a0", "a1"])
        self.assertNoResult(made)
        self.clock.turn()
        self.clock.turn()
        self.assertEqual(self.successResultOf(made), ["a0", "a1", "a2", "a3"])

    def test_turns(self) -> None:
        """Several works take turns; no turn of the reactor has more than one slice."""
        first, second = self.run_(self.work("a", 3)), self.run_(self.work("b", 2))
        self.assertEqual(self.done, ["a0"])
        told = []
        for _ in range(6):
            before = len(self.done)
            self.clock.turn()
            told.append(self.done[before:])
        self.assertEqual(told, [["a1"], ["b0"], ["a2"], ["b1"], [], []])
        self.assertEqual(self.successResultOf(first), ["a0", "a1", "a2"])
        self.assertEqual(self.successResultOf(second), ["b0", "b1"])

    def test_mistake(self) -> None:
        """A work that fails is nobody else's trouble."""

        def broken() -> Iterator[str]:
            yield from self.work("a", 1)
            raise ValueError("broken")

        first, second = self.run_(broken()), self.run_(self.work("b", 2))
        for _ in range(4):
            self.clock.turn()
        self.failureResultOf(first, ValueError)
        self.assertEqual(self.successResultOf(second), ["b0", "b1"])

    def test_in_one_go(self) -> None:
        """Without a clock nobody waits."""
        slices = Slices()
        made = Deferred.fromCoroutine(slices.run(self.work("a", 3)))
        self.assertEqual(self.successResultOf(made), ["a0", "a1", "a2"])
        self.assertEqual(repr(slices), "<Slices: 0 wait>")
