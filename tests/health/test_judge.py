"""Tests of the streaks of health checks, and of the statuses that are good."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.health.judge import Finding, Judge
from dynbalance.health.statuses import Statuses

# passes, fails, down at first; good (+) and bad (-) answers; up (U) or down (D) after each.
VERDICTS = [
    (1, 1, False, "+-+-", "UDUD"),
    (1, 1, True, "-+", "DU"),
    (2, 3, False, "--+---", "UUUUUD"),
    (2, 3, False, "-----", "UUDDD"),
    (2, 3, True, "+-++-", "DDDUU"),
    (3, 2, False, "--++-+++--", "UDDDDDDUUD"),
    (1, 2, False, "-+-+-+", "UUUUUU"),
]

STATUSES = [
    ("200-399", (200, 204, 301, 399), (199, 400, 500)),
    ("200-299,304", (200, 304), (300, 303, 305)),
    ("204", (204,), (200, 205)),
]


class JudgeTests(SynchronousTestCase):
    """Good and bad answers in a row."""

    def test_nothing_found(self) -> None:
        """What could not be asked neither goes on with a streak nor ends one."""
        judge = Judge(1, 2)
        self.assertFalse(judge.hear(Finding("status 503")))
        for _ in range(3):
            self.assertFalse(judge.hear(Finding("no descriptor left", of_server=False)))
        self.assertTrue(judge.hear(Finding("status 503")))

    def test_streaks(self) -> None:
        """C{fails} bad ones in a row take out, C{passes} good ones bring back."""
        for passes, fails, down, answers, expected in VERDICTS:
            judge = Judge(passes, fails, down)
            verdicts = []
            for answer in answers:
                before = judge.down
                tipped = judge.hear(Finding("" if answer == "+" else "bad"))
                self.assertIs(tipped, judge.down is not before)
                verdicts.append("D" if judge.down else "U")
            self.assertEqual(expected, "".join(verdicts), (passes, fails, down, answers))

    def test_repr(self) -> None:
        """It says what it thinks, and how much speaks against it."""
        judge = Judge(2, 2)
        judge.hear(Finding("bad"))
        self.assertEqual("<Judge up 1 against>", repr(judge))


class StatusesTests(SynchronousTestCase):
    """Which statuses are good."""

    def test_ranges(self) -> None:
        """Ranges include both ends; single ones stand for themselves."""
        for text, good, bad in STATUSES:
            statuses = Statuses.parse(text)
            self.assertTrue(all(status in statuses for status in good), text)
            self.assertFalse(any(status in statuses for status in bad), text)

    def test_backwards(self) -> None:
        """A range that ends before it begins is a mistake."""
        with self.assertRaises(ValueError):
            Statuses.parse("200-299,500-400")
