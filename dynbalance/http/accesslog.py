"""
The access log of an HTTP listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynbalance.accesslog import LineLog

if TYPE_CHECKING:
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.front import Attempt
    from dynbalance.http.request import RequestHead


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
