"""
How long answers took, in numbers that cost little to keep.

Each answer is one more in one of L{BOUNDS}' buckets.  Knows the buckets and what
can be read from them; refuses to know who is timed and by which clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

BOUNDS: tuple[float, ...] = tuple(
    float(f"{step}e{exponent}") for exponent in range(-4, 2) for step in (1, 1.5, 2, 3, 5, 7)
)
"""
Seconds: the upper bounds of the buckets, from 100 microseconds to 70 seconds; one
more bucket has what took longer.  No bucket ends later than at 5/3 of where it
begins.
"""

BUCKETS = len(BOUNDS) + 1


class Times:
    """
    Some times.  Who is in a hurry adds to its attributes without a call::

        times.counts[bisect_left(BOUNDS, seconds)] += 1
        times.total += seconds

    @ivar counts: how many there are in each bucket.
    @ivar total: all of them together, in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: Times) -> None:
        """All of another's, too."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def __repr__(self) -> str:
        return f"<Times {sum(self.counts)} in {self.total:.6g} s>"


def quantile(counts: Sequence[int], share: float) -> float | None:
    """
    The time that a share of the answers did not exceed: within its bucket by
    proportion, so that it is wrong by less than a bucket's width.

    @param counts: by bucket, such as L{Times.counts} or what was added to them
        in some while.
    @param share: from 0 to 1; 0.99 for what is called p99.
    @return: seconds, the last bound for what took longer; C{None} for no answers.
    """
    rank = share * sum(counts)
    before = 0
    for index, count in enumerate(counts):
        if count and before + count >= rank:
            if index == len(BOUNDS):
                return BOUNDS[-1]
            low = BOUNDS[index - 1] if index else 0.0
            return low + (BOUNDS[index] - low) * (rank - before) / count
        before += count
    return None


def up_to(counts: Sequence[int], bounds: Iterable[float]) -> list[tuple[float, int]]:
    """
    The same in fewer buckets, as Prometheus has them.

    @param bounds: some of L{BOUNDS}.
    @return: how many took no longer than each.
    """
    sums = list(accumulate(counts))
    return [(bound, sums[BOUNDS.index(bound)]) for bound in bounds]
