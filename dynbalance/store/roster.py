"""
What is asked of one upstream in memory.

The plain-Python twin of the scripts: each method is one of them, done in one
step.  Knows the contract's rules; refuses to know other upstreams, clocks and
Deferreds, and what a server's records are kept in, which is
L{dynbalance.store.shelf}'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attrs import evolve

from dynbalance.errors import ServerExists, StaleRevision
from dynbalance.store.changes import Edit, Update
from dynbalance.store.contract import (
    ENDLESS,
    Drain,
    Drained,
    Expiry,
    Intent,
    ServerOrder,
    ServerRecord,
    Snapshot,
    Then,
)
from dynbalance.store.journal import Step
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish
from dynbalance.store.shelf import Shelf
from dynbalance.store.transitions import added, beaten, edited, ordered, overdue, updated

ERA = "memory"
"""What is forgotten with its process has one era."""


class Roster(Shelf):
    """
    What each method does is said in L{Store <dynbalance.store.contract.Store>};
    C{now} is the store's time, and a L{Step} tells who asks, and when.
    """

    __slots__ = ()

    def require(self, only_at: int | None) -> None:
        """@raise StaleRevision: it has another revision."""
        if only_at not in (None, self.revision):
            raise StaleRevision(self.revision)

    def snapshot(self, now: float) -> Snapshot:
        return Snapshot(
            revision=self.revision,
            now=now,
            servers=tuple(self.published(self.servers[each]) for each in sorted(self.servers)),
            unhealthy=dict(self.unhealthy),
            era=ERA,
        )

    # Orders

    def add(self, order: ServerOrder, step: Step) -> ServerRecord:
        if order.address in self.servers:
            raise ServerExists(order.address)
        return self.put(added(order, step.at), step, "add")

    def remove(self, address: str, step: Step) -> None:
        self.server(address)
        self.take_away(address, step)

    def set_intent(
        self, address: str, intent: Intent, drain: Drain, step: Step
    ) -> ServerRecord:
        record = ordered(self.server(address), intent, drain, step.at)
        return self.put(record, step, intent.value)

    def update(self, address: str, update: Update, step: Step) -> ServerRecord:
        before = self.server(address)
        record = updated(before, update, step.at)
        if record is before:
            return self.published(record)
        return self.put(record, step, "update")

    def amend(self, edits: Iterable[Edit], step: Step, action: str) -> int:
        self.thaw(step.at)
        for edit in edits:
            before = self.servers.get(edit.address)
            record = edited(before, edit, step.at)
            if record is not None:
                self.put(record, step, action)
            elif before is not None:
                self.take_away(edit.address, step, action)
        return self.revision

    def finish_drains(self, settle: float, now: float) -> tuple[Drained, ...]:
        self.thaw(now)
        step = Step("drain", now)
        over = []
        for address in sorted(self.servers):
            record = self.servers[address]
            then, deadline = record.drain_then, record.drain_deadline
            if record.intent is not Intent.DRAIN or then is Then.STAY:
                continue
            left = self.ledger.totals.get(address, 0)
            settled = not left and now - (record.disabled_at or 0.0) >= settle
            if settled or (deadline is not None and now >= deadline):
                over.append(Drained(address=address, then=then, left=left))
                if then is Then.REMOVE:
                    self.take_away(address, step)
                else:
                    disabled = ordered(record, Intent.DISABLE, ENDLESS, now)
                    self.put(disabled, step, Intent.DISABLE.value)
        return tuple(over)

    # Heartbeats

    def beat(self, address: str, reenable: bool, now: float) -> ServerRecord:
        before = self.server(address)
        record = beaten(before, reenable, now)
        if record.expired is not before.expired:
            return self.put(record, Step("heartbeat", now), "return")
        self.servers[address] = record
        return self.published(record)

    def expire(self, ttl: float, now: float) -> Expiry:
        count = 0
        disabled = []
        step = Step("heartbeat", now)
        for address in sorted(self.servers):
            record = self.servers[address]
            if not record.order.heartbeat or now - (record.last_heartbeat or 0.0) <= ttl:
                continue
            count += 1
            if record.enabled:
                disabled.append(address)
                self.put(overdue(record, now), step, "expire")
        return Expiry(expired_count=count, disabled=tuple(disabled))

    # Counts

    def sync(self, node: str, lease: float, report: Report, now: float) -> SyncAnswer:
        ledger = self.ledger
        late = 0 < report.number <= ledger.last(node)
        if not late:
            self.heard(now, lease, report.full)
        ledger.reap(now)
        lapsed = not report.full and not ledger.live(node)
        if not (lapsed or late):
            ledger.apply(node, report, now + lease)
        complete, totals = ledger.changes(report.seen, self.servers)
        return SyncAnswer(
            revision=self.revision,
            seq=ledger.seq,
            totals=totals,
            complete=complete,
            lapsed=lapsed,
            late=late,
            hungry=ledger.hungry,
            nodes=ledger.nodes,
            last=ledger.last(node),
            era=ERA,
        )

    def grant(
        self, node: str, number: int, seen: int, wishes: Sequence[Wish], now: float
    ) -> Granted:
        self.thaw(now)
        ledger, last = self.ledger, self.ledger.last(node)
        late, lapsed = number <= last, not ledger.live(node, now)
        if late or lapsed:
            return Granted(late=late, lapsed=lapsed, last=last)
        counts = {wish.address: min(wish.count, self.room(wish)) for wish in wishes}
        ledger.grant(node, number, {a: count for a, count in counts.items() if count})
        answer = Granted(counts=tuple(counts.values()), last=number)
        if all(counts[wish.address] == wish.count for wish in wishes):
            return evolve(answer, totals={a: ledger.totals.get(a, 0) for a in counts})
        full, totals = ledger.changes(seen, self.servers)
        return evolve(answer, totals=totals, complete=full, seq=ledger.seq)

    def leave(self, node: str, now: float) -> None:
        self.thaw(now)
        self.ledger.drop(node)
        self.contact = now

    def recount(self, now: float) -> int:
        self.ledger.reap(now)
        return len(self.servers)

    # Health checks

    def claim_checks(
        self, node: str, addresses: Collection[str], lease: float, now: float
    ) -> frozenset[str]:
        self.thaw(now)
        mine = set()
        for address in addresses:
            who, till = self.probers.get(address, ("", 0.0))
            if lease > 0 and (who == node or till < now):
                self.probers[address] = node, now + lease
                mine.add(address)
            elif lease == 0 and who == node:
                del self.probers[address]
        return frozenset(mine)

    def conclude_check(self, node: str, address: str, cause: str, now: float) -> bool:
        if self.probers.get(address, ("",))[0] != node:
            return False
        if bool(cause) is not (address in self.unhealthy):
            step = Step("health_check", now)
            if cause:
                self.unhealthy[address] = cause
                self.journal.write(step, "unhealthy", address, cause=cause)
            else:
                was = self.unhealthy.pop(address)
                self.journal.write(step, "healthy", address, cause=was)
        return True
