"""
The access log: one JSON object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.front import Attempt
    from dynbalance.http.request import RequestHead


def open_log(to: str) -> IO[str]:
    """
    @param to: C{stdout} or a path, which is appended to.
    @raise OSError: it cannot be written.
    """
    return sys.stdout if to == "stdout" else open(to, "a", encoding="utf-8")


class AccessLog:
    """
    @param listener: its name in the lines.
    @param out: takes text; flushed after each line.
    @param wall: seconds since the epoch.
    @param now: seconds of the clock that the requests' times are of.
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
        self._now = now

    def request(
        self,
        head: RequestHead,
        client: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        begun: float,
        exchange: Exchange | None,
        protocol: str = "",
    ) -> None:
        """
        @param protocol: empty for that of C{head}.
        @param bytes_in: of the request's body.
        @param bytes_out: all that was written for it.
        @param begun: when its head was read.
        @param exchange: C{None} if no server was to be asked.
        """
        now = self._now()
        attempts = exchange.attempts if exchange is not None else None
        self._write(
            {
                "time": datetime.fromtimestamp(self._wall(), timezone.utc).isoformat(),
                "listener": self._listener,
                "client": client,
                "method": head.method.decode("latin-1"),
                "uri": head.target.decode("latin-1"),
                "protocol": protocol or f"HTTP/1.{head.minor}",
                "host": head.host.decode("latin-1"),
                "status": status,
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "duration": round(now - begun, 6),
                "upstream": exchange.upstream_name if exchange is not None else "",
                "request_id": (head.get(b"x-request-id") or b"").decode("latin-1"),
                "attempts": [_attempt(attempt, now) for attempt in attempts or ()],
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        self._out.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._out.flush()


def _attempt(attempt: Attempt, now: float) -> dict[str, Any]:
    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - attempt.begun, 6)

    return {
        "server": attempt.server,
        "status": attempt.status,
        "connect": since(attempt.connected),
        "header": since(attempt.header),
        "duration": since(attempt.ended if attempt.ended is not None else now),
        "cause": attempt.cause,
    }
