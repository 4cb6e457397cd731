"""
Asking the store about each choice of an upstream with C{counting = "strict"}.

One call at a time: what is chosen while one is on its way goes with the next,
so that many choices share a round trip.  Knows when to ask, and what a lost
answer and a lost store mean; refuses to know how a server is chosen.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynbalance.balancer.strict import StrictUpstream
from dynbalance.errors import StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store.contract import Store
from dynbalance.store.reports import Granted, SyncAnswer


class Numbers:
    """
    A node's count of its calls.

    @ivar last: the number of the last one.
    """

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last

    def reach(self, number: int) -> None:
        """The store has heard a larger one, of an earlier process of this name."""
        self.last = max(self.last, number)


class Asking:
    """
    The calls of one upstream.

    @ivar seen: the C{seq} of the last answer to this or to a sync.
    """

    _log = Logger()

    def __init__(
        self,
        upstream: StrictUpstream,
        store: Store,
        node: str,
        lease: float,
        numbers: Numbers,
        clock: IReactorTime,
        failed: Callable[[], None],
    ) -> None:
        """
        @param lease: seconds for which the store counts what it has heard.
        @param failed: is called when an answer was lost: then nobody knows
            what the store has, before it was told all.
        """
        self.seen = 0
        self._upstream = upstream
        self._store = store
        self._node = node
        self._lease = lease
        self._numbers = numbers
        self._clock = clock
        self._failed = failed
        self._under_way = 0
        self._woken = False
        self._counted_till = 0.0
        self._away = False
        self._nodes = 1
        self._hungry = 0
        upstream.when_asked(self._wake)

    def __repr__(self) -> str:
        return f"<Asking for {self._upstream.name} exact={self._upstream.exact}>"

    def settled(self, number: int) -> int:
        """
        @param number: of a report.
        @return: up to which all grants are known to this node.
        """
        return self._under_way - 1 if self._under_way else number

    def hungry(self) -> bool:
        """Whether this node went short of its part since it was asked last."""
        return self._upstream.hungry(self._nodes)

    # From the exchange of counts

    def share(self, answer: SyncAnswer, was_hungry: bool) -> None:
        """Hear how many nodes there are, and whether another one goes short."""
        self._nodes = max(1, answer.nodes)
        others = answer.hungry - self._hungry - was_hungry
        self._hungry = answer.hungry
        self._upstream.share(self._nodes if others > 0 else 1)

    def heard(self, lapsed: bool, at: float) -> None:
        """
        A report was answered.

        @param lapsed: it was not applied, because the store had given this
            node's connections back.
        @param at: when it was sent.
        """
        if lapsed:
            self._upstream.lapse()
            return
        self._counted_till = at + self._lease
        if self._away:
            self._away = False
            self._log.info(
                "Upstream {upstream}: the store is asked again, max_conns holds over all nodes",
                upstream=self._upstream.name,
            )
        self._upstream.near()

    def lost(self, why: str) -> None:
        """The store is away."""
        if self._upstream.exact:
            self._away = True
            self._log.warn(
                "Upstream {upstream}: the store cannot be asked ({why});"
                " each node keeps max_conns by what it knows",
                upstream=self._upstream.name,
                why=why,
            )
        self._upstream.away()

    # Asking

    def _wake(self) -> None:
        if not (self._woken or self._under_way):
            self._woken = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._woken = False
        upstream = self._upstream
        if upstream.exact and self._clock.seconds() >= self._counted_till:
            # This node was asleep, and others may have its places by now.
            upstream.lapse()
        try:
            wishes = upstream.turn()
        except Exception:  # noqa: BLE001 - the others' wishes go with the next turn
            self._log.failure("A slot could not be taken")
            self._wake()
            return
        if not wishes:
            return
        number = self._under_way = self._numbers.next()
        asked = self._store.grant(upstream.name, self._node, number, self.seen, wishes)
        asked.addCallbacks(self._answered, self._unanswered)
        asked.addErrback(self._broken)

    def _answered(self, answer: Granted) -> None:
        self._under_way = 0
        self._numbers.reach(answer.last)
        if answer.lapsed:
            self._upstream.lapse()
        if answer.seq:
            self.seen = answer.seq
        self._upstream.granted(answer)

    def _unanswered(self, failure: Failure) -> None:
        self._under_way = 0
        failure.trap(StoreUnavailable)
        self._failed()
        self.lost(failure.getErrorMessage())

    def _broken(self, failure: Failure) -> None:
        self._under_way = 0
        self._log.failure("The answer about a choice could not be carried out", failure)
