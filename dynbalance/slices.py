"""
Long work in slices, between which the reactor turns: whatever takes long in one go
holds up all connections.

Knows how long a slice may be, and that several works take turns; refuses to know
what is done.  What is looked at while others change it has to be a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

SLICE = 0.002
"""Seconds after which the reactor gets its turn."""

_T = TypeVar("_T")


class Slices:
    """
    Where works wait for their slices, one slice to a turn of the reactor.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        """@param clock: C{None} where nobody waits meanwhile: all is done in one go."""
        self._clock = clock
        self._waiting: deque[Deferred[None]] = deque()

    def __repr__(self) -> str:
        return f"<Slices: {len(self._waiting)} wait>"

    async def run(self, pieces: Iterable[_T]) -> list[_T]:
        """
        Do a work.  One that is done within a slice, while nobody else is at work,
        is done when this returns.

        @param pieces: does a small part of it for each that is asked for.
        @return: what each piece gave.
        """
        clock = self._clock
        if clock is None:
            return list(pieces)
        if self._waiting:
            await self._turn(clock)
        made: list[_T] = []
        end = clock.seconds() + SLICE
        for piece in pieces:
            made.append(piece)
            if clock.seconds() >= end:
                await self._turn(clock)
                end = clock.seconds() + SLICE
        return made

    def _turn(self, clock: IReactorTime) -> Deferred[None]:
        """Fires in a turn of the reactor that is nobody else's."""
        turn: Deferred[None] = Deferred()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            clock.callLater(0, self._go_on, clock)
        return turn

    def _go_on(self, clock: IReactorTime) -> None:
        turn = self._waiting.popleft()
        if self._waiting:
            clock.callLater(0, self._go_on, clock)
        turn.callback(None)


IN_ONE_GO = Slices()
"""Never waits."""
