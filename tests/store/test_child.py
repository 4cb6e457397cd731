"""
Tests for L{dynbalance.store.child} without a process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from dynbalance.store.child import LOG_SIZE, Child


class FakeProcess:
    """What a process was told; it ends when the test says so."""

    def __init__(self, pid: int, protocol: Child, reactor: Clock) -> None:
        self.pid = pid
        self.signals: list[str] = []
        self._protocol = protocol
        self._reactor = reactor

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def end(self) -> None:
        self._protocol.processEnded(Failure(ProcessTerminated(exitCode=1)))
        self._reactor.advance(0)


class FakeReactor(Clock):
    """Time, and processes that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.refusal: OSError | None = None

    def spawnProcess(self, protocol: Child, *args: Any, **more: Any) -> FakeProcess:
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(FakeProcess(len(self.processes) + 1, protocol, self))
        return self.processes[-1]


class ChildTests(TestCase):
    """A program is kept running until it is to stop."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        self.addCleanup(shutil.rmtree, directory)
        self.log_path = os.path.join(directory, "log")
        self.child = Child(self.reactor, "server", ["server"], self.log_path)

    def tearDown(self) -> None:
        self.assertEqual([], self.reactor.getDelayedCalls())

    def stop(self) -> None:
        stopped = self.child.stop()
        if self.child.pid is not None:
            self.reactor.processes[-1].end()
        self.successResultOf(stopped)

    def test_back_off(self) -> None:
        """Each end in a row doubles the time to the next start, up to five seconds."""
        self.child.start()
        waits = []
        for _ in range(8):
            self.reactor.processes[-1].end()
            self.assertIsNone(self.child.pid)
            (call,) = self.reactor.getDelayedCalls()
            waits.append(round(call.getTime() - self.reactor.seconds(), 3))
            self.reactor.advance(waits[-1])
            self.assertEqual(len(self.reactor.processes), self.child.pid)
        self.assertEqual([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], waits)
        self.reactor.advance(10.0)
        self.reactor.processes[-1].end()
        self.reactor.advance(0.1)
        self.assertEqual(10, self.child.pid)
        self.stop()

    def test_not_started(self) -> None:
        """A start that the system refuses is tried again."""
        self.reactor.refusal = OSError("no memory")
        self.child.start()
        self.reactor.refusal = None
        self.reactor.advance(0.1)
        self.assertEqual(1, self.child.pid)
        self.stop()

    def test_stop(self) -> None:
        """It is asked to end, and not started again."""
        self.child.start()
        stopped = self.child.stop()
        self.assertNoResult(stopped)
        self.reactor.processes[0].end()
        self.successResultOf(stopped)
        self.assertEqual(["TERM"], self.reactor.processes[0].signals)

    def test_told_later(self) -> None:
        """Who waits for the end is told on the reactor's next turn."""
        self.child.start()
        stopped = self.child.stop()
        self.child.processEnded(Failure(ProcessTerminated(exitCode=1)))
        self.assertNoResult(stopped)
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def test_forced(self) -> None:
        """It is killed when it does not end within five seconds."""
        self.child.start()
        stopped = self.child.stop()
        self.reactor.advance(4.9)
        self.assertEqual(["TERM"], self.reactor.processes[0].signals)
        self.reactor.advance(0.2)
        self.assertEqual(["TERM", "KILL"], self.reactor.processes[0].signals)
        self.reactor.processes[0].end()
        self.successResultOf(stopped)

    def test_stopped_between_two(self) -> None:
        """Stopped while it waits to be started again, it stays away."""
        self.child.start()
        self.reactor.processes[0].end()
        self.successResultOf(self.child.stop())
        self.reactor.advance(10.0)
        self.assertEqual(1, len(self.reactor.processes))

    def test_already_ended(self) -> None:
        """A process that ended a moment ago cannot be asked, and need not."""
        self.child.start()

        def gone(name: str) -> None:
            raise ProcessExitedAlready

        self.reactor.processes[0].signalProcess = gone  # type: ignore[method-assign]
        self.stop()

    def test_large_log(self) -> None:
        """A log that has grown is kept aside once, and a new one begun."""
        for _ in range(2):
            with open(self.log_path, "wb") as log:
                log.truncate(LOG_SIZE + 1)
            self.child.start()
            self.assertEqual(0, os.path.getsize(self.log_path))
            self.assertEqual(LOG_SIZE + 1, os.path.getsize(self.log_path + ".1"))
            self.stop()
            self.child = Child(self.reactor, "server", ["server"], self.log_path)
