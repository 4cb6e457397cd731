"""
Telling the service manager how things are: the protocol of C{sd_notify(3)}.

Knows the words, and the socket that they go to; refuses to know what they are
said about.  Without a service manager that listens nothing is said.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall

from dynbalance.log import Logger

PATIENCE = 1.0
"""Seconds that the manager may take for a word; it has a long queue of its own."""

_MICRO = 1_000_000


class Notifier:
    """
    @param address: of the manager's socket: a path, or C{@} and an abstract
        name; empty for nobody.
    @param watchdog: seconds after which a silent process is taken for hung; 0
        for never.
    @param clock: the process's; its seconds are those of C{CLOCK_MONOTONIC}.
    """

    _log = Logger()

    def __init__(self, address: str, watchdog: float, clock: Any) -> None:
        self._address = address
        self._watchdog = watchdog if address else 0.0
        self._clock = clock
        self._beats = LoopingCall(self._say, "WATCHDOG=1")
        self._beats.clock = clock
        self._failed = False

    def __repr__(self) -> str:
        return f"<Notifier of {self._address or 'nobody'} watchdog={self._watchdog:g}>"

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int, clock: Any) -> Notifier:
        """
        What the environment says, which is taken out of it: children are not
        to speak for this process.

        @param pid: of this process.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", "")
        watchdog = int(period) / _MICRO if period.isdigit() and meant in ("", str(pid)) else 0.0
        if not address.startswith(("/", "@")):
            # Nothing is there, or something that is not of this machine.
            address = ""
        return cls(address, watchdog, clock)

    def ready(self, status: str) -> None:
        """It serves, for the first time or again by another configuration."""
        self._say("READY=1", f"STATUS={status}")
        if self._watchdog and not self._beats.running:
            self._beats.start(self._watchdog / 2)

    def reloading(self) -> None:
        """It goes on by another configuration; L{ready} follows."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.seconds() * _MICRO)}")

    def stopping(self, status: str, seconds: float) -> None:
        """
        It ends.

        @param seconds: that this may take.
        """
        self._say("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * _MICRO)}")

    def stop(self) -> None:
        """Nothing is said any more."""
        if self._beats.running:
            self._beats.stop()

    def _say(self, *words: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.settimeout(PATIENCE)
                to.sendto("\n".join(words).encode(), address)
        except OSError as failed:
            if not self._failed:
                self._failed = True
                self._log.warn(
                    "The service manager at {address} does not hear: {failed}",
                    address=self._address,
                    failed=str(failed),
                )


def silent(clock: Any) -> Notifier:
    """For a process that nobody listens to."""
    return Notifier("", 0.0, clock)
