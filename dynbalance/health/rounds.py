"""
Something that is done for every upstream, again and again.

Knows how to go on: after a failure, and with a store that is away.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.errors import StoreUnavailable
from dynbalance.log import Logger


class Rounds:
    """
    A round every C{interval} seconds over all upstreams.

    @cvar what: is done, for the log.
    """

    _log = Logger()
    what: str

    def __init__(self, upstreams: Iterable[str], interval: float, clock: IReactorTime) -> None:
        """@param interval: seconds from one round to the next."""
        self._upstreams = tuple(upstreams)
        self._interval = interval
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin; the first round comes after one interval."""
        self._loop.start(self._interval, now=False)

    def stop(self) -> None:
        """End; a round under way ends by itself."""
        if self._loop.running:
            self._loop.stop()

    def due(self, upstream: str) -> bool:
        """Whether there is something to do for an upstream."""
        raise NotImplementedError

    async def do(self, upstream: str) -> None:
        """Do it."""
        raise NotImplementedError

    def _begin_round(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._round())

    async def _round(self) -> None:
        for upstream in self._upstreams:
            if not self.due(upstream):
                continue
            try:
                await self.do(upstream)
            except StoreUnavailable:
                # The exchange of counts notices it too, and says it once.
                return
            except Exception:  # noqa: BLE001 - a LoopingCall ends with the first failure
                self._log.failure(
                    "{what} failed for upstream {upstream}; the next round comes in {interval} s",
                    what=self.what,
                    upstream=upstream,
                    interval=self._interval,
                )
