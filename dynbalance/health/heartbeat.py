"""
Taking out the servers whose heartbeats stopped, round after round.

Knows when it is fair to judge; refuses to know how heartbeats are kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.errors import StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership


class HeartbeatCleanup:
    """
    A round every C{interval} seconds over all upstreams.

    A round is left out until the store was there for a whole C{ttl} without a
    break: a server whose heartbeat found the door closed gets the time to send
    its next one.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        membership: Membership,
        upstreams: Iterable[str],
        ttl: float,
        interval: float,
        clock: IReactorTime,
    ) -> None:
        """
        @param ttl: seconds after its last heartbeat that a server is taken out.
        @param interval: seconds from one round to the next.
        """
        self._store = store
        self._membership = membership
        self._upstreams = tuple(upstreams)
        self._ttl = ttl
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

    def _begin_round(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._round())

    async def _round(self) -> None:
        for upstream in self._upstreams:
            if self._membership.available_for < self._ttl:
                return
            try:
                await self._expire(upstream)
            except StoreUnavailable:
                # The exchange of counts notices it too, and says it once.
                return
            except Exception:  # noqa: BLE001 - a LoopingCall ends with the first failure
                self._log.failure(
                    "The heartbeat round failed for upstream {upstream}; the next one comes"
                    " in {interval} s",
                    upstream=upstream,
                    interval=self._interval,
                )

    async def _expire(self, upstream: str) -> None:
        expiry = await self._store.expire(upstream, self._ttl)
        for address in expiry.disabled:
            self._log.warn(
                "Server {server} of upstream {upstream} is out: no heartbeat for {ttl} s",
                server=address,
                upstream=upstream,
                ttl=self._ttl,
            )
        if expiry.disabled:
            await self._membership.refresh(upstream)
