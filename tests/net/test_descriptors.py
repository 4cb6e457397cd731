"""Tests of how many descriptors are kept, for whom."""

from __future__ import annotations

import resource
import sys

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.errors import EXHAUSTED
from dynbalance.net import descriptors
from dynbalance.net.dial import Dial, Target
from dynbalance.net.pipes import Pipes
from tests.net.building import NetCase


class LimitTests(SynchronousTestCase):
    """The numbers by the process's limit."""

    def limit(self, soft: int) -> tuple[int, int]:
        self.patch(resource, "getrlimit", lambda what: (soft, soft))
        return descriptors.below_for_clients(), descriptors.below_for_traffic()

    def test_parts(self) -> None:
        """Clients leave an eighth to what follows from them; both leave the last few."""
        self.assertEqual((864, 992), self.limit(1024))
        self.assertEqual((56_325, 64_520), self.limit(65_560))

    def test_none(self) -> None:
        """Without a limit there is room for everybody."""
        self.assertGreater(min(self.limit(resource.RLIM_INFINITY)), sys.maxsize // 2)


class UseTests(NetCase):
    """What does without the last ones."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(resource, "getrlimit", lambda what: (20, 20))

    def test_dial(self) -> None:
        """A connection to a server."""
        failed: list[int | None] = []

        class Caller:
            def dial_failed(self, reason: OSError) -> None:
                failed.append(reason.osError)

        Dial(self.hub, Caller()).start(Target(2, ("127.0.0.1", 1)))
        self.assertEqual(1, len(failed))
        self.assertIn(failed[0], EXHAUSTED)

    def test_pipe(self) -> None:
        """A pipe: bytes are passed on without one."""
        self.assertIsNone(Pipes().take())
