"""
Deadlines for very many connections, at the price of an attribute each.

A C{callLater} for each wait would cost more than the request it guards.  Here
a deadline is a number on the connection; the connection also stands in one
coarse bucket, and a bucket that falls due looks again at the number.  To move
a deadline further away, which is what nearly every request does, costs one
comparison.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

TICK = 0.1
"""Seconds: how late a deadline may be noticed."""


class Timed(Protocol):
    """
    Something that waits.

    @ivar deadline: when the wait is over, seconds of the clock; C{inf} for
        no wait.  To be set by L{Deadlines.set} only.
    @ivar bucket: where L{Deadlines} looks for it next; 0 for nowhere.
    """

    deadline: float
    bucket: int

    def deadline_passed(self) -> None:
        """The wait is over.  The deadline was cleared before the call."""


class Deadlines:
    """
    Watches the deadlines of many L{Timed} things.

    @param clock: tells the time and calls later.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self.now = clock.seconds
        self._clock = clock
        self._buckets: dict[int, set[Timed]] = {}
        self._turned = int(clock.seconds() / TICK)
        self._call: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Deadlines {sum(map(len, self._buckets.values()))} watched>"

    def set(self, timed: Timed, delay: float) -> None:
        """Let C{timed} wait for C{delay} seconds from now."""
        timed.deadline = deadline = self.now() + delay
        bucket = int(deadline / TICK) + 1
        if not timed.bucket or bucket < timed.bucket:
            self._move(timed, bucket)

    def clear(self, timed: Timed) -> None:
        """C{timed} waits no longer, but will probably wait again."""
        timed.deadline = inf

    def forget(self, timed: Timed) -> None:
        """C{timed} never waits again: nothing keeps hold of it."""
        timed.deadline = inf
        if timed.bucket:
            self._leave(timed)

    def _leave(self, timed: Timed) -> None:
        members = self._buckets[timed.bucket]
        members.discard(timed)
        if not members:
            del self._buckets[timed.bucket]
            if not self._buckets and self._call is not None:
                self._call.cancel()
                self._call = None
        timed.bucket = 0

    def _move(self, timed: Timed, bucket: int) -> None:
        if timed.bucket:
            self._leave(timed)
        timed.bucket = bucket
        if self._call is None:
            self._turned = int(self.now() / TICK)
            self._call = self._clock.callLater(TICK, self._turn)
        self._buckets.setdefault(bucket, set()).add(timed)

    def _turn(self) -> None:
        self._call = None
        now = self.now()
        current = int(now / TICK)
        due = range(self._turned + 1, current + 1)
        if len(due) > len(self._buckets):
            # A long sleep, or a clock that jumped.
            due_buckets = sorted(bucket for bucket in self._buckets if bucket <= current)
        else:
            due_buckets = [bucket for bucket in due if bucket in self._buckets]
        self._turned = current
        for bucket in due_buckets:
            for timed in self._buckets.pop(bucket, ()):
                timed.bucket = 0
                if timed.deadline > now:
                    if timed.deadline != inf:
                        self._move(timed, int(timed.deadline / TICK) + 1)
                    continue
                timed.deadline = inf
                try:
                    timed.deadline_passed()
                except Exception:
                    self._log.failure("the end of a wait failed: {timed}", timed=timed)
        if self._buckets and self._call is None:
            self._call = self._clock.callLater(TICK, self._turn)
