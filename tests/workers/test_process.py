"""
Tests for L{dynbalance.workers.process} with a reactor that starts nothing.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from dynbalance.workers.process import FIRST_SOCKET, GRACE, WIRE, Process


class FakeReactor(Clock):
    """Notes what it is to start."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[dict[str, Any]] = []
        self.signals: list[str] = []
        self.gone = False

    def spawnProcess(self, protocol: Process, program: str, args: Any, **more: Any) -> Any:
        self.started.append({"program": program, "args": args, **more})
        for fd in more["childFDs"].values():
            if fd != "r":
                # It is open.
                os.fstat(fd)
        return SimpleNamespace(pid=77, signalProcess=self._signal)

    def _signal(self, name: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(name)

    def adoptStreamConnection(self, fd: int, family: int, factory: Any) -> Any:
        return SimpleNamespace(protocol=factory.buildProtocol(None))


class FakeOwner:
    """Notes what becomes of the process."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def process_ended(self, why: str) -> None:
        self.ends.append(why)


class ProcessTests(TestCase):
    """L{Process}."""

    def setUp(self) -> None:
        self.reactor, self.owner = FakeReactor(), FakeOwner()

    def start(self, *sockets: int) -> Process:
        return Process(self.reactor, self.owner, "w3", list(sockets))

    def test_birth(self) -> None:
        """It is started by this interpreter, with its sockets behind the wire."""
        process = self.start(0, 1)
        self.assertEqual(77, process.pid)
        (started,) = self.reactor.started
        self.assertEqual(sys.executable, started["program"])
        words = ["-m", "dynbalance.workers", "w3", str(os.getpid()), FakeReactor.__module__]
        self.assertEqual([sys.executable, *words], started["args"])
        numbers = started["childFDs"]
        self.assertEqual({0, 1, 2, WIRE, FIRST_SOCKET, FIRST_SOCKET + 1}, set(numbers))
        self.assertEqual(("r", "r"), (numbers[1], numbers[2]))
        self.assertEqual((0, 1), (numbers[FIRST_SOCKET], numbers[FIRST_SOCKET + 1]))

    def test_environment(self) -> None:
        """It finds the same modules, and none of what systemd told the daemon alone."""
        for name in ("LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
            self.patch(os, "environ", {**os.environ, name: "1"})
        self.start()
        environment = self.reactor.started[0]["env"]
        self.assertEqual(
            set(), {"LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(environment)
        )
        self.assertEqual(
            [path for path in sys.path if path], environment["PYTHONPATH"].split(os.pathsep)
        )

    def test_end(self) -> None:
        """Its end is told when it exits, even if others keep its output open."""
        process = self.start()
        process.processExited(Failure(ProcessTerminated(exitCode=3)))
        self.assertEqual(1, len(self.owner.ends))
        self.assertIn("3", self.owner.ends[0])
        process.processEnded(Failure(ProcessTerminated(exitCode=3)))
        self.assertEqual(1, len(self.owner.ends))

    def test_last_words(self) -> None:
        """What it wrote last is logged, also without the end of a line."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        process = self.start()
        process.childDataReceived(2, b'["error", "a.b", "it')
        process.childDataReceived(2, b' breaks"]\nFatal')
        process.processExited(Failure(ProcessTerminated(signal=6)))
        process.processEnded(Failure(ProcessTerminated(signal=6)))
        self.assertEqual(
            [("w3 a.b", "it breaks"), ("w3 stderr", "Fatal")],
            [(each["log_namespace"], each["text"]) for each in events],
        )

    def test_wire_lost(self) -> None:
        """One that closes its wire cannot be led any more: it ends soon, or is killed."""
        process = self.start()
        process.wire.connectionLost()
        self.reactor.advance(GRACE - 0.1)
        self.assertEqual([], self.reactor.signals)
        self.reactor.advance(0.1)
        self.assertEqual(["KILL"], self.reactor.signals)

    def test_ends_by_itself(self) -> None:
        """One that ends in order closes its wire first, and is not killed."""
        for first in (True, False):
            process = self.start()
            if first:
                process.wire.connectionLost()
            process.processExited(Failure(ProcessTerminated(exitCode=0)))
            if not first:
                process.wire.connectionLost()
            self.assertEqual([], self.reactor.getDelayedCalls())

    def test_kill(self) -> None:
        """It can be killed; one that has ended already is about to tell."""
        process = self.start()
        process.kill()
        self.assertEqual(["KILL"], self.reactor.signals)
        self.reactor.gone = True
        process.kill()
