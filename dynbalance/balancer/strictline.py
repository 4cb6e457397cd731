"""
Those who seek a slot on servers whose places the store grants.

Three places to be in, one after the other: new, asked for, and the waiting
line, for whoever finds all servers full.  First come, first served.

Knows who came first and which choices wait for the store; refuses to know how a
server is chosen and how the store is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from attrs import define

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server
from dynbalance.balancer.waiting import PASSED_OVER, Waiter, hand_over
from dynbalance.store.reports import Wish


@define(slots=True, eq=False)
class Ask:
    """
    @ivar waiter: who; C{None} after it left.
    @ivar tried: never to be chosen for it.
    @ivar first: is chosen first, if it may be.
    @ivar only: no other will do.
    @ivar refused: those that the store has refused, until it waits in line.
    @ivar lease: on the server that it is being asked for.
    """

    waiter: Waiter | None
    tried: tuple[Server, ...] = ()
    key: bytes = b""
    first: Server | None = None
    only: Server | None = None
    refused: tuple[Server, ...] = ()
    lease: Lease | None = None


def _nobody() -> None:
    """Nobody asks the store yet."""


class StrictLine:
    """
    Takes the place of a L{WaitingLine <dynbalance.balancer.waiting.WaitingLine>}.

    @ivar places: how many may wait while all servers are full.
    @ivar exact: whether the store is asked.
    @ivar held_up: whether it has to be waited for before anything is chosen.
    @ivar vain: somebody found all servers full.
    @ivar sharers: nodes that want their part of each server's places; 1 while
        nobody else goes short.
    @ivar luck: decides, from 0 to 1, whose turn it is where there is less
        than one place for each of them.
    @ivar wake: says that L{turn} is wanted.
    """

    __slots__ = (
        "_asked", "_choose", "_choose_this", "_confirmed", "_new", "_parked",
        "_turning", "exact", "held_up", "luck", "places", "sharers", "vain", "wake",
    )

    def __init__(
        self,
        places: int,
        choose: Callable[[Collection[Server], bytes], Lease | None],
        choose_this: Callable[[Server, Collection[Server]], Lease | None],
    ) -> None:
        self.places = places
        self.exact = False
        self.held_up = False
        self.vain = False
        self.sharers = 1
        self.luck = 0.0
        self.wake: Callable[[], None] = _nobody
        self._choose = choose
        self._choose_this = choose_this
        self._new: OrderedDict[Waiter, Ask] = OrderedDict()
        self._parked: OrderedDict[Waiter, Ask] = OrderedDict()
        self._asked: dict[Server, list[Ask]] = {}
        self._confirmed: list[Ask] = []
        self._turning = False

    def __len__(self) -> int:
        return len(self._parked)

    def seek(self, ask: Ask) -> None:
        """Begin."""
        assert ask.waiter is not None
        self._new[ask.waiter] = ask
        self.wake()

    def join(self, waiter: Waiter, tried: Collection[Server], key: bytes) -> bool:
        """Begin likewise; whether there is a place for it is told later."""
        self.seek(Ask(waiter, tuple(tried), key))
        return True

    def leave(self, waiter: Waiter) -> None:
        """Seek no more; a place that is being asked for is given back when it comes."""
        if self._new.pop(waiter, None) or self._parked.pop(waiter, None):
            return
        for asks in (*self._asked.values(), self._confirmed):
            for ask in asks:
                if ask.waiter is waiter:
                    ask.waiter = None
                    return

    def serve(self) -> None:
        """Something may have become free."""
        if (self._new or self._parked) and not self._turning:
            self.wake()

    # A turn

    def turn(self) -> tuple[Wish, ...]:
        """See L{StrictUpstream.turn <dynbalance.balancer.strict.StrictUpstream.turn>}."""
        if self.held_up:
            return ()
        self._turning = True
        self._serve_parked()
        new, self._new = self._new, OrderedDict()
        vain = [ask for ask in new.values() if not self._place(ask)]
        self._turning = False
        self._dismiss(vain)
        self.deliver()
        return tuple(_wish(server, asks) for server, asks in self._asked.items())

    def _serve_parked(self) -> None:
        passed = 0
        for ask in list(self._parked.values()):
            if self._place(ask):
                assert ask.waiter is not None
                del self._parked[ask.waiter]
                continue
            passed += 1
            ask.refused = ()
            if not ask.tried or passed > PASSED_OVER:
                return

    def _place(self, ask: Ask) -> bool:
        """@return: whether there is a server for it, as far as this node knows."""
        lease = self._chosen(ask)
        while lease is not None and self._takes_too_much(lease.server):
            ask.lease = lease
            self._take_back(ask)
            ask.refused += (lease.server,)
            lease = self._chosen(ask)
        if lease is None:
            return False
        ask.lease = lease
        server = lease.server
        if not self.exact or not server.max_conns or server.held - server.asked <= server.granted:
            self._confirmed.append(ask)
        else:
            server.asked += 1
            self._asked.setdefault(server, []).append(ask)
        return True

    def _takes_too_much(self, server: Server) -> bool:
        """Whether this node has its part of a server, and others go short."""
        if self.sharers == 1 or not (self.exact and server.max_conns):
            return False
        part = server.max_conns / self.sharers
        if part < 1:
            # There is less than one for each: by turns.
            return self.luck >= part
        return server.held - 1 >= part

    def _chosen(self, ask: Ask) -> Lease | None:
        if ask.only is not None:
            return None if ask.only in ask.refused else Lease.force(ask.only)
        tried = ask.tried + ask.refused
        lease = None if ask.first is None else self._choose_this(ask.first, tried)
        return lease or self._choose(tried, ask.key)

    def _dismiss(self, vain: list[Ask]) -> None:
        """All servers are full: wait in line where that is possible."""
        self.vain = self.vain or bool(vain)
        for ask in vain:
            waiter = ask.waiter
            assert waiter is not None
            ask.refused = ()
            if ask.only is None and len(self._parked) < self.places:
                self._parked[waiter] = ask
            else:
                waiter.refused()

    # The answer

    def settle(self, counts: tuple[int, ...]) -> list[Server]:
        """
        Hear what was granted of each wish of the last turn; nothing at all if
        the store would not hear them.

        @return: the servers that were granted, each as often.
        """
        asked, self._asked = self._asked, {}
        got: list[Server] = []
        again: list[Ask] = []
        for place, (server, asks) in enumerate(asked.items()):
            server.asked -= len(asks)
            count = counts[place] if counts else 0
            got += [server] * count
            self._confirmed += asks[:count]
            for ask in asks[count:]:
                self._take_back(ask)
                if counts:
                    ask.refused += (server,)
                if ask.waiter is not None:
                    again.append(ask)
        first = OrderedDict((ask.waiter, ask) for ask in again if ask.waiter is not None)
        first.update(self._new)
        self._new = first
        return got

    @staticmethod
    def _take_back(ask: Ask) -> None:
        lease, ask.lease = ask.lease, None
        assert lease is not None
        lease.server.picks -= 1
        lease.release()

    def give_up(self) -> None:
        """There is no answer: what was chosen stands."""
        asked, self._asked = self._asked, {}
        for server, asks in asked.items():
            server.asked -= len(asks)
            self._confirmed += asks
        self.deliver()

    def deliver(self) -> None:
        """Hand over what is granted."""
        confirmed, self._confirmed = self._confirmed, []
        broken: Exception | None = None
        for ask in confirmed:
            lease, waiter = ask.lease, ask.waiter
            assert lease is not None
            if waiter is None:
                lease.release()
                continue
            ask.waiter = None
            failed = hand_over(lease, waiter)
            broken = broken or failed
        if broken is not None:
            raise broken


def _wish(server: Server, asks: list[Ask]) -> Wish:
    return Wish(
        address=server.key,
        count=len(asks),
        limit=server.max_conns if server.from_file else None,
        # The very last resort, and hooks, choose what nobody else would.
        anyhow=not server.eligible or any(ask.only is not None for ask in asks),
    )
