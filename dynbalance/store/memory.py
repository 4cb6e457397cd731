"""
The store in one process: the whole contract on dictionaries, nothing kept.

Knows the contract's rules and a clock; refuses to know other processes, files
and sockets.  It is what C{store.url = "memory:"} runs on, and the reference
that the scripts of the Redis store are compared with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred, fail, succeed

from dynbalance.errors import ServerExists, ServerNotFound
from dynbalance.store.contract import (
    DRAINING,
    ENDLESS,
    HEARTBEAT_TIMEOUT,
    MANUAL,
    Drain,
    Drained,
    Expiry,
    Intent,
    Report,
    ServerOrder,
    ServerRecord,
    Snapshot,
    SyncAnswer,
    Then,
)
from dynbalance.store.ledger import Ledger


class Clock(Protocol):
    """Tells the time; any C{IReactorTime} does."""

    def seconds(self) -> float:
        """Seconds since the epoch."""


@define(slots=True)
class _Upstream:
    """
    One upstream's servers and counts.

    @ivar contact: when a node was last heard; C{None} before the first sync.
    @ivar lease: of the node that was heard last.
    @ivar unhealthy: address -> what its health check found.
    @ivar probers: address -> the node that checks it, and until when.
    """

    servers: dict[str, ServerRecord] = Factory(dict)
    ledger: Ledger = Factory(Ledger)
    revision: int = 0
    contact: float | None = None
    lease: float = 0.0
    unhealthy: dict[str, str] = Factory(dict)
    probers: dict[str, tuple[str, float]] = Factory(dict)

    def put(self, record: ServerRecord) -> ServerRecord:
        """Keep a changed record, and answer it with its count."""
        self.servers[record.order.address] = record
        return self.published(record)

    def published(self, record: ServerRecord) -> ServerRecord:
        return evolve(record, connections=self.ledger.totals.get(record.order.address, 0))

    def thaw(self, now: float) -> None:
        """Move the heartbeats past a gap in which no node was there to hear them."""
        contact = self.contact
        if contact is None or now - contact <= self.lease:
            return
        for address, record in self.servers.items():
            if record.last_heartbeat is not None:
                moved = min(now, record.last_heartbeat + now - contact)
                self.servers[address] = evolve(record, last_heartbeat=moved)
        self.contact = now

    def heard(self, now: float, lease: float) -> None:
        """Note a contact; the first one counts from the last heartbeat."""
        self.lease = lease
        if self.contact is None:
            beats = [record.last_heartbeat or 0.0 for record in self.servers.values()]
            self.contact = max(beats, default=now)
        self.thaw(now)
        self.contact = now


class MemoryStore:
    """
    A L{Store <dynbalance.store.contract.Store>} that forgets all at its end.
    """

    def __init__(self, clock: Clock) -> None:
        """
        @param clock: its seconds are the store's time.
        """
        self._clock = clock
        self._upstreams: dict[str, _Upstream] = {}

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
            )
        )

    def add(self, upstream: str, order: ServerOrder, by: str) -> Deferred[ServerRecord]:
        here = self._upstream(upstream)
        if order.address in here.servers:
            return fail(ServerExists(order.address))
        now = self._now()
        here.revision += 1
        return succeed(here.put(ServerRecord(order=order, created_at=now, last_heartbeat=now)))

    def remove(self, upstream: str, address: str, by: str) -> Deferred[None]:
        here = self._upstream(upstream)
        if here.servers.pop(address, None) is None:
            return fail(ServerNotFound(address))
        here.unhealthy.pop(address, None)
        here.probers.pop(address, None)
        here.revision += 1
        return succeed(None)

    def set_intent(
        self, upstream: str, address: str, intent: Intent, by: str, drain: Drain = ENDLESS
    ) -> Deferred[ServerRecord]:
        here = self._upstream(upstream)
        record = here.servers.get(address)
        if record is None:
            return fail(ServerNotFound(address))
        now = self._now()
        here.revision += 1
        record = evolve(
            record, intent=intent, updated_at=now, drain_deadline=None, drain_then=Then.STAY
        )
        if intent is Intent.ENABLE:
            record = evolve(
                record, expired=False, disabled_at=None, disabled_reason=None, last_heartbeat=now
            )
        else:
            reason = DRAINING if intent is Intent.DRAIN else MANUAL
            record = evolve(record, disabled_at=now, disabled_reason=reason)
        if intent is Intent.DRAIN:
            deadline = now + drain.seconds if drain.seconds else None
            record = evolve(record, drain_deadline=deadline, drain_then=drain.then)
        return succeed(here.put(record))

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        here = self._upstream(upstream)
        now = self._now()
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
                    self.remove(upstream, address, "drain")
                else:
                    self.set_intent(upstream, address, Intent.DISABLE, "drain")
        return succeed(tuple(over))

    def beat(self, upstream: str, address: str, reenable: bool) -> Deferred[ServerRecord]:
        here = self._upstream(upstream)
        record = here.servers.get(address)
        if record is None:
            return fail(ServerNotFound(address))
        record = evolve(record, last_heartbeat=self._now())
        if record.expired and reenable:
            here.revision += 1
            record = evolve(record, expired=False)
            if record.intent is Intent.ENABLE:
                record = evolve(record, disabled_at=None, disabled_reason=None)
        return succeed(here.put(record))

    def expire(self, upstream: str, ttl: float) -> Deferred[Expiry]:
        here = self._upstream(upstream)
        now = self._now()
        here.thaw(now)
        count = 0
        disabled = []
        for address in sorted(here.servers):
            record = here.servers[address]
            if not record.order.heartbeat or now - (record.last_heartbeat or 0.0) <= ttl:
                continue
            count += 1
            if record.enabled:
                here.revision += 1
                disabled.append(address)
                here.servers[address] = evolve(
                    record, expired=True, disabled_at=now, disabled_reason=HEARTBEAT_TIMEOUT
                )
        return succeed(Expiry(expired_count=count, disabled=tuple(disabled)))

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        return succeed(
            {name: self._exchange(node, lease, name, report) for name, report in reports.items()}
        )

    def _exchange(self, node: str, lease: float, upstream: str, report: Report) -> SyncAnswer:
        here = self._upstream(upstream)
        now = self._now()
        here.heard(now, lease)
        here.ledger.reap(now)
        lapsed = not report.full and not here.ledger.live(node)
        if not lapsed:
            here.ledger.apply(node, report, now + lease)
        complete, totals = here.ledger.changes(report.seen, here.servers)
        return SyncAnswer(
            revision=here.revision,
            seq=here.ledger.seq,
            totals=totals,
            complete=complete,
            lapsed=lapsed,
        )

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        for name in upstreams:
            here = self._upstream(name)
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
            here.revision += 1
            if cause:
                here.unhealthy[address] = cause
            else:
                del here.unhealthy[address]
        return succeed(True)

    def recount(self, upstream: str) -> Deferred[int]:
        here = self._upstream(upstream)
        here.ledger.reap(self._now())
        return succeed(len(here.servers))

    def _upstream(self, name: str) -> _Upstream:
        return self._upstreams.setdefault(name, _Upstream())

    def _now(self) -> float:
        # Milliseconds, as the scripts of the Redis store write them.
        return round(self._clock.seconds(), 3)
