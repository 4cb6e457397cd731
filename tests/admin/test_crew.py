"""
Tests for L{dynbalance.admin.crew}.
"""

from __future__ import annotations

import json

from attrs import evolve
from twisted.trial.unittest import TestCase

from dynbalance.admin.crew import Counted, Live, together
from dynbalance.balancer.server import State
from dynbalance.workers.lives import lives_from_json, lives_to_json


def live(state: State = State.UP, held: int = 0, slow: float = 1.0, why: str | None = None) -> Live:
    return Live(state=state, held=held, slow=slow, why=why)


class TogetherTests(TestCase):
    """L{together}."""

    def test_nobody(self) -> None:
        """Nobody says nothing."""
        self.assertEqual({}, together({}))

    def test_all_well(self) -> None:
        """Connections are added up, and the slowest start counts."""
        said = together({1: {"a": live(held=3)}, 2: {"a": live(held=4, slow=0.5)}})
        self.assertEqual({"a": live(held=7, slow=0.5)}, said)

    def test_counted(self) -> None:
        """What was counted is added up."""
        one = Counted(answers=1, picks=2, errors=3, bytes_in=4, bytes_out=5)
        said = together({1: {"a": evolve(live(), counted=one)}, 2: {"a": live()}, 3: {"a": live()}})
        self.assertEqual(one, said["a"].counted)
        lives = {"a": evolve(live(), counted=one), "b": live(State.FULL, 2, 0.5, "why")}
        self.assertEqual(lives, lives_from_json(json.loads(json.dumps(lives_to_json(lives)))))

    def test_worst(self) -> None:
        """The worst state counts, and it is said whose it is."""
        bad = live(State.FAILED, 1, why="it failed")
        said = together({1: {"a": live()}, 2: {"a": bad}, 3: {"a": live(State.FULL)}})
        self.assertEqual(
            {"a": live(State.FAILED, 1, why="it failed (worker 2 of 3)")}, said
        )

    def test_the_same(self) -> None:
        """What all say needs no number."""
        bad = live(State.DISABLED, why="an operator did it")
        self.assertEqual({"a": bad}, together({1: {"a": bad}, 2: {"a": bad}}))

    def test_not_known_to_all(self) -> None:
        """A server that one has not met yet is told as the others see it."""
        said = together({1: {"a": live()}, 2: {"a": live(), "b": live(held=2)}})
        self.assertEqual({"a": live(), "b": live(held=2)}, said)
