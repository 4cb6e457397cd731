"""
A store whose behaviour a test decides: the real memory store behind a door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from dynbalance.errors import StoreUnavailable
from dynbalance.store.contract import ServerOrder, Store
from dynbalance.store.memory import MemoryStore
from dynbalance.store.reports import Report


class DoorStore:
    """
    Each call of the contract goes through the door.

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

    @property
    def available(self) -> bool:
        return self.failure is None

    def open(self) -> Deferred[None]:
        return self.inner.open()

    def close(self) -> Deferred[None]:
        return self.inner.close()

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        if not hasattr(Store, name):
            raise AttributeError(name)
        return partial(self._pass, name, getattr(self.inner, name))

    def _pass(
        self, name: str, call: Callable[..., Deferred[Any]], *args: Any, **named: Any
    ) -> Deferred[Any]:
        self.calls.append(name)
        if name == "sync":
            self.reports.append(args[-1])
        if self.failure is not None:
            return fail(self.failure)
        answer = call(*args, **named)
        if not self.slow:
            return answer
        door: Deferred[None] = Deferred()
        self._waiting.append(door)
        return door.addCallback(lambda _: answer)


def order(port: int, **more: object) -> ServerOrder:
    """A server on the loopback interface."""
    return ServerOrder(address=f"127.0.0.1:{port}", host="127.0.0.1", port=port, **more)  # type: ignore[arg-type]
