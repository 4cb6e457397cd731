"""
How a worker's process is started, and what it is born with.

    0       nothing to read
    1, 2    what it writes, which the parent passes on and logs
    3       the wire
    4...    its listening sockets
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from dynbalance.workers.lines import Lines, log_line, pass_on
from dynbalance.workers.wire import NoAnswer, Wire

WIRE = 3
FIRST_SOCKET = 4

GRACE = 3.0
"""Seconds that a process may live on without its wire."""

_NOT_ITS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC",
            "WATCHDOG_PID")
"""What systemd tells the daemon, that is the parent alone."""


class Owner(Protocol):
    """Who is told what becomes of a process."""

    def process_ended(self, why: str) -> None:
        """It is no more."""


class Process(ProcessProtocol):
    """
    A running worker.

    @ivar wire: to it.
    @ivar pid: its process id.
    """

    def __init__(self, reactor: Any, owner: Owner, name: str, sockets: list[int]) -> None:
        """
        @param name: of its lines in the log.
        @param sockets: descriptors that become its own, from L{FIRST_SOCKET} on.
        @raise OSError: it cannot be started.
        """
        self._reactor = reactor
        self._owner = owner
        self._late: IDelayedCall | None = None
        self._gone = False
        self._lines = {
            1: Lines(pass_on),
            2: Lines(lambda line: log_line(name, line)),
        }
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "rb") as nothing:
            ours.setblocking(False)
            factory = Factory.forProtocol(lambda: Wire(self, reactor))
            self._process = reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-m", "dynbalance.workers", name, str(os.getpid()),
                 type(reactor).__module__],
                env=_environment(),
                childFDs={
                    0: nothing.fileno(),
                    1: "r",
                    2: "r",
                    WIRE: theirs.fileno(),
                    **{FIRST_SOCKET + i: fd for i, fd in enumerate(sockets)},
                },
            )
            transport = reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        self.pid: int = self._process.pid
        self.wire: Wire = transport.protocol

    def kill(self) -> None:
        """End it at once."""
        # One that has ended is about to tell.
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def heard(self, what: str, data: Any, descriptors: Sequence[int]) -> Any:
        raise NoAnswer(f"{what} is nothing that a worker may say")

    def wire_lost(self) -> None:
        """A process that has closed its wire cannot be led any more: it can only end."""
        if not self._gone:
            self._late = self._reactor.callLater(GRACE, self.kill)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._lines[childFD].feed(data)

    def processExited(self, reason: Failure) -> None:
        self._gone = True
        if self._late is not None and self._late.active():
            self._late.cancel()
        # Not only when its output ends: what a hook has started may keep that open.
        self._owner.process_ended(reason.getErrorMessage())

    def processEnded(self, reason: Failure) -> None:
        for lines in self._lines.values():
            lines.end()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_ITS}
    # A worker finds its modules where the parent has found them.
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
