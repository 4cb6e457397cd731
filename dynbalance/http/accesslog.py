"""
The access log of an HTTP listener.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dynbalance.accesslog import LineLog

if TYPE_CHECKING:
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.front import Attempt
    from dynbalance.http.request import RequestHead

_START = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([\x21-\x7e\x80-\xff]*)(?: (HTTP/[0-9]\.[0-9])?\r)?"
)
_SHOWN = 1024
"""Bytes that are looked at, for the log, of a head that nobody has read."""


class AccessLog(LineLog):
    """Of an HTTP listener: a line for each request."""

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
        now = self.now()
        attempts = exchange.attempts if exchange is not None else None
        self.write(
            {
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

    def refused(
        self,
        unread: bytes,
        client: str,
        status: int,
        bytes_out: int,
        duration: float,
        protocol: str,
    ) -> None:
        """
        A request was answered before its head was read; nginx has a line for
        it, too.

        @param unread: what there is of the head.  Whatever of its first line
            can be told is in the entry, if not to its end.
        @param duration: seconds that were waited for it.
        @param protocol: empty for what C{unread} says.
        """
        start = _START.match(unread[:_SHOWN].decode("latin-1"))
        method, uri, version = start.groups("") if start is not None else ("", "", "")
        self.write(
            {
                "client": client,
                "method": method,
                "uri": uri,
                "protocol": protocol or version,
                "host": "",
                "status": status,
                "bytes_in": 0,
                "bytes_out": bytes_out,
                "duration": round(duration, 6),
                "upstream": "",
                "request_id": "",
                "attempts": [],
            }
        )


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
