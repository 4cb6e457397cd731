"""
A store whose behaviour a test decides: the real memory store behind a door.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from dynbalance.errors import StoreUnavailable
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
from dynbalance.store.memory import MemoryStore
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish

T = TypeVar("T")


class DoorStore:
    """
    @ivar failure: what every call fails with; C{None} for none.
    @ivar calls: the names of the calls made.
    @ivar reports: what each sync carried.
    @ivar slow: whether answers wait until L{let_go}.
    """

    def __init__(self, clock: Clock) -> None:
        self.inner = MemoryStore(clock)
        self.failure: Exception | None = None
        self.calls: list[str] = []
        self.reports: list[Mapping[str, Report]] = []
        self.slow = False
        self._waiting: list[Deferred[None]] = []

    def lose(self) -> None:
        self.failure = StoreUnavailable("Store unavailable: the door is closed")

    def find(self) -> None:
        self.failure = None

    def let_go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)

    def _pass(self, name: str, answer: Deferred[T] | None) -> Deferred[T]:
        self.calls.append(name)
        if self.failure is not None:
            return fail(self.failure)
        assert answer is not None
        if not self.slow:
            return answer
        door: Deferred[None] = Deferred()
        self._waiting.append(door)
        return door.addCallback(lambda _: answer)

    @property
    def available(self) -> bool:
        return self.failure is None

    def open(self) -> Deferred[None]:
        return self.inner.open()

    def close(self) -> Deferred[None]:
        return self.inner.close()

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        return self._pass("snapshot", None if self.failure else self.inner.snapshot(upstream))

    def add(
        self, upstream: str, order: ServerOrder, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        answer = None if self.failure else self.inner.add(upstream, order, by, only_at)
        return self._pass("add", answer)

    def remove(
        self, upstream: str, address: str, by: str, only_at: int | None = None
    ) -> Deferred[None]:
        answer = None if self.failure else self.inner.remove(upstream, address, by, only_at)
        return self._pass("remove", answer)

    def set_intent(
        self,
        upstream: str,
        address: str,
        intent: Intent,
        by: str,
        drain: Drain = ENDLESS,
        only_at: int | None = None,
    ) -> Deferred[ServerRecord]:
        if self.failure:
            return self._pass("set_intent", None)
        answer = self.inner.set_intent(upstream, address, intent, by, drain, only_at)
        return self._pass("set_intent", answer)

    def update(
        self, upstream: str, address: str, update: Update, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        if self.failure:
            return self._pass("update", None)
        return self._pass("update", self.inner.update(upstream, address, update, by, only_at))

    def amend(
        self, changes: Mapping[str, Change], by: str, action: str
    ) -> Deferred[Mapping[str, int]]:
        answer = None if self.failure else self.inner.amend(changes, by, action)
        return self._pass("amend", answer)

    def history(self, upstream: str, limit: int, before: str = "") -> Deferred[History]:
        answer = None if self.failure else self.inner.history(upstream, limit, before)
        return self._pass("history", answer)

    def news(self, upstream: str, limit: int, after: str) -> Deferred[History]:
        answer = None if self.failure else self.inner.news(upstream, limit, after)
        return self._pass("news", answer)

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        answer = None if self.failure else self.inner.finish_drains(upstream, settle)
        return self._pass("finish_drains", answer)

    def beat(
        self, upstream: str, address: str, reenable: bool, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        answer = None if self.failure else self.inner.beat(upstream, address, reenable, only_at)
        return self._pass("beat", answer)

    def expire(self, upstream: str, ttl: float, only_at: int | None = None) -> Deferred[Expiry]:
        answer = None if self.failure else self.inner.expire(upstream, ttl, only_at)
        return self._pass("expire", answer)

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        self.reports.append(reports)
        answer = None if self.failure else self.inner.sync(node, lease, reports)
        return self._pass("sync", answer)

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        answer = (
            None if self.failure else self.inner.grant(upstream, node, number, seen, wishes)
        )
        return self._pass("grant", answer)

    def restore(self, upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
        answer = None if self.failure else self.inner.restore(upstream, snapshot, by)
        return self._pass("restore", answer)

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        return self._pass("leave", None if self.failure else self.inner.leave(node, upstreams))

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        answer = (
            None if self.failure else self.inner.claim_checks(upstream, node, addresses, lease)
        )
        return self._pass("claim_checks", answer)

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        answer = (
            None if self.failure else self.inner.conclude_check(upstream, node, address, cause)
        )
        return self._pass("conclude_check", answer)

    def recount(self, upstream: str, only_at: int | None = None) -> Deferred[int]:
        answer = None if self.failure else self.inner.recount(upstream, only_at)
        return self._pass("recount", answer)


def order(port: int, **more: object) -> ServerOrder:
    """A server on the loopback interface."""
    return ServerOrder(address=f"127.0.0.1:{port}", host="127.0.0.1", port=port, **more)  # type: ignore[arg-type]
