"""
An upstream with C{counting = "strict"}: C{max_conns} holds over all nodes.

A server is chosen here, as ever, by the policy and by what this node knows;
but then the store has to grant the place, unless this node has one that the
store counts for it already.  A refusal brings the news by which the next
choice is a better one.

Knows what the line below knows not: the counts of the servers.  Refuses to know
how the store is asked.  While it cannot be, everything is as with C{"fast"}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.server import Server
from dynbalance.balancer.strictline import Ask, StrictLine
from dynbalance.balancer.upstream import Upstream
from dynbalance.balancer.waiting import Waiter
from dynbalance.store.reports import Granted, Wish

TURN = 3
"""
Exchanges for which a node's luck lasts: with one a place is given back, and in
the next the others hear of it.
"""


class StrictUpstream(Upstream):
    """
    @ivar exact: whether the store is asked about each choice.
    """

    _asks: StrictLine

    def _form(self, policy: str, options: UpstreamOptions) -> None:
        if self._line is not getattr(self, "_asks", None):
            # The policies have to know whom to tell of a place.
            self._line = self._asks = StrictLine(
                options.queue, super()._choose, super().choose_this
            )
            # Address -> what was granted since the last report was made.
            self._fresh: dict[str, int] = {}
            self._turns = 0
        super()._form(policy, options)

    @property
    def exact(self) -> bool:
        return self._asks.exact

    # Choosing

    def choose(self, tried: Collection[Server] = (), key: bytes = b"") -> Lease | None:
        """As any upstream's while the store is away; else C{None}: see L{ask}."""
        return None if self._asks.exact else super().choose(tried, key)

    def choose_this(self, server: Server, tried: Collection[Server] = ()) -> Lease | None:
        """Likewise."""
        return None if self._asks.exact else super().choose_this(server, tried)

    def wait(
        self, waiter: Waiter, tried: Collection[Server] = (), key: bytes = b""
    ) -> bool:
        """As L{ask}."""
        self.ask(waiter, tried, key)
        return True

    def ask(
        self,
        waiter: Waiter,
        tried: Collection[Server] = (),
        key: bytes = b"",
        first: Server | None = None,
        only: Server | None = None,
    ) -> None:
        """
        Seek a slot, after L{choose} gave C{None}: the waiter is granted one,
        refused, or waits in the line, until L{leave_queue} is called.

        @param first: is asked for first, if it may be chosen.
        @param only: no other will do, whatever its state.
        """
        self._asks.seek(Ask(waiter, tuple(tried), key, first, only))

    def asks_for(self, server: Server) -> bool:
        """Whether a place on this server has to be L{ask}ed for."""
        return self._asks.exact and bool(server.max_conns) and self.server(server.key) is server

    # From who asks the store

    def when_asked(self, wake: Callable[[], None]) -> None:
        """@param wake: is called when L{turn} is wanted; not from within."""
        self._asks.wake = wake

    def turn(self) -> tuple[Wish, ...]:
        """
        Choose for all who ask.

        @return: what the store has to grant, if anything; L{granted} or
            L{away} follows, and no other turn before.
        """
        return self._asks.turn()

    def granted(self, answer: Granted) -> None:
        """Hear the store's answer to the last turn."""
        got = self._asks.settle(answer.counts)
        for server in got:
            server.reported += 1
            server.granted += 1
            self._fresh[server.key] = self._fresh.get(server.key, 0) + 1
        self._counts.apply(answer.totals, answer.complete)
        self._asks.deliver()
        self._asks.serve()

    def lapse(self) -> None:
        """
        The store does not count this node's connections: nobody gets a slot
        before it does again, or is found to be away.
        """
        for server in self._roll.known():
            server.granted = 0
        self._asks.exact = self._asks.held_up = True

    def away(self) -> None:
        """The store cannot be asked: count as well as this node can alone."""
        self._asks.exact = self._asks.held_up = False
        self._asks.give_up()
        self._asks.serve()

    def near(self) -> None:
        """The store counts this node's connections and can be asked."""
        self._asks.exact, self._asks.held_up = True, False
        self._asks.serve()

    # Sharing with other nodes

    def hungry(self, nodes: int) -> bool:
        """
        Whether somebody found no server since this was asked last, although
        this node holds less than its part of what there may be.

        @param nodes: that share it.
        """
        vain, self._asks.vain = self._asks.vain or bool(self.waiting), False
        if not vain:
            return False
        limited = [server for server in self._roll.here.values() if server.max_conns]
        held = sum(server.held - server.asked for server in limited)
        return held * nodes < sum(server.max_conns for server in limited)

    def share(self, nodes: int) -> None:
        """
        Leave room for others.

        @param nodes: that share each server's places from now on; 1 while
            nobody else goes short.
        """
        asks = self._asks
        self._turns += 1
        if self._turns % TURN == 0:
            asks.luck = self._random()
        asks.sharers = nodes
        asks.serve()

    # Counts over all nodes

    def report(self, full: bool = False) -> Mapping[str, int]:
        # From now on the store may count what is told here, and no more.
        self._fresh.clear()
        for server in self._roll.known():
            server.granted = min(server.granted, server.held - server.asked)
        return super().report(full)

    def acknowledge(self, report: Mapping[str, int]) -> None:
        # What was granted meanwhile was granted before the report came.
        fresh = self._fresh
        taken = {key: held + fresh.get(key, 0) for key, held in report.items()}
        super().acknowledge(taken)
        for key, count in taken.items():
            server = self._roll.find(key)
            if server is not None:
                server.granted = count
