"""
What stands before a listener.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.entrance import reread_all
from dynbalance.errors import ConfigError
from dynbalance.net.reach import PLAIN
from dynbalance.net.tls import Swap


class _Files:
    """
    @ivar problem: what is wrong with them.
    @ivar used: which of their contents is.
    """

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.used = "old"

    def reread(self) -> Swap:
        if self.problem:
            raise ConfigError([self.problem])

        def swap() -> None:
            self.used = "new"

        return swap


class RereadTests(SynchronousTestCase):
    """Files of many parts, read again."""

    def test_all(self) -> None:
        """All are used once all were read, and not before."""
        several = [_Files(), _Files()]
        swap = reread_all([*several, PLAIN])
        self.assertEqual(["old", "old"], [each.used for each in several])
        swap()
        self.assertEqual(["new", "new"], [each.used for each in several])

    def test_nothing(self) -> None:
        """One bad file keeps all as they were, and each bad one is named."""
        several = [_Files(), _Files("a.key: is bad"), _Files(), _Files("b.ca: is worse")]
        with self.assertRaises(ConfigError) as caught:
            reread_all(several)
        self.assertEqual(["a.key: is bad", "b.ca: is worse"], caught.exception.problems)
        self.assertEqual(["old"] * 4, [each.used for each in several])
