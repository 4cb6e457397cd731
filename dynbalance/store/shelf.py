"""
What the store in one process has of one upstream.

Knows the servers, the counts and which times go on while nobody is heard; refuses
to know what nodes ask for.
"""

from __future__ import annotations

from attrs import Factory, define, evolve

from dynbalance.errors import ServerNotFound
from dynbalance.store.contract import ServerRecord
from dynbalance.store.journal import Journal, Step
from dynbalance.store.ledger import Ledger
from dynbalance.store.reports import Wish
from dynbalance.store.transitions import shifted

BACK = 0.01
"""Seconds by which a clock that is behind the last contact was set back; less is rounding."""


@define(slots=True)
class Shelf:
    """
    One upstream's servers and counts.

    @ivar contact: when a node was last heard; C{None} before the first sync.
    @ivar lease: of the node that was heard last.
    @ivar unhealthy: address -> what its health check found.
    @ivar probers: address -> the node that checks it, and until when.
    """

    servers: dict[str, ServerRecord] = Factory(dict)
    ledger: Ledger = Factory(Ledger)
    journal: Journal = Factory(Journal)
    contact: float | None = None
    lease: float = 0.0
    unhealthy: dict[str, str] = Factory(dict)
    probers: dict[str, tuple[str, float]] = Factory(dict)

    @property
    def revision(self) -> int:
        return self.journal.revision

    def server(self, address: str) -> ServerRecord:
        """@raise ServerNotFound: it is none."""
        record = self.servers.get(address)
        if record is None:
            raise ServerNotFound(address)
        return record

    def put(self, record: ServerRecord, step: Step, action: str) -> ServerRecord:
        """Keep a changed record, and answer it with its count."""
        address = record.order.address
        self.journal.write(step, action, address, self.servers.get(address), record)
        self.servers[address] = record
        return self.published(record)

    def take_away(self, address: str, step: Step, action: str = "remove") -> None:
        """A server is no server any more."""
        self.journal.write(step, action, address, self.servers.pop(address))
        self.unhealthy.pop(address, None)
        self.probers.pop(address, None)

    def published(self, record: ServerRecord) -> ServerRecord:
        total = self.ledger.totals.get(record.order.address, 0)
        return record if record.connections == total else evolve(record, connections=total)

    def room(self, wish: Wish) -> int:
        """How many of the connections wished for there may be."""
        limit, record = wish.limit, self.servers.get(wish.address)
        if limit is None:
            if record is None or not (record.enabled or wish.anyhow):
                return 0
            limit = record.order.max_conns
        return max(0, limit - self.ledger.totals.get(wish.address, 0)) if limit else wish.count

    def thaw(self, now: float, full: bool = False) -> None:
        """
        Follow the clock after a time in which no node was heard, or after it was set.

        @param full: whether who calls has been away, or is new.  Nobody else hears
            of a gap, so that the clock was set.
        """
        if self.contact is None:
            return
        gap = now - self.contact
        if gap < -BACK or (gap > self.lease and not full):
            self._follow_clock(now, gap)
        elif gap > self.lease:
            self._move_beats(now, gap)
        else:
            return
        self.contact = now

    def _move_beats(self, now: float, gap: float) -> None:
        for address, record in self.servers.items():
            if record.last_heartbeat is not None:
                moved = min(now, record.last_heartbeat + gap)
                self.servers[address] = evolve(record, last_heartbeat=moved)

    def _follow_clock(self, now: float, step: float) -> None:
        """Every moment that is waited for, or counted from, goes with the clock."""
        self._move_beats(now, step)
        self.ledger.follow_clock(step)
        for address, (node, till) in self.probers.items():
            self.probers[address] = node, till + step
        for address, record in self.servers.items():
            self.servers[address] = shifted(record, step)

    def heard(self, now: float, lease: float, full: bool) -> None:
        """Note a contact; the first one counts from the last heartbeat."""
        self.lease = lease
        if self.contact is None:
            beats = [record.last_heartbeat or 0.0 for record in self.servers.values()]
            self.contact = max(beats, default=now)
        self.thaw(now, full)
        self.contact = now
