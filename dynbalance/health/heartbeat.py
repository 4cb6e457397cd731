"""
Taking out the servers whose heartbeats stopped, round after round.

Knows when it is fair to judge; refuses to know how heartbeats are kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime

from dynbalance.health.rounds import Rounds
from dynbalance.log import Logger
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership


class HeartbeatCleanup(Rounds):
    """
    A round every C{interval} seconds over all upstreams.

    A round is left out until the store was there for a whole C{ttl} without a
    break: a server whose heartbeat found the door closed gets the time to send
    its next one.
    """

    _log = Logger()
    what = "The heartbeat round"

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
        super().__init__(upstreams, interval, clock)
        self._store = store
        self._membership = membership
        self._ttl = ttl

    def due(self, upstream: str) -> bool:
        return self._membership.contact.available_for >= self._ttl

    async def do(self, upstream: str) -> None:
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
