"""
What every store promises: the values it keeps and the calls it answers.

Each upstream is a named set of servers with a revision that grows with every
change of membership, order or expiry.  Connection counts belong to the node
that holds the connections: a node reports the absolute numbers it holds, and a
node that falls silent takes its numbers with it when its lease ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish

if TYPE_CHECKING:
    from dynbalance.store.changes import Change, History, Update


class Intent(Enum):
    """What an operator ordered; what was observed is kept elsewhere."""

    ENABLE = "enable"
    DISABLE = "disable"
    DRAIN = "drain"


class Then(Enum):
    """What becomes of a server when its drain is over."""

    STAY = ""
    DISABLE = "disable"
    REMOVE = "remove"


@frozen(slots=True, kw_only=True)
class Drain:
    """
    How a drain is to end: when nothing runs any more, or else in C{seconds}.

    @ivar seconds: 0 for however long it takes.
    @ivar then: with L{Then.STAY} it does not end by itself.
    @ivar own: the server itself asked for it, and may undo it.
    """

    seconds: float = 0.0
    then: Then = Then.STAY
    own: bool = False


ENDLESS = Drain()

HEARTBEAT_TIMEOUT = "heartbeat_timeout"
"""The C{disabled_reason} of a server whose heartbeats stopped."""

MANUAL = "manual"
"""The C{disabled_reason} of a server that an operator disabled."""

DRAINING = "draining"
"""The C{disabled_reason} of a server that an operator drains."""

SELF_DRAINING = "self_draining"
"""The C{disabled_reason} of a server that asked for it with a heartbeat."""


@frozen(slots=True, kw_only=True)
class ServerOrder:
    """
    What is asked for when a server is added.

    @ivar address: C{host:port}, as L{dynbalance.balancer.address.Address}
        writes it.
    @ivar max_conns: connections over all nodes at most; 0 for no limit.
    @ivar heartbeat: whether the server is expired when its heartbeats stop.
    @ivar backup: serves only when no other server can.
    @ivar max_fails: failures within C{fail_timeout} seconds that take the
        server out for as long; 0 for never.
    @ivar slow_start: seconds in which it reaches its weight after it was
        added or came back; 0 for what its upstream says.
    """

    address: str
    host: str
    port: int
    weight: int = 1
    max_conns: int = 1000
    heartbeat: bool = True
    backup: bool = False
    max_fails: int = 1
    fail_timeout: float = 10.0
    slow_start: float = 0.0


@frozen(slots=True, kw_only=True)
class ServerRecord:
    """
    What the store knows of a server.  Times are seconds of the store's clock.

    @ivar order: how it was added or last updated.
    @ivar intent: what an operator ordered.
    @ivar expired: whether missing heartbeats took it out.
    @ivar connections: the published count over all live nodes.
    @ivar disabled_reason: C{"heartbeat_timeout"}, C{"manual"}, C{"draining"} or
        C{None}.
    @ivar drain_deadline: when its drain is over at the latest; C{None} for
        however long it takes, and without a drain.
    @ivar drain_then: what comes then.
    """

    order: ServerOrder
    intent: Intent = Intent.ENABLE
    expired: bool = False
    connections: int = 0
    created_at: float | None = None
    updated_at: float | None = None
    disabled_at: float | None = None
    disabled_reason: str | None = None
    last_heartbeat: float | None = None
    drain_deadline: float | None = None
    drain_then: Then = Then.STAY

    @property
    def enabled(self) -> bool:
        """The seed's field: ordered to serve and not expired."""
        return self.intent is Intent.ENABLE and not self.expired


@frozen(slots=True, kw_only=True)
class Snapshot:
    """
    All servers of one upstream at one moment.

    @ivar revision: of the membership; 0 while nothing was ever stored.
    @ivar now: the store's clock at that moment.
    @ivar era: see L{SyncAnswer.era}; empty before the first sync.
    @ivar servers: in the order of their addresses.
    @ivar unhealthy: address -> why the health check took it out; also
        addresses that are no servers of the store.
    """

    revision: int
    now: float
    servers: tuple[ServerRecord, ...] = ()
    unhealthy: Mapping[str, str] = field(factory=dict)
    era: str = ""


@frozen(slots=True, kw_only=True)
class Expiry:
    """
    What an expiry round found and did.

    @ivar expired_count: servers whose last heartbeat is older than the limit.
    @ivar disabled: the addresses that this round took out.
    """

    expired_count: int
    disabled: tuple[str, ...] = ()


@frozen(slots=True, kw_only=True)
class Drained:
    """
    A drain that is over.

    @ivar then: what was done with the server.
    @ivar left: connections that still ran when its time was up.
    """

    address: str
    then: Then
    left: int = 0


class Store(Protocol):
    """
    The shared truth.  Every call fails with L{StoreUnavailable
    <dynbalance.errors.StoreUnavailable>} when the store does not answer
    within its deadline, and then nothing may be assumed but that the call may
    be made again.

    C{by} says who asked, for the history.  A call with C{only_at} is carried
    out while the membership has that revision, and else fails with
    L{StaleRevision <dynbalance.errors.StaleRevision>}.
    """

    @property
    def available(self) -> bool:
        """Whether the last call was answered."""

    def open(self) -> Deferred[None]:
        """
        Begin; fires when the first contact succeeded or failed: a store that
        is away is no failure, it is sought in the background.

        @return: fails with L{StoreUnusable <dynbalance.errors.StoreUnusable>}
            when the store can never work as it is set up; then nothing is
            left running.
        """

    def close(self) -> Deferred[None]:
        """End; nothing is left running when it fires."""

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        """All servers of an upstream, with heartbeats and counts."""

    def add(
        self, upstream: str, order: ServerOrder, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        """
        Add a server, with a first heartbeat now.

        @return: fails with L{ServerExists <dynbalance.errors.ServerExists>}.
        """

    def remove(
        self, upstream: str, address: str, by: str, only_at: int | None = None
    ) -> Deferred[None]:
        """@return: fails with L{ServerNotFound <dynbalance.errors.ServerNotFound>}."""

    def set_intent(
        self,
        upstream: str,
        address: str,
        intent: Intent,
        by: str,
        drain: Drain = ENDLESS,
        only_at: int | None = None,
    ) -> Deferred[ServerRecord]:
        """
        Enable, disable or drain a server.  Enabling also forgives missing
        heartbeats: the server gets a full C{ttl} to send its next one.

        @param drain: of L{Intent.DRAIN}; any other order ends the drain.
        @return: fails with L{ServerNotFound <dynbalance.errors.ServerNotFound>}.
        """

    def update(
        self, upstream: str, address: str, update: Update, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        """
        Change a server's order.  One that needs heartbeats from now on has a
        full C{ttl} to send one; one that needs none any more is not expired.

        @return: fails with L{ServerNotFound <dynbalance.errors.ServerNotFound>}.
        """

    def amend(
        self, changes: Mapping[str, Change], by: str, action: str
    ) -> Deferred[Mapping[str, int]]:
        """
        Edit many servers of several upstreams in one step, or none.  What was
        observed of a server stays; one that was none begins with a heartbeat.

        @param changes: by upstream; each has its own C{only_at}.
        @param action: what the history calls it.
        @return: the upstreams' revisions.
        """

    def history(self, upstream: str, limit: int, before: str = "") -> Deferred[History]:
        """
        Who changed what, the newest first.

        @param before: only lines older than that with this C{id}.
        """

    def news(self, upstream: str, limit: int, after: str) -> Deferred[History]:
        """
        Likewise, the oldest first.

        @param after: only lines newer than that with this C{id}.
        """

    def beat(
        self, upstream: str, address: str, reenable: bool, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        """
        Record a heartbeat now.

        @param reenable: whether a server that missing heartbeats took out
            comes back; one that an operator disabled never does.
        @return: fails with L{ServerNotFound <dynbalance.errors.ServerNotFound>}.
        """

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        """
        End the drains whose servers have no connections any more or whose time
        is up: each exactly once, whichever node asks.

        @param settle: seconds that a drain lasts at least, unless its time is
            up: the other nodes have to hear of it, and tell what they hold.
        """

    def expire(
        self, upstream: str, ttl: float, only_at: int | None = None
    ) -> Deferred[Expiry]:
        """
        Take out the enabled servers whose last heartbeat is older than C{ttl}
        seconds.  Those added with C{heartbeat=False} are never expired.
        """

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        """
        Exchange counts for several upstreams at once: apply what C{node}
        holds, renew its lease for C{lease} seconds, take dead nodes' counts
        out, answer with what changed.  Addresses that are no servers of the
        store (those of a configuration file, and removed ones whose
        connections still run) are counted like the others while they have
        connections; a snapshot does not show them.

        When no node was in contact for longer than C{lease}, all heartbeats
        are moved forward by the gap, at most to now: nobody is expired for an
        outage of the store or of the balancer.  L{expire} does the same.
        """

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        """
        Count connections for C{node} as far as C{max_conns} allows over all
        nodes, in one step, so that no two nodes get the same place.

        What is granted stays counted, whatever the node reports, until a
        report has C{settled} it: a report and a grant may overtake each other
        on their way.

        @param number: see L{Report.number}; larger than that of any call
            before.
        @param seen: see L{Report.seen}.
        """

    def restore(self, upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
        """
        Give back what the store has lost: a node calls this when the era is
        not that of the snapshot it knows, or the revision is lower.  Nothing
        happens if the store knows as much, or was given back as much already.
        What was changed since the loss holds; heartbeats begin anew; the
        revision goes on above that of C{snapshot}, in a new era.

        @return: how many servers were given back; C{None} if nothing happened.
        """

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        """
        Give back all that C{node} holds and end its lease.  It counts as a
        contact; a node that left comes back with a full report.
        """

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        """
        Become, or remain, the one node that checks these addresses, servers of
        the store or not, for C{lease} seconds; with 0, give them up.

        @return: those that are C{node}'s now; the others are another's.
        """

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        """
        Publish what the health check has concluded.  It holds until the next
        word, or until the server is removed.

        @param cause: why the server is to be out; empty if it is not.
        @return: whether it was taken: not without a claim on the address.
        """

    def recount(self, upstream: str, only_at: int | None = None) -> Deferred[int]:
        """
        Set every published count to the sum of what the live nodes hold.

        @return: the number of servers.
        """
