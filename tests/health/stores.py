"""
A store whose behaviour a test decides: the real memory store behind a door.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from dynbalance.errors import StoreUnavailable
from dynbalance.store.contract import (
    ENDLESS,
    Drain,
    Drained,
    Expiry,
    Intent,
    Report,
    ServerOrder,
    ServerRecord,
    Snapshot,
    SyncAnswer,
)
from dynbalance.store.memory import MemoryStore

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

    def add(self, upstream: str, order: ServerOrder, by: str) -> Deferred[ServerRecord]:
        return self._pass("add", None if self.failure else self.inner.add(upstream, order, by))

    def remove(self, upstream: str, address: str, by: str) -> Deferred[None]:
        answer = None if self.failure else self.inner.remove(upstream, address, by)
        return self._pass("remove", answer)

    def set_intent(
        self, upstream: str, address: str, intent: Intent, by: str, drain: Drain = ENDLESS
    ) -> Deferred[ServerRecord]:
        if self.failure:
            return self._pass("set_intent", None)
        answer = self.inner.set_intent(upstream, address, intent, by, drain)
        return self._pass("set_intent", answer)

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        answer = None if self.failure else self.inner.finish_drains(upstream, settle)
        return self._pass("finish_drains", answer)

    def beat(self, upstream: str, address: str, reenable: bool) -> Deferred[ServerRecord]:
        answer = None if self.failure else self.inner.beat(upstream, address, reenable)
        return self._pass("beat", answer)

    def expire(self, upstream: str, ttl: float) -> Deferred[Expiry]:
        return self._pass("expire", None if self.failure else self.inner.expire(upstream, ttl))

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        self.reports.append(reports)
        answer = None if self.failure else self.inner.sync(node, lease, reports)
        return self._pass("sync", answer)

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

    def recount(self, upstream: str) -> Deferred[int]:
        return self._pass("recount", None if self.failure else self.inner.recount(upstream))


def order(port: int, **more: object) -> ServerOrder:
    """A server on the loopback interface."""
    return ServerOrder(address=f"127.0.0.1:{port}", host="127.0.0.1", port=port, **more)  # type: ignore[arg-type]
