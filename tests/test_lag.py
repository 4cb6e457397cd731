"""Tests of how late the reactor is."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.latency import BOUNDS
from dynbalance.lag import EVERY, Lag


class LagTests(TestCase):
    """A timer that is late."""

    def test_late(self) -> None:
        """What holds up the reactor is seen by the next ring."""
        clock = Clock()
        lag = Lag(clock)
        lag.start()
        clock.advance(EVERY)
        clock.advance(EVERY + 0.4)
        self.assertEqual(lag.times.counts[0], 1)
        self.assertEqual(lag.times.counts[BOUNDS.index(0.5)], 1)
        self.assertAlmostEqual(lag.times.total, 0.4)

    def test_stop(self) -> None:
        """Nothing is left of it; to stop twice is no mistake."""
        clock = Clock()
        lag = Lag(clock)
        lag.start()
        lag.stop()
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
