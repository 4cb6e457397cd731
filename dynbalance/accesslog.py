"""
What the access logs of both subsystems have in common: one JSON object a line,
and how a line begins.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO, Any


def open_log(to: str) -> IO[str]:
    """
    @param to: C{stdout} or a path, which is appended to.
    @raise OSError: it cannot be written.
    """
    return sys.stdout if to == "stdout" else open(to, "a", encoding="utf-8")


class LineLog:
    """
    @param listener: its name in the lines.
    @param out: takes text; flushed after each line.
    @param wall: seconds since the epoch.
    @param now: seconds of the clock that the entries' times are of.
    """

    def __init__(
        self,
        listener: str,
        out: IO[str],
        wall: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._out = out
        self._wall = wall
        self.now = now

    def write(self, entry: dict[str, Any]) -> None:
        """Write a line: the time, the listener, and C{entry}."""
        time = datetime.fromtimestamp(self._wall(), timezone.utc).isoformat()
        line = {"time": time, "listener": self._listener, **entry}
        self._out.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._out.flush()
