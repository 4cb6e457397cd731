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

from dynbalance.log import Logger

TICK = 0.125
"""
Seconds: how late a deadline may be noticed.  A power of two, so that the
edges of the buckets are exact.
"""


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
        self._call: IDelayedCall | None = None
        self._next = 0

    def __repr__(self) -> str:
        return f"<Deadlines {sum(map(len, self._buckets.values()))} watched>"

    def set(self, timed: Timed, delay: float) -> None:
        """Let C{timed} wait for C{delay} seconds from now."""
        timed.deadline = deadline = self.now() + delay
        # A bucket holds what falls due in the TICK before its number.
        if not timed.bucket or deadline < (timed.bucket - 1) * TICK:
            self._move(timed, int(deadline / TICK) + 1)

    def clear(self, timed: Timed) -> None:
        """C{timed} waits no longer, but will probably wait again."""
        timed.deadline = inf

    def forget(self, timed: Timed) -> None:
        """C{timed} never waits again: nothing keeps hold of it."""
        timed.deadline = inf
        if timed.bucket:
            self._leave(timed)
            if not self._buckets:
                self._rest()

    def _leave(self, timed: Timed) -> None:
        members = self._buckets[timed.bucket]
        members.discard(timed)
        if not members:
            del self._buckets[timed.bucket]
        timed.bucket = 0

    def _move(self, timed: Timed, bucket: int) -> None:
        if timed.bucket:
            self._leave(timed)
        timed.bucket = bucket
        members = self._buckets.get(bucket)
        if members is None:
            self._buckets[bucket] = {timed}
            if self._call is None or bucket < self._next:
                self._wait_for(bucket)
        else:
            members.add(timed)

    def _rest(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait_for(self, bucket: int) -> None:
        self._rest()
        self._next = bucket
        self._call = self._clock.callLater(max(0.0, bucket * TICK - self.now()), self._turn)

    def _turn(self) -> None:
        self._call = None
        now = self.now()
        current = int(now / TICK)
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= current):
            members = self._buckets.get(bucket, set())
            # Whoever is told may change any other wait, those of this bucket
            # too: hence one at a time, and out of the bucket first.
            for _ in range(len(members)):
                if not members:
                    break
                timed = members.pop()
                timed.bucket = 0
                self._look_at(timed, now)
            if not members and self._buckets.get(bucket) is members:
                del self._buckets[bucket]
        if self._buckets:
            self._wait_for(min(self._buckets))
        else:
            self._rest()

    def _look_at(self, timed: Timed, now: float) -> None:
        if timed.deadline > now:
            if timed.deadline != inf:
                self._move(timed, int(timed.deadline / TICK) + 1)
            return
        timed.deadline = inf
        try:
            timed.deadline_passed()
        except Exception:  # noqa: BLE001 - one mistake must not end the others' waits
            self._log.failure("the end of a wait failed: {timed}", timed=timed)
