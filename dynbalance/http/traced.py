"""
A listener whose requests are parts of traces (W3C Trace Context).

Knows where in a request the trace's fields stand, and what of an exchange a
span tells; refuses to know spans themselves and where they go
(L{dynbalance.tracing}).  Nothing here is on the way of a request unless
C{tracing.enabled} says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve

from dynbalance.balancer.tally import CLIENT_GONE
from dynbalance.http.listener import Asking, HttpListener
from dynbalance.http.request import RequestHead, compose

if TYPE_CHECKING:
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.response import ResponseHead

FIELDS = (b"traceparent", b"tracestate")


class Span(Protocol):
    """One request's."""

    @property
    def fields(self) -> Mapping[str, str]:
        """What a server is told, by the names of L{FIELDS}."""

    def event(self, name: str, ago: float, about: Mapping[str, Any]) -> None:
        """@param ago: seconds since it happened."""

    def end(self, status: int, about: Mapping[str, Any]) -> None:
        """@param status: that the client got."""


class Tracer(Protocol):
    """Makes spans."""

    def begin(self, name: str, parent: Mapping[str, str], about: Mapping[str, Any]) -> Span:
        """
        @param parent: what the client said, by the names of L{FIELDS}; may be
            anything.
        """


class TracedListener(HttpListener):
    """As any HTTP listener."""

    tracer: Tracer

    def exchange(self, head: RequestHead, channel: Asking) -> Exchange:
        method = head.method.decode("latin-1")
        about = {
            "http.request.method": method,
            "url.scheme": self.scheme.decode(),
            "url.path": head.path.decode("latin-1"),
            "client.address": self.caller(head, channel),
        }
        span = self.tracer.begin(method, _said(head), about)
        front = _Traced(channel, span, self.deadlines.now)
        exchange = super().exchange(_with(head, span.fields), front)
        exchange.attempts = []
        front.exchange = exchange
        return exchange


def _said(head: RequestHead) -> dict[str, str]:
    """What the request says of a trace; nothing if it says it twice."""
    said: dict[str, str] = {}
    for name, value in head.fields:
        if name in FIELDS:
            key = name.decode()
            # Several fields of tracestate are one list, of traceparent none.
            together = f"{said[key]},{value.decode('latin-1')}" if key in said else None
            said[key] = together or value.decode("latin-1")
    return said


def _with(head: RequestHead, fields: Mapping[str, str]) -> RequestHead:
    """The same request with other fields of a trace."""
    ours = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    lines = [(name, name + b": " + value) for name, value in ours]
    kept = (*(each for each in head.kept if each[0] not in FIELDS), *lines)
    host = head.host
    return evolve(
        head,
        fields=(*(each for each in head.fields if each[0] not in FIELDS), *ours),
        kept=kept,
        forward=compose(
            head.method, head.target, host, [line for _, line in kept], head.length, head.upgrade
        ),
    )


class _Traced:
    """
    A front that looks at what becomes of the request; all else is the
    front's behind it.

    @ivar exchange: whose front it is.
    """

    __slots__ = (
        "_front", "_now", "_span", "_status", "abort", "bulk_target", "client", "ends",
        "exchange", "informational", "passed", "pause_request", "request_wanted",
        "response_body", "resume_request", "suffix", "tunnel_closed", "tunnel_data",
    )  # fmt: skip

    def __init__(self, front: Asking, span: Span, now: Callable[[], float]) -> None:
        self._front = front
        self._span = span
        self._now = now
        self._status = CLIENT_GONE
        self.exchange: Exchange | None = None
        self.client, self.suffix = front.client, front.suffix
        self.abort, self.ends = front.abort, front.ends
        self.bulk_target, self.passed = front.bulk_target, front.passed
        self.informational, self.request_wanted = front.informational, front.request_wanted
        self.pause_request, self.resume_request = front.pause_request, front.resume_request
        self.response_body = front.response_body
        self.tunnel_data, self.tunnel_closed = front.tunnel_data, front.tunnel_closed

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        self._status = head.status
        self._front.respond(head, length, data, at, last)

    def answer(self, status: int) -> None:
        self._status = status
        self._front.answer(status)

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        self._status = head.status
        self._front.switch(head, rest)

    def ended(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._tell(exchange)
        self._front.ended()

    def _tell(self, exchange: Exchange) -> None:
        now, attempts, server = self._now(), exchange.attempts or (), ""
        for attempt in attempts:
            server = attempt.server
            about: dict[str, Any] = {"dynbalance.server": server}
            if attempt.status:
                about["http.response.status_code"] = attempt.status
            if attempt.cause:
                about["error.type"] = attempt.cause
            self._span.event("attempt", now - attempt.begun, about)
        self._span.end(
            self._status,
            {
                "dynbalance.upstream": exchange.upstream_name,
                "dynbalance.server": server,
                "dynbalance.attempts": len(attempts),
            },
        )
