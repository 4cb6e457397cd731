"""
A program that is kept running.

Knows processes and their log file; refuses to know what the program is for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from dynbalance.backoff import BackOff
from dynbalance.log import Logger

PATIENCE = 5.0
"""Seconds that it may take to end when it is asked to."""

LOG_SIZE = 1 << 20
"""Bytes of log after which a start begins a new file and keeps the last one."""


class Child(ProcessProtocol):
    """
    @ivar pid: of the running process; C{None} between two.
    """

    _log = Logger()

    def __init__(self, reactor: Any, name: str, command: Sequence[str], log: str) -> None:
        """
        @param name: what messages call it.
        @param command: program and arguments.
        @param log: the file that gets all that it writes.
        """
        self._reactor = reactor
        self._name = name
        self._command = command
        self._log_path = log
        self._back_off = BackOff()
        self._started = 0.0
        self._process: IProcessTransport | None = None
        self._next: IDelayedCall | None = None
        self._ending: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Child {self._name} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Run it, and run it again whenever it ends."""
        self._next = None
        self._started = self._reactor.seconds()
        try:
            self._process = self._spawn()
        except OSError as error:
            self._again(str(error))

    def _spawn(self) -> IProcessTransport:
        with open(os.devnull, "rb") as nothing, open(self._fresh_log(), "ab") as log:
            process: IProcessTransport = self._reactor.spawnProcess(
                self,
                self._command[0],
                self._command,
                env=None,
                childFDs={0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()},
            )
        return process

    def stop(self) -> Deferred[None]:
        """
        Ask it to end, and make it end when it does not.

        @return: fires when no process is left.
        """
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._process is None:
            return succeed(None)
        self._ending = Deferred()
        self._signal("TERM")
        force = self._reactor.callLater(PATIENCE, self._signal, "KILL")
        return self._ending.addCallback(lambda _: force.active() and force.cancel())

    def processEnded(self, reason: Failure) -> None:
        self._process = None
        if self._ending is not None:
            # Later, because a reactor that starts reaps before it runs, and
            # whoever waits may want to stop it.
            self._reactor.callLater(0, self._ending.callback, None)
        else:
            self._again(reason.getErrorMessage())

    def _again(self, reason: str) -> None:
        delay = self._back_off.delay(self._reactor.seconds() - self._started)
        self._log.error(
            "{name} does not run: {reason}; started again in {delay} s; its log is {log}",
            name=self._name,
            reason=reason,
            delay=delay,
            log=self._log_path,
        )
        self._next = self._reactor.callLater(delay, self.start)

    def _signal(self, name: str) -> None:
        if self._process is not None:
            # A process that has ended is about to tell.
            with suppress(ProcessExitedAlready):
                self._process.signalProcess(name)

    def _fresh_log(self) -> str:
        path = self._log_path
        if os.path.exists(path) and os.path.getsize(path) > LOG_SIZE:
            os.replace(path, path + ".1")
        return path
