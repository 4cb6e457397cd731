"""
L{dynbalance.stream.pace}, with a clock of the test's.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.deadlines import TICK, Deadlines
from dynbalance.stream.pace import Pace


class Transport:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.reading = True
        self.written = b""

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data


class PaceTests(SynchronousTestCase):
    """A direction at 100 bytes a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.source, self.sink = Transport(), Transport()
        self.ended: list[None] = []
        self.pace = Pace(
            self.source, self.sink, 100, self.deadlines, lambda: self.ended.append(None)
        )

    def passed(self, seconds: float = 0.0) -> int:
        """Bytes so far, after so many seconds more."""
        for _ in range(int(seconds / TICK)):
            self.clock.advance(TICK)
        return len(self.sink.written)

    def test_as_nginx(self) -> None:
        """The first second's bytes pass at once, then no more than the rate."""
        self.pace.take(b"x" * 500)
        self.assertEqual(100, self.passed())
        for second in range(1, 4):
            self.assertTrue(75 <= self.passed(1.0) - 100 * second <= 100)
        self.assertEqual(500, self.passed(1.5))

    def test_reads_on(self) -> None:
        """Nothing is read while something waits; afterwards it is."""
        self.pace.take(b"x" * 150)
        self.assertFalse(self.source.reading)
        self.passed(1.0)
        self.assertTrue(self.source.reading)
        self.assertEqual("<Deadlines 0 watched>", repr(self.deadlines))

    def test_below_the_rate(self) -> None:
        """Who is slower is never paused."""
        for _ in range(20):
            self.pace.take(b"x" * 10)
            self.assertTrue(self.source.reading)
            self.passed(0.25)
        self.assertEqual(200, self.passed())

    def test_slow_sink(self) -> None:
        """While the sink takes no more, nothing is written, read or waited for."""
        self.pace.take(b"x" * 150)
        self.pace.pauseProducing()
        self.assertEqual(100, self.passed(5.0))
        self.assertFalse(self.source.reading)
        self.pace.resumeProducing()
        self.assertEqual(150, self.passed())
        self.assertTrue(self.source.reading)

    def test_end_comes_last(self) -> None:
        """The source's end is told when all has passed, once."""
        self.pace.take(b"x" * 150)
        self.assertTrue(self.pace.outlives())
        self.assertEqual([], self.ended)
        self.passed(2.0)
        self.assertEqual([None], self.ended)
        self.assertFalse(self.pace.outlives())

    def test_let_go(self) -> None:
        """Where nobody waits for more, the rest passes at once."""
        self.pace.take(b"x" * 150)
        self.pace.let_go()
        self.assertEqual(150, self.passed())
        self.assertEqual("<Deadlines 0 watched>", repr(self.deadlines))

    def test_one_byte_a_second(self) -> None:
        """The slowest rate moves."""
        pace = Pace(self.source, self.sink, 1, self.deadlines, lambda: None)
        pace.take(b"xyz")
        self.assertEqual(1, self.passed())
        self.assertEqual(3, self.passed(2.5))
