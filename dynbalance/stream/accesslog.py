"""
The access log of a stream listener: one JSON object a line, when a connection
has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO, Any


class StreamAttempt:
    """
    What became of one try to reach a server.

    @ivar cause: why it failed; empty when it did not.
    """

    __slots__ = ("begun", "cause", "connected", "ended", "server")

    def __init__(self, server: str, now: float) -> None:
        self.server = server
        self.begun = now
        self.connected: float | None = None
        self.ended: float | None = None
        self.cause = ""


class StreamLog:
    """
    @param listener: its name in the lines.
    @param out: takes text; flushed after each line.
    @param wall: seconds since the epoch.
    @param now: seconds of the clock that the sessions' times are of.
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

    def connection(
        self,
        client: str,
        status: int,
        reason: str,
        begun: float,
        upstream: str = "",
        bytes_in: int = 0,
        bytes_out: int = 0,
        attempts: list[StreamAttempt] | None = None,
    ) -> None:
        """
        @param status: 200 for one that had a server, 400 for one that did not
            begin as it has to, 499 for a client that left before there was a
            server, 502 when there was none, 503 for C{max_connections}.
        @param reason: the same in words.
        @param begun: when it came.
        @param bytes_in: from the client.
        @param bytes_out: to the client.
        """
        now = self.now()
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(self._wall(), timezone.utc).isoformat(),
            "listener": self._listener,
            "client": client,
            "status": status,
            "reason": reason,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "duration": round(now - begun, 6),
            "upstream": upstream,
            "attempts": [_attempt(attempt, now) for attempt in attempts or ()],
        }
        self._out.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._out.flush()


def _attempt(attempt: StreamAttempt, now: float) -> dict[str, Any]:
    connected, ended = attempt.connected, attempt.ended
    return {
        "server": attempt.server,
        "connect": None if connected is None else round(connected - attempt.begun, 6),
        "duration": round((now if ended is None else ended) - attempt.begun, 6),
        "cause": attempt.cause,
    }
