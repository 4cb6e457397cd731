"""Tests of what is done once for many."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from dynbalance.together import Together


class TogetherTests(TestCase):
    """Something slow, by the names a and b."""

    def setUp(self) -> None:
        self.begun: list[tuple[str, Deferred[int]]] = []
        self.together = Together(self.do)

    async def do(self, key: str) -> int:
        done: Deferred[int] = Deferred()
        self.begun.append((key, done))
        return await done

    def end(self, number: int) -> None:
        self.begun[number][1].callback(number)

    def test_one(self) -> None:
        """Who is alone has it done at once."""
        asked = self.together.ask("a")
        self.end(0)
        self.assertEqual(self.successResultOf(asked), 0)
        self.assertEqual(repr(self.together), "<Together: 0 under way>")

    def test_meanwhile(self) -> None:
        """All who ask while it is done get the result of the next time, which is one."""
        first = self.together.ask("a")
        others = [self.together.ask("a") for _ in range(3)]
        self.assertEqual(len(self.begun), 1)
        self.end(0)
        self.assertEqual(self.successResultOf(first), 0)
        for each in others:
            self.assertNoResult(each)
        self.end(1)
        self.assertEqual([self.successResultOf(each) for each in others], [1, 1, 1])
        self.assertEqual(len(self.begun), 2)

    def test_again(self) -> None:
        """Who asks when it is told has it done anew."""
        asked = self.together.ask("a").addCallback(lambda _: self.together.ask("a"))
        self.end(0)
        self.end(1)
        self.assertEqual(self.successResultOf(asked), 1)

    def test_keys(self) -> None:
        """What has another name does not wait."""
        self.together.ask("a")
        other = self.together.ask("b")
        self.end(1)
        self.assertEqual(self.successResultOf(other), 1)

    def test_failure(self) -> None:
        """A failure is told to all who waited for it, and to nobody else."""
        first = self.together.ask("a")
        second = self.together.ask("a")
        self.begun[0][1].errback(ValueError("no"))
        self.failureResultOf(first, ValueError)
        self.end(1)
        self.assertEqual(self.successResultOf(second), 1)
