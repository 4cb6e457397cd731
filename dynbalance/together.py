"""
Something that many ask for, done once for all who ask at the same time.

Knows who waits; refuses to know what is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_K = TypeVar("_K")
_T = TypeVar("_T")


class Together(Generic[_K, _T]):
    """
    Who asks while it is being done has it done once more, with all others who ask
    meanwhile: what is under way may have begun too early to know why they ask.
    """

    def __init__(self, do: Callable[[_K], Awaitable[_T]]) -> None:
        """@param do: never runs twice at once for the same key."""
        self._do = do
        self._waiting: dict[_K, list[Deferred[_T]]] = {}

    def __repr__(self) -> str:
        return f"<Together: {len(self._waiting)} under way>"

    def ask(self, key: _K) -> Deferred[_T]:
        """@return: what it gives, or how it fails."""
        asked: Deferred[_T] = Deferred()
        idle = key not in self._waiting
        self._waiting.setdefault(key, []).append(asked)
        if idle:
            Deferred.fromCoroutine(self._go_on(key))
        return asked

    async def _go_on(self, key: _K) -> None:
        while waiting := self._waiting[key]:
            self._waiting[key] = []
            try:
                result = await self._do(key)
            except Exception:  # noqa: BLE001 - each who asked hears of it
                failure = Failure()
                for each in waiting:
                    each.errback(failure)
            else:
                for each in waiting:
                    each.callback(result)
        del self._waiting[key]
