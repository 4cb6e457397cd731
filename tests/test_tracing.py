"""Tests of how tracing is begun and ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from queue import Queue
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.config import TracingConfig
from dynbalance.errors import ConfigError
from dynbalance.tracing import Tracing
from dynbalance.works import tracing_of

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class BeginningTests(TestCase):
    """What stands in the way of tracing ends the start."""

    def test_off(self) -> None:
        """Off, nothing of OpenTelemetry is looked for."""
        with patch.dict(sys.modules, {"dynbalance.tracing": None}):
            self.assertIsNone(tracing_of(TracingConfig(), "one"))

    def test_missing(self) -> None:
        """Without the extra, it is said what to install."""
        ours = sys.modules.pop("dynbalance.tracing")
        self.addCleanup(sys.modules.__setitem__, "dynbalance.tracing", ours)
        with patch.dict(sys.modules, {EXPORTER: None}):
            refused = self.assertRaises(
                ConfigError, tracing_of, TracingConfig(enabled=True), "one"
            )
        (problem,) = refused.problems
        self.assertTrue(problem.startswith("tracing.enabled: "), problem)
        self.assertTrue(problem.endswith("is missing: pip install 'dynbalance[otel]'"), problem)

    def test_bad_environment(self) -> None:
        """A variable of the environment that makes no sense is named as a mistake."""
        with patch.dict(os.environ, {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}):
            refused = self.assertRaises(
                ConfigError, tracing_of, TracingConfig(enabled=True), "one"
            )
        (problem,) = refused.problems
        self.assertTrue(problem.startswith("tracing: "), problem)
        self.assertIn("max_queue_size", problem)


class EndTests(TestCase):
    """The end waits for what is sent, but not for ever."""

    def test_in_time(self) -> None:
        """What is sent in time ends the wait."""
        clock = CallingClock()
        tracing = Tracing(1.0, "one")
        stopped = tracing.stop(clock, 2.0)
        clock.wait()
        self.successResultOf(stopped)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """What takes too long is given up; its end later is no mistake."""
        clock = CallingClock()
        tracing = Tracing(1.0, "one")
        stopped = tracing.stop(clock, 2.0)
        self.assertNoResult(stopped)
        clock.advance(2.0)
        self.successResultOf(stopped)
        clock.wait()


class CallingClock(Clock):
    """Carries out what a thread wants, when the test waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Queue[Callable[[], object]] = Queue()

    def callFromThread(self, call: Callable[[], object]) -> None:
        self._wanted.put(call)

    def wait(self) -> None:
        self._wanted.get(timeout=15.0)()
