"""
When a benchmark says that something has got worse.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.side_by_side import kept
from bench.side_by_side.kept import Figure, judge, status
from tests.temporary import Temporary


class FigureTests(SynchronousTestCase):
    """What rounds come to."""

    def test_median(self) -> None:
        """One wild round changes nothing."""
        quiet = Figure.of([18.0, 18.0, 18.0, 18.0, 18.0], [10.0] * 5, 0.0)
        wild = Figure.of([18.0, 18.0, 90.0, 18.0, 18.0], [10.0] * 5, 0.0)
        self.assertEqual((1.8, 0.0), (quiet.ratio, quiet.noise))
        self.assertEqual(quiet, wild)

    def test_pairs(self) -> None:
        """A machine that slows down for a while slows both, and that is no noise."""
        figure = Figure.of([18.0, 36.0, 18.0, 54.0], [10.0, 20.0, 10.0, 30.0], 0.0)
        self.assertAlmostEqual(1.8, figure.ratio)
        self.assertAlmostEqual(0.0, figure.noise)

    def test_noise(self) -> None:
        """Rounds that differ make a figure less sure, more rounds make it surer."""
        few = Figure.of([17.0, 18.0, 19.0, 20.0], [10.0] * 4, 0.0)
        many = Figure.of([17.0, 18.0, 19.0, 20.0] * 4, [10.0] * 16, 0.0)
        self.assertGreater(few.noise, 0.1)
        self.assertAlmostEqual(few.noise / 2, many.noise)


class JudgeTests(SynchronousTestCase):
    """What a case has come to since its figure was kept."""

    kept = Figure(1.8, 0.03, 0.02)

    def test_worse(self) -> None:
        """A case that costs more is named with how much more."""
        verdict = judge(Figure(2.0, 0.03, 0.02), self.kept)
        self.assertTrue(verdict.worse and verdict.sure)
        self.assertEqual("1.80 kept, +11%, noise 3%: WORSE", verdict.text)

    def test_noise(self) -> None:
        """What may be chance is not held against it, however little was kept's."""
        self.assertFalse(judge(Figure(2.0, 0.3, 0.02), self.kept).worse)
        self.assertFalse(judge(Figure(1.85, 0.0, 0.02), self.kept).worse)
        self.assertFalse(judge(Figure(2.0, 0.0, 0.02), Figure(1.8, 0.3, 0.02)).worse)

    def test_better(self) -> None:
        """Better is said, and is not worse."""
        verdict = judge(Figure(1.5, 0.03, 0.02), self.kept)
        self.assertFalse(verdict.worse)
        self.assertTrue(verdict.text.endswith("better"))

    def test_busy(self) -> None:
        """While others take much of the machine nothing is sure."""
        verdict = judge(Figure(2.0, 0.03, 0.5), self.kept)
        self.assertEqual((True, False), (verdict.worse, verdict.sure))
        self.assertIn("or the machine was busy", verdict.text)

    def test_kept_while_busy(self) -> None:
        """A figure that was kept on a busy machine is said to be one."""
        verdict = judge(self.kept, Figure(1.8, 0.03, 0.5))
        self.assertFalse(verdict.worse)
        self.assertIn("keep it anew", verdict.text)

    def test_nothing_kept(self) -> None:
        """A new case has nothing that it could be worse than."""
        self.assertFalse(judge(Figure(9.0, 0.0, 0.0), None).worse)

    def test_status(self) -> None:
        """The exit status says whether something is worse, and whether that is sure."""
        fine = judge(self.kept, self.kept)
        worse = judge(Figure(2.0, 0.03, 0.02), self.kept)
        doubtful = judge(Figure(2.0, 0.03, 0.5), self.kept)
        self.assertEqual(0, status([fine, fine]))
        self.assertEqual(2, status([fine, doubtful]))
        self.assertEqual(1, status([doubtful, worse, fine]))


class FileTests(Temporary, SynchronousTestCase):
    """The file of the figures."""

    def test_partly(self) -> None:
        """What is not measured anew stays as it was kept."""
        path = Path(self.mktemp())
        self.assertEqual({}, kept.load(path))
        one, two = Figure(1.8, 0.03, 0.02), Figure(1.5, 0.0, 0.2)
        kept.save({"one": one, "two": one}, path)
        kept.save({"two": two}, path)
        self.assertEqual({"one": one, "two": two}, kept.load(path))
