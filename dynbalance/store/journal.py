"""
The history of one upstream and its revision, in memory.

The plain-Python twin of C{record} in C{meta.lua}; refuses to know what the
changes are.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from dynbalance.store.changes import HISTORY, History, Line
from dynbalance.store.contract import ServerRecord


class Step:
    """
    What is changed together: it raises the revision once, with its first line.

    @ivar revision: that it led to; 0 while nothing was changed.
    @ivar part: how many lines it has written.
    """

    __slots__ = ("at", "by", "part", "revision")

    def __init__(self, by: str, at: float) -> None:
        self.by = by
        self.at = at
        self.part = 0
        self.revision = 0


class Journal:
    """
    @ivar revision: grows with each step that changed anything.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._lines: deque[Line] = deque(maxlen=HISTORY)
        self._last = (0, 0)

    def write(
        self,
        step: Step,
        action: str,
        address: str,
        before: ServerRecord | None = None,
        after: ServerRecord | None = None,
        cause: str = "",
    ) -> None:
        """One line; see L{Line}."""
        if not step.part:
            self.revision += 1
            step.revision = self.revision
        step.part += 1
        moment = (int(step.at * 1000), 0)
        self._last = moment if moment > self._last else (self._last[0], self._last[1] + 1)
        self._lines.append(
            Line(
                id=f"{self._last[0]}-{self._last[1]}",
                at=step.at,
                revision=step.revision,
                part=step.part,
                by=step.by,
                action=action,
                address=address,
                before=before,
                after=after,
                cause=cause,
            )
        )

    def before(self, id: str, limit: int) -> History:
        """The newest first."""
        older = (line for line in reversed(self._lines) if not id or _key(line.id) < _key(id))
        return self._part(tuple(islice(older, limit)))

    def after(self, id: str, limit: int) -> History:
        """The oldest first."""
        newer = (line for line in self._lines if _key(line.id) > _key(id))
        return self._part(tuple(islice(newer, limit)))

    def _part(self, lines: tuple[Line, ...]) -> History:
        return History(lines=lines, oldest=self._lines[0].id if self._lines else "")


def _key(id: str) -> tuple[int, int]:
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number)
