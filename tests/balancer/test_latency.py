"""Tests of how long answers took, as numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.latency import BOUNDS, BUCKETS, Times, quantile, up_to


def times(*seconds: float) -> Times:
    """Those."""
    made = Times()
    for each in seconds:
        made.note(each)
    return made


class TimesTests(TestCase):
    """The buckets, and what is read from them."""

    def test_bounds(self) -> None:
        """The buckets are in order, and none is wider than two thirds of where it begins."""
        for low, high in pairwise(BOUNDS):
            self.assertTrue(low < high <= low * 5 / 3 + 1e-12, (low, high))
        self.assertEqual((BOUNDS[0], BOUNDS[-1]), (0.0001, 70.0))

    def test_note(self) -> None:
        """A time is in the first bucket whose bound it does not exceed."""
        noted = times(0.0, 0.0001, 0.00011, 0.001, 70.0, 71.0)
        self.assertEqual(noted.counts[:2], [2, 1])
        self.assertEqual(noted.counts[BOUNDS.index(0.001)], 1)
        self.assertEqual(noted.counts[-2:], [1, 1])
        self.assertEqual(sum(noted.counts), 6)
        self.assertAlmostEqual(noted.total, 141.00121)

    def test_add(self) -> None:
        """Two are added up bucket by bucket."""
        both = times(0.001, 3.0)
        both.add(times(0.001))
        self.assertEqual(both.counts, times(0.001, 0.001, 3.0).counts)
        self.assertAlmostEqual(both.total, 3.002)
        self.assertEqual(repr(both), "<Times 3 in 3.002 s>")

    def test_quantile(self) -> None:
        """A quantile lies in the bucket of the answer that it is of."""
        counts = times(*[0.0012] * 98, 0.25, 0.25).counts
        self.assertAlmostEqual(quantile(counts, 0.5) or 0, 0.001 + 0.0005 * 50 / 98)
        self.assertAlmostEqual(quantile(counts, 0.99) or 0, 0.25)
        self.assertEqual(quantile(times(500.0).counts, 0.5), BOUNDS[-1])
        self.assertIsNone(quantile([0] * BUCKETS, 0.5))

    @given(
        st.lists(st.floats(0.0001, 69.0), min_size=1, max_size=60),
        st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
    )
    def test_error(self, seconds: list[float], share: float) -> None:
        """A quantile is wrong by two thirds at most."""
        found = quantile(times(*seconds).counts, share)
        seconds.sort()
        true = seconds[max(0, -int(-share * len(seconds) // 1) - 1)]
        assert found is not None
        self.assertTrue(true * 3 / 5 - 1e-4 <= found <= true * 5 / 3 + 1e-4, (true, found))

    def test_fewer_buckets(self) -> None:
        """Some of the bounds are told with all that lies below them."""
        counts = times(0.00005, 0.0015, 0.002, 0.7, 100.0).counts
        self.assertEqual(up_to(counts, (0.001, 0.002, 1.0)), [(0.001, 1), (0.002, 3), (1.0, 4)])
