"""
Those who wait for a slot while all servers are full.

Knows who came first; refuses to know how a server is chosen, and for how long
anybody is willing to wait: a deadline is the waiter's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Protocol

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server

PASSED_OVER = 16
"""
Waiters at most that are passed over, because they have tried the server that
became free, before it is left to whoever asks next.
"""


class Waiter(Protocol):
    """Who waits; compared by identity."""

    def granted(self, lease: Lease) -> None:
        """
        A slot is there, and the waiter waits no more.  Called from within
        whatever made it free, such as another request's release.

        A waiter that raises does not have the lease: it is given back, the
        others are served, and then the exception goes on.
        """

    def refused(self) -> None:
        """
        There is no slot, and the waiter waits no more.  Only where the store
        is asked about each choice; elsewhere who waits waits.
        """


def hand_over(lease: Lease, waiter: Waiter) -> Exception | None:
    """
    @return: what the waiter raised, for when the others are served.
    """
    try:
        waiter.granted(lease)
    except Exception as error:  # noqa: BLE001 - the others still wait
        if not lease.released:
            lease.release()
        return error
    return None


class Line(Protocol):
    """
    @ivar places: how many may wait; 0 for nobody.
    """

    places: int

    def __len__(self) -> int:
        """How many wait."""

    def join(self, waiter: Waiter, tried: Collection[Server], key: bytes) -> bool:
        """@return: whether there was a place."""

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""

    def serve(self) -> None:
        """Something may have become free."""


class WaitingLine:
    """
    First come, first served; each step costs the same however many wait.

    Releases from within C{granted} are served by the same loop, not by a loop
    within the loop.
    """

    __slots__ = ("_choose", "_serving", "_waiting", "places")

    def __init__(
        self, places: int, choose: Callable[[Collection[Server], bytes], Lease | None]
    ) -> None:
        """
        @param places: how many may wait; 0 for nobody.
        @param choose: a slot for who has tried these servers and has this key.
        """
        self.places = places
        self._choose = choose
        self._waiting: OrderedDict[Waiter, tuple[Collection[Server], bytes]] = OrderedDict()
        self._serving = False

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, waiter: Waiter, tried: Collection[Server], key: bytes) -> bool:
        """
        Wait at the end; who waits already keeps the place.

        @return: whether there was a place.
        """
        if waiter not in self._waiting and len(self._waiting) >= self.places:
            return False
        self._waiting[waiter] = (tried, key)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Wait no more; nothing happens when the waiter does not wait."""
        self._waiting.pop(waiter, None)

    def serve(self) -> None:
        """Something may have become free: give it to those who wait for it."""
        if self._serving or not self._waiting:
            return
        self._serving = True
        broken: Exception | None = None
        passed: list[Waiter] = []
        try:
            # Those who come to wait while this runs are for the next time.
            for _ in range(len(self._waiting)):
                if not self._waiting or len(passed) > PASSED_OVER:
                    break
                waiter, (tried, key) = next(iter(self._waiting.items()))
                lease = self._choose(tried, key)
                if lease is None:
                    if not tried:
                        break
                    passed.append(waiter)
                    self._waiting.move_to_end(waiter)
                    continue
                del self._waiting[waiter]
                failed = hand_over(lease, waiter)
                broken = broken or failed
        finally:
            for waiter in reversed(passed):
                if waiter in self._waiting:
                    self._waiting.move_to_end(waiter, last=False)
            self._serving = False
        if broken is not None:
            raise broken
