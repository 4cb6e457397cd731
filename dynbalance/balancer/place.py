"""
A place in an upstream's waiting line, for as long as its owner is willing.

Joins the line, which knows no time, with a deadline; refuses to know what the
owner does with the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dynbalance.balancer.lease import Lease
    from dynbalance.balancer.server import Server
    from dynbalance.balancer.strict import StrictUpstream
    from dynbalance.balancer.upstream import Upstream


class Timers(Protocol):
    """
    What watches deadlines; L{dynbalance.net.deadlines.Deadlines} does.

    @ivar now: seconds of the clock.
    """

    now: Callable[[], float]

    def set(self, timed: Place, delay: float) -> None:
        """Call C{timed.deadline_passed} in so many seconds."""

    def forget(self, timed: Place) -> None:
        """Do not."""


class Owner(Protocol):
    """Who waits.  Exactly one of the two is called, unless it leaves before."""

    def slot_granted(self, lease: Lease) -> None:
        """There is a slot."""

    def waited_in_vain(self) -> None:
        """There was none in time."""


class Chooser(Protocol):
    """Who has chosen a server by itself, and waits for a place on that one."""

    def slot_granted(self, lease: Lease) -> None:
        """It has one."""

    def chosen_is_full(self) -> None:
        """It has none, over all nodes."""


class OnlyThat:
    """The owner of a place for a L{Chooser}: no other server will do."""

    __slots__ = ("_chooser",)

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser

    def __repr__(self) -> str:
        return repr(self._chooser)

    def slot_granted(self, lease: Lease) -> None:
        self._chooser.slot_granted(lease)

    def waited_in_vain(self) -> None:
        self._chooser.chosen_is_full()


class Place:
    """
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = ("_begun", "_owner", "_timers", "_upstream", "deadline", "due")

    def __init__(self, upstream: Upstream, timers: Timers, owner: Owner) -> None:
        self.deadline = inf
        self.due = inf
        self._upstream = upstream
        self._begun = timers.now()
        self._timers = timers
        self._owner = owner

    def __repr__(self) -> str:
        return f"<Place of {self._owner!r} in the line of {self._upstream.name}>"

    def take(self, seconds: float, tried: Collection[Server], key: bytes) -> bool:
        """
        Begin to wait, after L{Upstream.choose
        <dynbalance.balancer.upstream.Upstream.choose>} gave C{None}.

        @return: whether there was a place; where the store is asked, there is
            one in any case, and the answer comes later.
        """
        if not self._upstream.wait(self, tried, key):
            return False
        self._timers.set(self, seconds)
        return True

    def ask(
        self,
        upstream: StrictUpstream,
        seconds: float,
        tried: Collection[Server] = (),
        key: bytes = b"",
        first: Server | None = None,
        only: Server | None = None,
    ) -> None:
        """As L{take}, where the store is asked about each choice."""
        self._timers.set(self, seconds)
        upstream.ask(self, tried, key, first, only)

    def cancel(self) -> None:
        """Wait no more."""
        self._timers.forget(self)
        self._upstream.leave_queue(self)

    def granted(self, lease: Lease) -> None:
        self._upstream.tally.waits.note(self._timers.now() - self._begun)
        self._timers.forget(self)
        self._owner.slot_granted(lease)

    def refused(self) -> None:
        self._upstream.tally.vain += 1
        self._timers.forget(self)
        self._owner.waited_in_vain()

    def deadline_passed(self) -> None:
        self._upstream.tally.vain += 1
        self.cancel()
        self._owner.waited_in_vain()
