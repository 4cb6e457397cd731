"""
The store in one process: the whole contract on dictionaries, nothing kept.

Knows the contract's rules and a clock; refuses to know other processes, files
and sockets.  It is what C{store.url = "memory:"} runs on, and the reference
that the scripts of the Redis store are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from dynbalance.errors import ServerExists, StaleRevision, StoreError
from dynbalance.store.changes import Change, History, Update
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

_T = TypeVar("_T")

ERA = "memory"
"""What is forgotten with its process has one era."""


class Clock(Protocol):
    """Tells the time; any C{IReactorTime} does."""

    def seconds(self) -> float:
        """Seconds since the epoch."""


class MemoryStore:
    """
    A L{Store <dynbalance.store.contract.Store>} that forgets all at its end.
    """

    def __init__(self, clock: Clock) -> None:
        """
        @param clock: its seconds are the store's time.
        """
        self._clock = clock
        self._upstreams: dict[str, Shelf] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore {sorted(self._upstreams)}>"

    @property
    def available(self) -> bool:
        return True

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        here = self._upstream(upstream)
        servers = tuple(here.published(here.servers[address]) for address in sorted(here.servers))
        return succeed(
            Snapshot(
                revision=here.revision,
                now=self._now(),
                servers=servers,
                unhealthy=dict(here.unhealthy),
                era=ERA,
            )
        )

    def add(
        self, upstream: str, order: ServerOrder, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        return self._change(upstream, only_at, lambda here: self._add(here, order, by))

    def _add(self, here: Shelf, order: ServerOrder, by: str) -> ServerRecord:
        if order.address in here.servers:
            raise ServerExists(order.address)
        return here.put(added(order, self._now()), self._step(by), "add")

    def remove(
        self, upstream: str, address: str, by: str, only_at: int | None = None
    ) -> Deferred[None]:
        def remove(here: Shelf) -> None:
            here.server(address)
            here.take_away(address, self._step(by))

        return self._change(upstream, only_at, remove)

    def set_intent(
        self,
        upstream: str,
        address: str,
        intent: Intent,
        by: str,
        drain: Drain = ENDLESS,
        only_at: int | None = None,
    ) -> Deferred[ServerRecord]:
        def set_intent(here: Shelf) -> ServerRecord:
            record = ordered(here.server(address), intent, drain, self._now())
            return here.put(record, self._step(by), intent.value)

        return self._change(upstream, only_at, set_intent)

    def update(
        self, upstream: str, address: str, update: Update, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        def change(here: Shelf) -> ServerRecord:
            before = here.server(address)
            record = updated(before, update, self._now())
            if record is before:
                return here.published(record)
            return here.put(record, self._step(by), "update")

        return self._change(upstream, only_at, change)

    def amend(
        self, changes: Mapping[str, Change], by: str, action: str
    ) -> Deferred[Mapping[str, int]]:
        for name, change in changes.items():
            here = self._upstream(name)
            if change.only_at not in (None, here.revision):
                return fail(StaleRevision(here.revision))
        for name, change in changes.items():
            here = self._upstream(name)
            step = self._step(by)
            for edit in change.edits:
                before = here.servers.get(edit.address)
                record = edited(before, edit, self._now())
                if record is not None:
                    here.put(record, step, action)
                elif before is not None:
                    here.take_away(edit.address, step, action)
        return succeed({name: self._upstream(name).revision for name in changes})

    def history(self, upstream: str, limit: int, before: str = "") -> Deferred[History]:
        return succeed(self._upstream(upstream).journal.before(before, limit))

    def news(self, upstream: str, limit: int, after: str) -> Deferred[History]:
        return succeed(self._upstream(upstream).journal.after(after, limit))

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        here = self._upstream(upstream)
        now = self._now()
        step = self._step("drain")
        over = []
        for address in sorted(here.servers):
            record = here.servers[address]
            then, deadline = record.drain_then, record.drain_deadline
            if record.intent is not Intent.DRAIN or then is Then.STAY:
                continue
            left = here.ledger.totals.get(address, 0)
            settled = not left and now - (record.disabled_at or 0.0) >= settle
            if settled or (deadline is not None and now >= deadline):
                over.append(Drained(address=address, then=then, left=left))
                if then is Then.REMOVE:
                    here.take_away(address, step)
                else:
                    disabled = ordered(record, Intent.DISABLE, ENDLESS, now)
                    here.put(disabled, step, Intent.DISABLE.value)
        return succeed(tuple(over))

    def beat(
        self, upstream: str, address: str, reenable: bool, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        def beat(here: Shelf) -> ServerRecord:
            before = here.server(address)
            record = beaten(before, reenable, self._now())
            if record.expired is not before.expired:
                return here.put(record, self._step("heartbeat"), "return")
            here.servers[address] = record
            return here.published(record)

        return self._change(upstream, only_at, beat)

    def expire(self, upstream: str, ttl: float, only_at: int | None = None) -> Deferred[Expiry]:
        return self._change(upstream, only_at, lambda here: self._expire(here, ttl))

    def _expire(self, here: Shelf, ttl: float) -> Expiry:
        now = self._now()
        here.thaw(now)
        count = 0
        disabled = []
        step = self._step("heartbeat")
        for address in sorted(here.servers):
            record = here.servers[address]
            if not record.order.heartbeat or now - (record.last_heartbeat or 0.0) <= ttl:
                continue
            count += 1
            if record.enabled:
                disabled.append(address)
                here.put(overdue(record, now), step, "expire")
        return Expiry(expired_count=count, disabled=tuple(disabled))

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        return succeed(
            {name: self._exchange(node, lease, name, report) for name, report in reports.items()}
        )

    def _exchange(self, node: str, lease: float, upstream: str, report: Report) -> SyncAnswer:
        here = self._upstream(upstream)
        now = self._now()
        late = 0 < report.number <= here.ledger.last(node)
        if not late:
            here.heard(now, lease, report.full)
        here.ledger.reap(now)
        lapsed = not report.full and not here.ledger.live(node)
        if not (lapsed or late):
            here.ledger.apply(node, report, now + lease)
        complete, totals = here.ledger.changes(report.seen, here.servers)
        return SyncAnswer(
            revision=here.revision,
            seq=here.ledger.seq,
            totals=totals,
            complete=complete,
            lapsed=lapsed,
            late=late,
            hungry=here.ledger.hungry,
            nodes=here.ledger.nodes,
            last=here.ledger.last(node),
            era=ERA,
        )

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        here = self._upstream(upstream)
        here.thaw(self._now())
        ledger, last = here.ledger, here.ledger.last(node)
        late, lapsed = number <= last, not ledger.live(node, self._now())
        if late or lapsed:
            return succeed(Granted(late=late, lapsed=lapsed, last=last))
        counts = {wish.address: min(wish.count, here.room(wish)) for wish in wishes}
        ledger.grant(node, number, {a: count for a, count in counts.items() if count})
        answer = Granted(counts=tuple(counts.values()), last=number)
        if all(counts[wish.address] == wish.count for wish in wishes):
            return succeed(evolve(answer, totals={a: ledger.totals.get(a, 0) for a in counts}))
        full, totals = ledger.changes(seen, here.servers)
        return succeed(evolve(answer, totals=totals, complete=full, seq=ledger.seq))

    def restore(self, upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
        # It loses nothing before its end, and then nobody is there to give it back.
        return succeed(None)

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        for name in upstreams:
            here = self._upstream(name)
            here.thaw(self._now())
            here.ledger.drop(node)
            here.contact = self._now()
        return succeed(None)

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        probers, now = self._upstream(upstream).probers, self._now()
        mine = set()
        for address in addresses:
            who, till = probers.get(address, ("", 0.0))
            if lease > 0 and (who == node or till < now):
                probers[address] = node, now + lease
                mine.add(address)
            elif lease == 0 and who == node:
                del probers[address]
        return succeed(frozenset(mine))

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        here = self._upstream(upstream)
        if here.probers.get(address, ("",))[0] != node:
            return succeed(False)
        if bool(cause) is not (address in here.unhealthy):
            step = self._step("health_check")
            if cause:
                here.unhealthy[address] = cause
                here.journal.write(step, "unhealthy", address, cause=cause)
            else:
                was = here.unhealthy.pop(address)
                here.journal.write(step, "healthy", address, cause=was)
        return succeed(True)

    def recount(self, upstream: str, only_at: int | None = None) -> Deferred[int]:
        def recount(here: Shelf) -> int:
            here.thaw(self._now())
            here.ledger.reap(self._now())
            return len(here.servers)

        return self._change(upstream, only_at, recount)

    def _change(
        self, upstream: str, only_at: int | None, change: Callable[[Shelf], _T]
    ) -> Deferred[_T]:
        here = self._upstream(upstream)
        if only_at not in (None, here.revision):
            return fail(StaleRevision(here.revision))
        try:
            return succeed(change(here))
        except StoreError as error:
            return fail(error)

    def _step(self, by: str) -> Step:
        return Step(by, self._now())

    def _upstream(self, name: str) -> Shelf:
        return self._upstreams.setdefault(name, Shelf())

    def _now(self) -> float:
        # Milliseconds, as the scripts of the Redis store write them.
        return round(self._clock.seconds(), 3)
