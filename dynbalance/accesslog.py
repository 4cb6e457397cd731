"""
What the access logs of both subsystems have in common: one JSON object a line,
and how a line begins.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO, Any, Protocol
from weakref import WeakValueDictionary

from dynbalance.log import Logger


class Out(Protocol):
    """What lines are written to: an open file of text, or something like it."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class LogFile:
    """
    An access log, to be opened anew when it was moved away.

    @param to: C{stdout} or a path, which is appended to.
    @raise OSError: it cannot be written.
    """

    _log = Logger()

    def __init__(self, to: str) -> None:
        self._to = to
        self._losing = False
        self._out = self._opened()

    def __del__(self) -> None:
        out = getattr(self, "_out", sys.stdout)
        if out is not sys.stdout:
            out.close()

    def __repr__(self) -> str:
        return f"<LogFile {self._to}>"

    def _opened(self) -> IO[str]:
        return sys.stdout if self._to == "stdout" else appended(self._to)

    def reopen(self) -> None:
        """@raise OSError: it cannot be written; the one before still is."""
        before, self._out = self._out, self._opened()
        if before is not self._out:
            before.close()

    def write(self, text: str) -> object:
        """Never fails: what finds no room is lost, and that is said once."""
        try:
            self._out.write(text)
        except OSError as failed:
            if not self._losing:
                self._log.error("Lines of {to} are lost: {why}", to=self._to, why=failed.strerror)
            self._losing = True
        else:
            if self._losing:
                self._log.info("{to} takes lines again", to=self._to)
            self._losing = False
        return None

    def flush(self) -> object:
        return self._out.flush()


def appended(path: str) -> IO[str]:
    """
    A file that takes each text in one piece, so that the lines of several
    processes stay whole.

    @raise OSError: it cannot be written.
    """
    return io.TextIOWrapper(open(path, "ab", buffering=0), encoding="utf-8", write_through=True)


class LogFiles:
    """The open ones, each once; what nobody uses any more is closed."""

    def __init__(self) -> None:
        self._files: WeakValueDictionary[str, LogFile] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<LogFiles {', '.join(self._files)}>"

    def open(self, to: str) -> LogFile:
        """
        Open a log, or open it anew.

        @raise OSError: it cannot be written.
        """
        file = self._files.get(to)
        if file is None:
            file = self._files[to] = LogFile(to)
        else:
            file.reopen()
        return file

    def reopen(self) -> list[str]:
        """@return: what could not be opened anew, and why."""
        problems = []
        for to, file in list(self._files.items()):
            try:
                file.reopen()
            except OSError as failed:
                problems.append(f"{to}: {failed.strerror}")
        return problems


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
        out: Out,
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
