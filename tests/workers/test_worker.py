"""
Tests for L{dynbalance.workers.worker} without a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.config import Config
from dynbalance.workers.orders import Orders
from dynbalance.workers.sockets import Inherited
from dynbalance.workers.wire import NoAnswer
from dynbalance.workers.worker import FAREWELL, SILENCE, State, Worker


class FakeWire:
    """Notes what is asked and told; answers when the test does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[Any]]] = []
        self.given: list[tuple[Any, Sequence[int]]] = []
        self.told: list[str] = []

    def ask(
        self, what: str, data: Any, patience: float, descriptors: Sequence[int] = ()
    ) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.given.append((data, descriptors))
        self.asked.append((what, answer))
        return answer

    def tell(self, what: str, data: Any = None) -> None:
        self.told.append(what if data is None else f"{what} {data}")


class FakeProcess:
    """A process that ends when the test says so."""

    def __init__(self, pid: int, owner: Any) -> None:
        self.pid = pid
        self.owner = owner
        self.wire = FakeWire()
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def begin(self) -> None:
        """It serves."""
        what, answer = self.wire.asked.pop(0)
        assert what == "begin"
        answer.callback(None)

    def end(self) -> None:
        for _, answer in self.wire.asked:
            answer.errback(NoAnswer("gone"))
        self.owner.process_ended("it was tired.")


class WorkerTests(TestCase):
    """L{Worker} keeps one process running until it is to end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.refusal: OSError | None = None
        self.orders = Orders(Config(), {"http[0]": (Inherited(7, 2, False),)})
        self.ended: list[int] = []
        self.worker = Worker(
            3,
            self.make,
            lambda: self.orders,
            lambda worker: self.ended.append(worker.number),
            self.clock,
        )

    def tearDown(self) -> None:
        self.assertEqual([], self.clock.getDelayedCalls())

    def make(self, owner: Any, orders: Orders) -> Any:
        self.assertIs(self.orders, orders)
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(FakeProcess(100 + len(self.processes), owner))
        return self.processes[-1]

    @property
    def process(self) -> FakeProcess:
        return self.processes[-1]

    def serve(self) -> None:
        self.worker.start()
        self.process.begin()

    def finish(self) -> None:
        """End it for good."""
        ended = self.worker.end(1.0)
        if self.worker.pid is not None:
            self.process.end()
            self.clock.advance(0)
        self.successResultOf(ended)

    def test_begin(self) -> None:
        """It serves when the process says so."""
        serving = self.worker.when_serving()
        self.worker.start()
        self.assertIs(State.STARTING, self.worker.state)
        self.assertNoResult(serving)
        self.process.begin()
        self.successResultOf(serving)
        self.assertIs(State.SERVING, self.worker.state)
        self.successResultOf(self.worker.when_serving())
        self.assertEqual(100, self.worker.pid)
        self.finish()

    def test_again(self) -> None:
        """A process that ends is followed by another one, ever later."""
        self.serve()
        self.process.end()
        self.assertIs(State.WAITING, self.worker.state)
        self.assertIsNone(self.worker.pid)
        self.assertEqual([3], self.ended)
        self.clock.advance(0.05)
        self.assertEqual(1, len(self.processes))
        self.clock.advance(0.05)
        self.assertEqual(2, len(self.processes))
        self.process.end()
        self.clock.advance(0.1)
        self.assertEqual(2, len(self.processes))
        self.clock.advance(0.1)
        self.assertEqual(3, self.worker.starts)
        self.finish()

    def test_cannot_be_started(self) -> None:
        """So is one that could not be started at all."""
        self.refusal = OSError(11, "no more processes")
        self.worker.start()
        self.refusal = None
        self.clock.advance(0.1)
        self.process.begin()
        self.assertIs(State.SERVING, self.worker.state)
        self.finish()

    def test_cannot_begin(self) -> None:
        """One that refuses its orders is ended."""
        self.worker.start()
        self.process.wire.asked.pop()[1].errback(NoAnswer("not like that"))
        self.assertTrue(self.process.killed)
        self.finish()

    def test_answers(self) -> None:
        """One that answers when it is looked after is left alone."""
        self.serve()
        for _ in range(3 * SILENCE):
            self.worker.look()
            for _, answer in self.process.wire.asked:
                answer.callback(None)
            self.process.wire.asked.clear()
        self.assertFalse(self.process.killed)
        self.finish()

    def test_silence(self) -> None:
        """One that does not answer for many looks is killed, and asked once only till then."""
        self.serve()
        for _ in range(SILENCE):
            self.worker.look()
        self.assertFalse(self.process.killed)
        self.assertEqual(["ping"], [what for what, _ in self.process.wire.asked])
        self.worker.look()
        self.assertTrue(self.process.killed)
        self.process.end()
        self.clock.advance(0.1)
        self.process.begin()
        self.worker.look()
        self.assertFalse(self.process.killed)
        self.finish()

    def test_end(self) -> None:
        """It is told to end, and is not started again."""
        self.serve()
        ended = self.worker.end(30.0)
        self.assertEqual(["end"], self.process.wire.told)
        self.assertNoResult(ended)
        self.process.end()
        self.clock.advance(0)
        self.successResultOf(ended)
        self.assertIs(State.ENDED, self.worker.state)
        self.clock.advance(100)
        self.assertEqual(1, len(self.processes))

    def test_end_by_force(self) -> None:
        """One that does not end in time is made to."""
        self.serve()
        ended = self.worker.end(30.0)
        self.clock.advance(30.0 + FAREWELL - 0.1)
        self.assertFalse(self.process.killed)
        self.clock.advance(0.1)
        self.assertTrue(self.process.killed)
        self.process.end()
        self.clock.advance(0)
        self.successResultOf(ended)

    def test_end_between_two(self) -> None:
        """With no process there is none to wait for, and none is started."""
        self.serve()
        self.process.end()
        waiting = self.worker.when_serving()
        self.successResultOf(self.worker.end(30.0))
        self.successResultOf(waiting)
        self.assertEqual(1, len(self.processes))

    def test_end_while_starting(self) -> None:
        """Orders that are refused because the end was ordered start nothing again."""
        self.worker.start()
        self.finish()
        self.assertIs(State.ENDED, self.worker.state)
        self.assertEqual(1, len(self.processes))

    def test_retire(self) -> None:
        """It leaves its place to a successor, and is not started again."""
        self.serve()
        retired = self.worker.retire(77, 30.0)
        self.assertEqual(["retire 77"], self.process.wire.told)
        self.assertNoResult(retired)
        self.process.end()
        self.clock.advance(0)
        self.successResultOf(retired)
        self.clock.advance(100)
        self.assertEqual(1, len(self.processes))

    def test_end_while_retiring(self) -> None:
        """Who is told to end while it finishes ends, and all who wait hear of it."""
        self.serve()
        retired, ended = self.worker.retire(77, 30.0), self.worker.end(1.0)
        self.assertEqual(["retire 77", "end"], self.process.wire.told)
        self.clock.advance(1.0 + FAREWELL)
        self.assertTrue(self.process.killed)
        self.process.end()
        self.clock.advance(0)
        self.successResultOf(retired)
        self.successResultOf(ended)

    def test_follow(self) -> None:
        """A process that serves is given other orders and its sockets."""
        self.serve()
        self.orders = Orders(Config(), {"http[0]": (Inherited(8, 2, False),)})
        followed = self.worker.follow()
        self.assertEqual((self.orders.to_json(), [8]), self.process.wire.given[-1])
        self.assertNoResult(followed)
        self.process.wire.asked.pop()[1].callback(None)
        self.successResultOf(followed)
        self.finish()

    def test_does_not_follow(self) -> None:
        """One that cannot goes on as before."""
        self.serve()
        followed = self.worker.follow()
        self.process.wire.asked.pop()[1].errback(NoAnswer("no such file"))
        self.successResultOf(followed)
        self.assertFalse(self.process.killed)
        self.assertIs(State.SERVING, self.worker.state)
        self.finish()

    def test_follow_while_starting(self) -> None:
        """One that begins by the former orders gives way to one that begins by the new ones."""
        self.worker.start()
        self.successResultOf(self.worker.follow())
        self.assertTrue(self.process.killed)
        self.process.end()
        self.successResultOf(self.worker.follow())
        self.clock.advance(0.1)
        self.process.begin()
        self.finish()

    def test_cut(self) -> None:
        """What is in flight can be cut."""
        self.worker.cut()
        self.serve()
        self.worker.cut()
        self.assertEqual(["cut"], self.process.wire.told)
        self.finish()

    def test_nobody_to_ask(self) -> None:
        """Without a process there is no answer."""
        self.failureResultOf(self.worker.ask("metrics", None, 1.0), NoAnswer)
