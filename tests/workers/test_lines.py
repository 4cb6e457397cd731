"""
Tests for L{dynbalance.workers.lines}.
"""

from __future__ import annotations

import io
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from dynbalance.log import Logger
from dynbalance.workers.lines import LONGEST, Lines, LineWriter, log_line
from twisted import logger


class LinesTests(TestCase):
    """L{Lines} cuts what comes in pieces."""

    def setUp(self) -> None:
        self.taken: list[bytes] = []
        self.lines = Lines(self.taken.append)

    def test_pieces(self) -> None:
        """A line is taken when it is whole."""
        for piece in (b"on", b"e\ntwo\n", b"", b"thr"):
            self.lines.feed(piece)
        self.assertEqual([b"one", b"two"], self.taken)
        self.lines.end()
        self.lines.end()
        self.assertEqual([b"one", b"two", b"thr"], self.taken)

    def test_endless(self) -> None:
        """A line that does not end is not kept for ever."""
        for _ in range(3):
            self.lines.feed(b"x" * (LONGEST // 2))
        self.assertEqual([LONGEST // 2 * 3], [len(line) for line in self.taken])


class LogTests(TestCase):
    """What a worker logs is logged here."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.out = io.StringIO()
        self.theirs = logger.Logger(namespace="some.part", observer=LineWriter(self.out))

    def carry(self) -> list[tuple[Any, str, str]]:
        """Log here what was logged there: level, namespace and text."""
        for line in self.out.getvalue().splitlines():
            log_line("w7", line.encode())
        return [
            (each["log_level"], each["log_namespace"], each["text"]) for each in self.events
        ]

    def test_event(self) -> None:
        """Level, namespace and text arrive, with the worker's name and as one event."""
        self.theirs.warn("a {what}\nof two lines", what="word")
        self.assertEqual(
            [(LogLevel.warn, "w7 some.part", "a word\nof two lines")], self.carry()
        )

    def test_traceback(self) -> None:
        """A failure comes with its traceback."""
        self.theirs.failure("it broke", Failure(ZeroDivisionError("by nought")))
        ((level, _, text),) = self.carry()
        self.assertIs(LogLevel.critical, level)
        self.assertIn("it broke", text)
        self.assertIn("ZeroDivisionError: by nought", text)

    def test_braces(self) -> None:
        """A text is a text, whatever is in it."""
        self.theirs.info("{text}", text="{not} a {field")
        self.assertEqual("{not} a {field", self.carry()[0][2])

    def test_no_event(self) -> None:
        """What the interpreter writes is passed on as a warning."""
        for line in (b"Fatal Python error: \xff", b"[1]", b"{}", b'["loud", "a", "b"]', b"7"):
            log_line("w7", line)
        self.assertEqual([LogLevel.warn] * 5, [each["log_level"] for each in self.events])
        self.assertEqual("Fatal Python error: �", self.events[0]["text"])

    def test_threshold(self) -> None:
        """The parent's level holds for what comes from workers."""
        self.addCleanup(setattr, Logger, "threshold", Logger.threshold)
        Logger.threshold = LogLevel.error
        self.theirs.warn("hush")
        self.assertEqual([], self.carry())
