"""
Who changed what, and how it is undone.

Knows how the history is read in parts and what is told of a line; refuses to
know how a change is inverted (L{dynbalance.store.undo}).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from dynbalance.admin import parameters as p
from dynbalance.admin.amending import Amending
from dynbalance.admin.answers import Answer, Json, Refused
from dynbalance.admin.scene import Ask, Scene
from dynbalance.admin.views import line_fields
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.changes import Edit, Line
from dynbalance.store.contract import Snapshot
from dynbalance.store.undo import is_blind, reaches, undo

_PART = 500
"""Lines read at once: the store does nothing else meanwhile."""


class Histories:
    """The history of each upstream."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._amending = Amending(scene, "rollback")

    async def history(self, ask: Ask) -> Answer:
        upstream = self._scene.upstream(ask)
        limit, address = ask.arguments[p.LIMIT], ask.arguments[p.ADDRESS]
        told: list[Json] = []
        async for line in self._back(upstream, ask.arguments[p.BEFORE]):
            if not address or line.address == address:
                told.append(line_fields(line))
            if len(told) == limit:
                break
        return Answer("Success", told)

    async def rollback(self, ask: Ask) -> Answer:
        """
        Orders and intents become what they were; a new revision of its own.
        """
        upstream = self._scene.upstream(ask)
        revision = ask.arguments[p.REVISION]

        async def plan(upstream: Upstream, snapshot: Snapshot) -> tuple[Edit, ...]:
            return await self._plan(upstream, snapshot, revision)

        amended = await self._amending.carry_out(ask, [upstream], plan)
        if ask.arguments[p.DRY_RUN]:
            message = f"Rollback to revision {revision} would change this"
        elif amended.any:
            message = f"Rolled back to revision {revision}"
        else:
            message = "Nothing to roll back"
        return Answer(message, amended.differences[upstream.name])

    async def _plan(
        self, upstream: Upstream, snapshot: Snapshot, revision: int
    ) -> tuple[Edit, ...]:
        if revision == snapshot.revision:
            return ()
        if revision > snapshot.revision:
            raise Refused(
                400, f"Invalid revision: {revision} is newer than {snapshot.revision}, the last one"
            )
        lines = []
        async for line in self._back(upstream):
            lines.append(line)
            if line.revision <= revision or is_blind(line):
                break
        if not reaches(lines, revision):
            raise Refused(
                400, f"The history does not reach back to revision {revision}: {_why(lines)}"
            )
        return undo(snapshot.servers, lines, revision)

    async def _back(self, upstream: Upstream, before: str = "") -> AsyncIterator[Line]:
        """All lines, the newest first."""
        while True:
            part = await self._scene.store.history(upstream.name, _PART, before)
            for line in part.lines:
                yield line
            if len(part.lines) < _PART:
                return
            before = part.lines[-1].id


def _why(lines: list[Line]) -> str:
    """Why it reaches no further than these."""
    if not lines:
        return "it is empty"
    last = lines[-1]
    if is_blind(last):
        return f"at revision {last.revision} ({last.action}, {last.by}) it does not know what was"
    return f"it begins with revision {last.revision}"
