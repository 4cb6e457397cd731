"""
Ending the drains that are over, round after round.

Knows when to ask; that a drain is ended once only, and what that means, is the
store's to know.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime

from dynbalance.health.rounds import Rounds
from dynbalance.log import Logger
from dynbalance.store.contract import Drained, Intent, Store, Then
from dynbalance.store.membership import Membership

ROUND = 1.0
"""Seconds from one round to the next."""


class Drains(Rounds):
    """
    A round every L{ROUND} seconds over the upstreams that have a server whose
    drain is to end; the others cost no call of the store.
    """

    _log = Logger()
    what = "The look at the drains"

    def __init__(
        self,
        store: Store,
        membership: Membership,
        upstreams: Iterable[str],
        settle: float,
        clock: IReactorTime,
    ) -> None:
        """
        @param settle: seconds in which all nodes hear of a drain, and tell
            what they hold.
        """
        super().__init__(upstreams, ROUND, clock)
        self._store = store
        self._membership = membership
        self._settle = settle

    def due(self, upstream: str) -> bool:
        known = self._membership.known(upstream)
        return known is not None and any(
            record.intent is Intent.DRAIN and record.drain_then is not Then.STAY
            for record in known.servers
        )

    async def do(self, upstream: str) -> None:
        over = await self._store.finish_drains(upstream, self._settle)
        for drained in over:
            self._tell(upstream, drained)
        if over:
            await self._membership.refresh(upstream)

    def _tell(self, upstream: str, drained: Drained) -> None:
        done = "removed" if drained.then is Then.REMOVE else "disabled"
        if drained.left:
            self._log.warn(
                "Server {server} of upstream {upstream} is {done}: the time for its drain is up;"
                " {left} connections go on",
                server=drained.address,
                upstream=upstream,
                done=done,
                left=drained.left,
            )
        else:
            self._log.info(
                "Server {server} of upstream {upstream} is drained and {done}",
                server=drained.address,
                upstream=upstream,
                done=done,
            )
