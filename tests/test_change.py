"""
Tests for L{dynbalance.change}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.change import needing_restart
from dynbalance.config import Config, UpstreamConfig


class ChangeTests(SynchronousTestCase):
    """What a running node can follow."""

    def test_counting(self) -> None:
        """An upstream that is here keeps its kind of counting; a new one has any."""
        plain, strict = UpstreamConfig(), UpstreamConfig(counting="strict")
        before = evolve(Config(), upstreams={"default": plain})
        self.assertEqual(
            ["upstreams.default.counting: needs a restart to change"],
            needing_restart(before, evolve(before, upstreams={"default": strict})),
        )
        more = evolve(before, upstreams={"default": plain, "new": strict})
        self.assertEqual([], needing_restart(before, more))
        self.assertEqual([], needing_restart(more, before))
