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
        no wait.  To be set by L{Deadlines.set}, or as
        L{Deadlines.watch} says.
    @ivar due: when L{Deadlines} looks at it next; C{inf} for never.
    """

    deadline: float
    due: float

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
        # By when they fall due: each holds what does so in the TICK after that.
        self._buckets: dict[float, set[Timed]] = {}
        self._call: IDelayedCall | None = None
        self._next = 0.0

    def __repr__(self) -> str:
        return f"<Deadlines {sum(map(len, self._buckets.values()))} watched>"

    def set(self, timed: Timed, delay: float) -> None:
        """Let C{timed} wait for C{delay} seconds from now."""
        timed.deadline = deadline = self.now() + delay
        if deadline < timed.due:
            self.watch(timed)

    def watch(self, timed: Timed) -> None:
        """
        C{timed} has set its deadline by itself, to a time before it is due.

        What needs to be told is only that: who waits anew at each request does
        as L{set} does, without the call.
        """
        if timed.due != inf:
            self._leave(timed)
        due = timed.due = timed.deadline // TICK * TICK
        members = self._buckets.get(due)
        if members is None:
            self._buckets[due] = {timed}
            if self._call is None or due < self._next:
                self._wait_for(due)
        else:
            members.add(timed)

    def clear(self, timed: Timed) -> None:
        """C{timed} waits no longer, but will probably wait again."""
        timed.deadline = inf

    def forget(self, timed: Timed) -> None:
        """C{timed} never waits again: nothing keeps hold of it."""
        timed.deadline = inf
        if timed.due != inf:
            self._leave(timed)
            if not self._buckets:
                self._rest()

    def _leave(self, timed: Timed) -> None:
        members = self._buckets[timed.due]
        members.discard(timed)
        if not members:
            del self._buckets[timed.due]
        timed.due = inf

    def _rest(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait_for(self, due: float) -> None:
        self._rest()
        self._next = due
        self._call = self._clock.callLater(max(0.0, due + TICK - self.now()), self._turn)

    def _turn(self) -> None:
        self._call = None
        now = self.now()
        for due in sorted(due for due in self._buckets if due + TICK <= now):
            members = self._buckets.get(due, set())
            # Whoever is told may change any other wait, those of this bucket
            # too: hence one at a time, and out of the bucket first.
            for _ in range(len(members)):
                if not members:
                    break
                timed = members.pop()
                timed.due = inf
                self._look_at(timed, now)
            if not members and self._buckets.get(due) is members:
                del self._buckets[due]
        if self._buckets:
            self._wait_for(min(self._buckets))
        else:
            self._rest()

    def _look_at(self, timed: Timed, now: float) -> None:
        if timed.deadline > now:
            if timed.deadline != inf:
                self.watch(timed)
            return
        timed.deadline = inf
        try:
            timed.deadline_passed()
        except Exception:  # noqa: BLE001 - one mistake must not end the others' waits
            self._log.failure("the end of a wait failed: {timed}", timed=timed)
