"""
How late the reactor is: whatever takes long in it holds up all connections.

Knows when a timer should have rung; refuses to know what held it up.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dynbalance.balancer.latency import Times

EVERY = 0.25
"""Seconds from one look to the next."""


class Lag:
    """
    @ivar times: how late the timer was, each time that it rang.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.times = Times()
        self._clock = clock
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Lag {self.times}>"

    def start(self) -> None:
        """Begin to look."""
        self._due = self._clock.seconds() + EVERY
        self._call = self._clock.callLater(EVERY, self._ring)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _ring(self) -> None:
        self.times.note(max(0.0, self._clock.seconds() - self._due))
        self.start()
