"""
Tests for L{dynbalance.workers.wire}: two ends without a socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from dynbalance.errors import ConfigError
from dynbalance.workers.wire import NoAnswer, Told, Wire


class Listener:
    """Notes what it hears, and answers what it was told to."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.descriptors: list[int] = []
        self.answer: Any = None
        self.lost = False

    def heard(self, what: str, data: Any, descriptors: Sequence[int]) -> Any:
        self.descriptors += descriptors
        self.said.append((what, data))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def wire_lost(self) -> None:
        self.lost = True


class Transport(StringTransport):
    """Passes descriptors on as a unix socket does: before the bytes of the message."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.sent.append(descriptor)


class WireTests(TestCase):
    """What one end says the other hears, once L{deliver} has carried it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.near, self.far = Listener(), Listener()
        self.ends = []
        for ears in (self.near, self.far):
            wire = Wire(ears, self.clock)
            wire.makeConnection(Transport())
            self.ends.append(wire)
        self.here, self.there = self.ends

    def tearDown(self) -> None:
        self.assertEqual([], self.clock.getDelayedCalls())

    def deliver(self, size: int = 1 << 20) -> None:
        """Carry what was said, in pieces of C{size} bytes, to and fro."""
        for _ in range(4):
            for sender, receiver in ((self.here, self.there), (self.there, self.here)):
                while sender.transport.sent:
                    receiver.fileDescriptorReceived(sender.transport.sent.pop(0))
                data = sender.transport.value()
                sender.transport.clear()
                for start in range(0, len(data), size):
                    receiver.dataReceived(data[start : start + size])

    def test_answers(self) -> None:
        """Each question gets its own answer, whatever came in between."""
        late: Deferred[Any] = Deferred()
        self.far.answer = late
        first = self.here.ask("slow", {"a": [1, 2.5, "ä"]}, 5.0)
        self.deliver()
        self.far.answer = {"b": None}
        second = self.here.ask("quick", None, 5.0)
        self.deliver(size=1)
        self.assertEqual({"b": None}, self.successResultOf(second))
        self.assertNoResult(first)
        late.callback(7)
        self.deliver()
        self.assertEqual(7, self.successResultOf(first))
        self.assertEqual([("slow", {"a": [1, 2.5, "ä"]}), ("quick", None)], self.far.said)

    def test_told(self) -> None:
        """An answer that is JSON already goes as it is."""
        self.far.answer = Told('{"a":[1,"\u00e4"]}')
        answer = self.here.ask("x", None, 5.0)
        self.deliver(size=1)
        self.assertEqual({"a": [1, "\u00e4"]}, self.successResultOf(answer))

    def test_both_ask(self) -> None:
        """Either end may ask; their questions are not mixed up."""
        self.near.answer, self.far.answer = "near", "far"
        answers = self.here.ask("x", None, 5.0), self.there.ask("y", None, 5.0)
        self.deliver()
        self.assertEqual(["far", "near"], [self.successResultOf(each) for each in answers])

    def test_tell(self) -> None:
        """What needs no answer gets none."""
        self.here.tell("end")
        self.deliver()
        self.assertEqual([("end", None)], self.far.said)
        self.assertEqual(b"", self.there.transport.value())

    def test_descriptors(self) -> None:
        """Descriptors arrive with the message that they were sent with."""
        self.here.tell("a")
        self.here.ask("b", None, 5.0, [7, 8])
        self.here.ask("c", None, 5.0, [9])
        self.deliver()
        self.assertEqual([7, 8, 9], self.far.descriptors)
        self.assertEqual(["a", "b", "c"], [what for what, _ in self.far.said])

    def test_expected(self) -> None:
        """A refusal that is no mistake is not logged as one."""
        self.far.answer = ConfigError(["not like that"])
        asked = self.here.ask("x", None, 5.0)
        self.deliver()
        self.assertIn("not like that", str(self.failureResultOf(asked, NoAnswer).value))

    def test_late(self) -> None:
        """An answer that does not come in time is none, and does no harm later."""
        slow: Deferred[Any] = Deferred()
        self.far.answer = slow
        asked = self.here.ask("ping", None, 5.0)
        self.deliver()
        self.clock.advance(5.0)
        self.failureResultOf(asked, NoAnswer)
        slow.callback(1)
        self.deliver()

    def test_refused(self) -> None:
        """A failure on the other side says what it is, there and here."""
        self.far.answer = ValueError("no such thing")
        asked = self.here.ask("x", None, 5.0)
        self.deliver()
        self.assertIn("no such thing", str(self.failureResultOf(asked, NoAnswer).value))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_lost(self) -> None:
        """With the connection all questions end, those too that come later."""
        asked = self.here.ask("x", None, 5.0)
        self.here.connectionLost(Failure(ConnectionError()))
        self.failureResultOf(asked, NoAnswer)
        self.assertTrue(self.near.lost)
        self.failureResultOf(self.here.ask("y", None, 5.0), NoAnswer)
        self.here.tell("z")
