"""
The store in one process: nothing is kept.

Knows the upstreams and a clock; refuses to know other processes, files and
sockets, and the rules, which are L{dynbalance.store.roster}'s.  It is what
C{store.url = "memory:"} runs on, and the reference that the scripts of the Redis
store are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from dynbalance.errors import StoreError
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
)
from dynbalance.store.journal import Step
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish
from dynbalance.store.roster import Roster

_T = TypeVar("_T")


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
        self._rosters: dict[str, Roster] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore {sorted(self._rosters)}>"

    def roster(self, upstream: str) -> Roster:
        """All that it has of an upstream."""
        return self._rosters.setdefault(upstream, Roster())

    @property
    def available(self) -> bool:
        return True

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        return succeed(self.roster(upstream).snapshot(self._now()))

    def add(
        self, upstream: str, order: ServerOrder, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        return self._change(upstream, only_at, lambda here: here.add(order, self._step(by)))

    def remove(
        self, upstream: str, address: str, by: str, only_at: int | None = None
    ) -> Deferred[None]:
        return self._change(upstream, only_at, lambda here: here.remove(address, self._step(by)))

    def set_intent(
        self,
        upstream: str,
        address: str,
        intent: Intent,
        by: str,
        drain: Drain = ENDLESS,
        only_at: int | None = None,
    ) -> Deferred[ServerRecord]:
        step = self._step(by)
        return self._change(
            upstream, only_at, lambda here: here.set_intent(address, intent, drain, step)
        )

    def update(
        self, upstream: str, address: str, update: Update, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        step = self._step(by)
        return self._change(upstream, only_at, lambda here: here.update(address, update, step))

    def amend(
        self, changes: Mapping[str, Change], by: str, action: str
    ) -> Deferred[Mapping[str, int]]:
        try:
            for name, change in changes.items():
                self.roster(name).require(change.only_at)
        except StoreError as stale:
            return fail(stale)
        return succeed(
            {
                name: self.roster(name).amend(change.edits, self._step(by), action)
                for name, change in changes.items()
            }
        )

    def history(self, upstream: str, limit: int, before: str = "") -> Deferred[History]:
        return succeed(self.roster(upstream).journal.before(before, limit))

    def news(self, upstream: str, limit: int, after: str) -> Deferred[History]:
        return succeed(self.roster(upstream).journal.after(after, limit))

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        return succeed(self.roster(upstream).finish_drains(settle, self._now()))

    def beat(
        self, upstream: str, address: str, reenable: bool, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        now = self._now()
        return self._change(upstream, only_at, lambda here: here.beat(address, reenable, now))

    def expire(self, upstream: str, ttl: float, only_at: int | None = None) -> Deferred[Expiry]:
        return self._change(upstream, only_at, lambda here: here.expire(ttl, self._now()))

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        now = self._now()
        return succeed(
            {
                name: self.roster(name).sync(node, lease, report, now)
                for name, report in reports.items()
            }
        )

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        return succeed(self.roster(upstream).grant(node, number, seen, wishes, self._now()))

    def restore(self, upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
        # It loses nothing before its end, and then nobody is there to give it back.
        return succeed(None)

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        for name in upstreams:
            self.roster(name).leave(node, self._now())
        return succeed(None)

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        return succeed(self.roster(upstream).claim_checks(node, addresses, lease, self._now()))

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        return succeed(self.roster(upstream).conclude_check(node, address, cause, self._now()))

    def recount(self, upstream: str, only_at: int | None = None) -> Deferred[int]:
        return self._change(upstream, only_at, lambda here: here.recount(self._now()))

    def _change(
        self, upstream: str, only_at: int | None, change: Callable[[Roster], _T]
    ) -> Deferred[_T]:
        here = self.roster(upstream)
        try:
            here.require(only_at)
            here.thaw(self._now())
            return succeed(change(here))
        except StoreError as error:
            return fail(error)

    def _step(self, by: str) -> Step:
        return Step(by, self._now())

    def _now(self) -> float:
        # Milliseconds, as the scripts of the Redis store write them.
        return round(self._clock.seconds(), 3)
