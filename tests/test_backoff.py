"""
Tests for L{dynbalance.backoff}.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from dynbalance.backoff import LAST_DELAY, STEADY, BackOff


class BackOffTests(TestCase):
    """L{BackOff}."""

    def test_row(self) -> None:
        """Each end in a row doubles the delay, up to the last one."""
        back_off = BackOff()
        delays = [back_off.delay(0.0) for _ in range(2000)]
        self.assertEqual([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], delays[:8])
        self.assertEqual(LAST_DELAY, delays[-1])

    def test_steady(self) -> None:
        """What had run for a while is started soon."""
        back_off = BackOff()
        for _ in range(5):
            back_off.delay(STEADY - 0.1)
        self.assertEqual(0.1, back_off.delay(STEADY))
        self.assertEqual(0.2, back_off.delay(0.0))
