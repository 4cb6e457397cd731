"""
A named set of servers: who may be chosen now, and how that changes.

Knows the tiers, and brings together what decides about a choice: the policy,
the judgement, slow starts, the waiting line, the last resort.  Refuses to know
the store itself, transports, and the inner workings of each of these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from dynbalance.balancer.address import Address
from dynbalance.balancer.budget import RetryBudget
from dynbalance.balancer.counts import SharedCounts
from dynbalance.balancer.judgement import Judgement
from dynbalance.balancer.lastgood import LastGood, why_none
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.means import Means
from dynbalance.balancer.options import DEFAULTS, UpstreamOptions, UpstreamOrder
from dynbalance.balancer.policies import POLICIES
from dynbalance.balancer.roll import Applied, FileServer, Roll
from dynbalance.balancer.server import Server, State
from dynbalance.balancer.slowstart import SlowStart
from dynbalance.balancer.tally import Tally
from dynbalance.balancer.waiting import Line, Waiter, WaitingLine
from dynbalance.store.contract import ServerOrder, Snapshot

__all__ = ["Applied", "FileServer", "Upstream"]


class Upstream:
    """
    The live servers under one name, and the choice among them.

    @ivar name: as in the configuration.
    @ivar policy: the policy's name.
    @ivar wants_key: whether the policy goes by the key of a request.
    @ivar wants_times: whether the policy goes by L{answered}.
    @ivar revision: of the snapshot that was applied last.
    @ivar tries: servers, backups included, that are not ordered, expired or
        checked out: the attempts that a request has at first.
    @ivar budget: the retries that the servers can bear.
    @ivar tally: what is counted of it.
    """

    def __init__(
        self,
        name: str,
        policy: str,
        servers: Iterable[FileServer],
        now: Callable[[], float],
        random: Callable[[], float],
        options: UpstreamOptions = DEFAULTS,
    ) -> None:
        """
        @param policy: one of L{POLICIES}.
        @param servers: those of the configuration file.
        @param now: seconds that never run backwards.
        @param random: a number in [0, 1).
        @raise BadAddress: of one of C{servers}.
        """
        self.name = name
        self.revision = self.tries = 0
        self.budget = RetryBudget(options.retry_budget, now)
        self._now = now
        self._random = random
        self._line: Line = WaitingLine(options.queue, self._choose)
        self._slow_start = SlowStart(options.slow_start, now)
        # Whether a server that becomes ready now starts slowly: not those that
        # are there when this node starts.
        self._gentle = self._loaded = False
        self._form(policy, options)
        self._judgement = Judgement(now, self._note_change)
        self._out = self._judgement.out
        self._roll = Roll(name, self._make, self._judgement.forget)
        self.tally = Tally(self._roll.known)
        self._counts = SharedCounts(self._roll)
        self._arrange(self._roll.list_file(servers))
        self._gentle = True

    def _form(self, policy: str, options: UpstreamOptions) -> None:
        self.policy = policy
        self._last_good = LastGood(self._random) if options.last_good else None
        consistent, freed = options.hash_consistent, self._line.serve
        means = Means(random=self._random, now=self._now, freed=freed, consistent=consistent)
        self._primaries = POLICIES[policy](means)
        self._backups = POLICIES[policy](means)
        self.wants_key = self._primaries.wants_key
        self.wants_times = self._primaries.wants_times

    # Choosing

    def choose(self, tried: Collection[Server] = (), key: bytes = b"") -> Lease | None:
        """
        Choose a server and count a connection on it.

        @param tried: never to be chosen again for this request.
        @param key: what the policy goes by where L{wants_key} says so: for
            C{ip_hash} the client's address as text, for C{hash} the value of
            C{hash_key}.  Without one the policy chooses in turn.
        @return: C{None} when no server can take the connection.
        """
        if self._out:
            self._let_probe()
        if tried or key:
            return self._choose(tried, key)
        server = self._primaries.take() or self._backups.take()
        if server is None:
            return self._choose_last_good(tried)
        if server.fails:
            self._judgement.picked(server)
        return Lease(server)

    def _choose(self, tried: Collection[Server], key: bytes) -> Lease | None:
        hidden = [server for server in tried if server.usable]
        for server in hidden:
            server.policy.leave(server)
        if key:
            chosen = self._primaries.take_for(key, tried) or self._backups.take_for(key, tried)
        else:
            chosen = self._primaries.take() or self._backups.take()
        for server in hidden:
            server.policy.enter(server)
        if chosen is None:
            return self._choose_last_good(tried)
        if chosen.fails:
            self._judgement.picked(chosen)
        return Lease(chosen)

    def _choose_last_good(self, tried: Collection[Server]) -> Lease | None:
        if self._last_good is None:
            return None
        server = self._last_good.choose(self._roll.here.values(), tried)
        if server is None:
            return None
        if server.fails:
            self._judgement.picked(server)
        return Lease(server)

    def choose_this(self, server: Server, tried: Collection[Server] = ()) -> Lease | None:
        """
        Count a connection on one particular server, a backup or not, if it may
        get one: for sticky clients and hooks.

        @return: C{None} when it may not, or was tried.
        """
        if self._out:
            self._let_probe()
        if not server.usable or server in tried:
            return None
        server.policy.claim(server)
        if server.fails:
            self._judgement.picked(server)
        return Lease(server)

    def by_route(self, route: str) -> Server | None:
        """@param route: what C{Server.route} was, on any node."""
        return self._roll.by_route(route)

    def why_none(self, tried: Collection[Server] = ()) -> str:
        """Why L{choose} gave C{None}, for the log."""
        return why_none(self._roll.here.values(), tried, self._last_good)

    @property
    def panicking(self) -> bool:
        """Whether no server is good and those that were good last are used."""
        return self._last_good is not None and self._last_good.count(self._roll.here.values()) > 0

    # Waiting

    def wait(self, waiter: Waiter, tried: Collection[Server] = (), key: bytes = b"") -> bool:
        """
        Wait for a slot after L{choose} gave C{None}, until it is granted or
        L{leave_queue} is called.

        @param tried: as for L{choose}; with one, only servers that are not in
            it are waited for.
        @return: whether the waiter waits: not when the queue is full or off,
            and not when no server is merely full.
        """
        if not self._line.places or not any(
            server.ready and server not in tried for server in self._roll.here.values()
        ):
            return False
        joined = self._line.join(waiter, tried, key)
        self.tally.turned_away += not joined
        return joined

    def leave_queue(self, waiter: Waiter) -> None:
        """Wait no more; nothing happens when the waiter does not wait."""
        self._line.leave(waiter)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def tick(self) -> None:
        """
        Time has passed: weights grow, probes come due, those who wait are
        served.  To be called every 0.1 to 1 seconds.
        """
        self._slow_start.move()
        self.budget.turn()
        self._let_probe()

    # Judging

    def failed(self, server: Server) -> bool:
        """
        An attempt on the server failed in a way that counts.

        @return: whether that took the server out.
        """
        return self._judgement.failed(server)

    def succeeded(self, server: Server) -> bool:
        """
        An attempt on the server succeeded.  Needs to be told only while
        C{server.fails} is not 0.

        @return: whether that brought the server back.
        """
        brought_back = self._judgement.succeeded(server)
        self._line.serve()
        return brought_back

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        """
        An attempt ended.  Needs to be told only where L{wants_times} says so.

        @param seconds: from the choice to the head of the answer, or to the
            failure.
        @param failed: whether it failed, or its answer was a failure's.
        """
        server.policy.answered(server, seconds, failed)

    def set_checked(self, key: str, down: bool, cause: str) -> bool:
        """
        Hear what the health check has concluded of a server.  It holds until
        the next word, or until the server is removed.

        @param key: C{Server.key}.
        @param down: whether the server is to be out.
        @param cause: what the check found, for people.
        @return: whether that changed anything: not for an unknown server.
        """
        server = self._roll.here.get(key)
        if server is None:
            return False
        server.check_cause = cause
        if server.checked_down is down:
            return False
        server.checked_down = down
        server.checked_down_at = self._now()
        self._note_change()
        server.settle()
        self._count_tries()
        self._line.serve()
        return True

    def _let_probe(self) -> None:
        self._judgement.let_probe()
        self._line.serve()

    def _flipped(self, server: Server) -> None:
        """A server became ready, or is so no more."""
        self._note_change()
        if not server.ready:
            self._slow_start.end(server)
        elif self._gentle and not self._judgement.is_condemned(server):
            # A probe goes to a server with all its weight, or it would be late.
            self._slow_start.begin(server)

    def _note_change(self) -> None:
        if self._last_good is not None:
            self._last_good.forget()

    # Membership

    def follow(self, order: UpstreamOrder, snapshot: Snapshot | None) -> None:
        """
        Go on as the configuration says now: with other servers of the file, and
        with all that was counted and observed of those that stay.

        @param snapshot: what the store said last; C{None} for nothing so far.
        """
        self.budget.share = order.options.retry_budget
        self._line.places = order.options.queue
        self._slow_start.seconds = order.options.slow_start
        for server in self._roll.here.values():
            if server.usable:
                server.policy.leave(server)
        self._form(order.policy, order.options)
        if not self._primaries.gradual:
            self._slow_start.end_all()
        self._roll.list_file(order.servers)
        self._roll.apply(snapshot or Snapshot(revision=0, now=0.0), self._now())
        self._arrange(self._roll.here.values())
        self._line.serve()

    def apply(self, snapshot: Snapshot) -> Applied:
        """
        Bring the servers in line with the store.  Those of the file stay as
        they are, whatever the store says of their addresses.

        @return: what that changed.
        """
        applied, unsettled = self._roll.apply(snapshot, self._now())
        self._gentle = self._loaded
        self._arrange(unsettled)
        self._gentle = self._loaded = True
        self.revision = snapshot.revision
        self._line.serve()
        return applied

    def _make(self, address: Address, order: ServerOrder, route: str) -> Server:
        policy = self._backups if order.backup else self._primaries
        server = Server(address, order, policy, route, self._flipped)
        server.others = self._counts.total(order.address)
        return server

    def _arrange(self, unsettled: Iterable[Server]) -> None:
        """Give every server its place after a change of membership."""
        everyone = self._roll.here.values()
        for server in unsettled:
            server.policy = self._backups if server.backup else self._primaries
        self._primaries.arrange([server for server in everyone if not server.backup])
        self._backups.arrange([server for server in everyone if server.backup])
        for server in unsettled:
            server.settle()
        self._judgement.arrange(everyone)
        self._note_change()
        self._count_tries()

    def _count_tries(self) -> None:
        self.tries = sum(server.eligible for server in self._roll.here.values())

    # Counts over all nodes

    def report(self, full: bool = False) -> Mapping[str, int]:
        """
        What this node holds, absolute, for the store.

        @param full: every server with a number, here or acknowledged, instead
            of those where the two differ.
        """
        return self._counts.report(full)

    def acknowledge(self, report: Mapping[str, int]) -> None:
        """
        The store has taken a report.  L{apply_totals} with the same answer
        follows.
        """
        self._counts.acknowledge(report)
        self.tally.remember(self._roll.forget_idle())

    def lapsed(self) -> None:
        """
        The store has forgotten, or is about to, all that this node reported.
        """
        self._counts.lapsed()

    def apply_totals(self, totals: Mapping[str, int], complete: bool = False) -> None:
        """
        Hear connections over all nodes, as of the report acknowledged last.

        @param totals: for the addresses whose total has changed.
        @param complete: for all addresses; what is missing has none.
        """
        self._counts.apply(totals, complete)
        self._line.serve()

    # Looking

    @property
    def servers(self) -> Collection[Server]:
        """In the order of the file, then of the addresses."""
        if self._out:
            self._let_probe()
        return self._roll.here.values()

    def server(self, key: str) -> Server | None:
        """@param key: C{str(address)}."""
        return self._roll.here.get(key)

    @property
    def usable(self) -> int:
        """How many servers, backups included, could take a connection now."""
        return sum(server.state is State.UP for server in self.servers)

    def __repr__(self) -> str:
        return (
            f"<Upstream {self.name} {self.policy} servers={len(self._roll.here)}"
            f" leaving={len(self._roll.leaving)} revision={self.revision}>"
        )
