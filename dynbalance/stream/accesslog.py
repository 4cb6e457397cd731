"""
The access log of a stream listener.
"""

from __future__ import annotations

from typing import Any

from dynbalance.accesslog import LineLog


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


class StreamLog(LineLog):
    """Of a stream listener: a line for each connection that has ended."""

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
            server, 502 when there was none, 503 for C{max_connections}, 504
            for a hook that did not decide.
        @param reason: the same in words.
        @param begun: when it came.
        @param bytes_in: from the client.
        @param bytes_out: to the client.
        """
        now = self.now()
        entry: dict[str, Any] = {
            "client": client,
            "status": status,
            "reason": reason,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "duration": round(now - begun, 6),
            "upstream": upstream,
            "attempts": [_attempt(attempt, now) for attempt in attempts or ()],
        }
        self.write(entry)


def _attempt(attempt: StreamAttempt, now: float) -> dict[str, Any]:
    connected, ended = attempt.connected, attempt.ended
    return {
        "server": attempt.server,
        "connect": None if connected is None else round(connected - attempt.begun, 6),
        "duration": round((now if ended is None else ended) - attempt.begun, 6),
        "cause": attempt.cause,
    }
