"""
Spans for OpenTelemetry.  The only module that imports its SDK, which the extra
C{otel} installs; it is imported where C{tracing.enabled} says so.

Spans are exported by OTLP over HTTP in a thread of their own, out of a queue that
is bounded: what does not fit is dropped, and nobody waits.  Where they go is
said by the environment (C{OTEL_EXPORTER_OTLP_ENDPOINT} and its kin, C{OTEL_BSP_*},
C{OTEL_SERVICE_NAME}), as the OpenTelemetry specification has it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import StatusCode
from twisted.internet.defer import Deferred

from dynbalance import __version__

_W3C = TraceContextTextMapPropagator()
_NANO = 1_000_000_000


class Tracing:
    """
    Makes spans of requests, and sends them away.

    @raise ValueError: a variable of the environment makes no sense.
    """

    def __init__(self, sample: float, node: str) -> None:
        """
        @param sample: the share of new traces that is recorded.
        @param node: this node's name.
        """
        ours = Resource(
            {
                "service.name": "dynbalance",
                "service.version": __version__,
                "service.instance.id": node,
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("dynbalance", __version__)

    def begin(self, name: str, parent: Mapping[str, str], about: Mapping[str, Any]) -> RequestSpan:
        """
        The span of a request.

        @param parent: C{traceparent} and C{tracestate} as they came; what is not
            valid begins a new trace.
        """
        context = _W3C.extract(parent)
        span = self._tracer.start_span(name, context, SpanKind.SERVER, about)
        return RequestSpan(span)

    def stop(self, reactor: Any, patience: float) -> Deferred[None]:
        """
        Send what there is still to be sent.

        @param patience: seconds for that; what is left then is lost.
        @return: fires when that is over; never fails.
        """
        stopped: Deferred[None] = Deferred()
        late = reactor.callLater(patience, stopped.callback, None)

        def finish() -> None:
            if late.active():
                late.cancel()
                stopped.callback(None)

        def work() -> None:
            try:
                self._provider.shutdown()
            finally:
                reactor.callFromThread(finish)

        threading.Thread(target=work, daemon=True, name="tracing's end").start()
        return stopped


class RequestSpan:
    """
    One request's.

    @ivar fields: C{traceparent} and perhaps C{tracestate} for the server.
    """

    __slots__ = ("_span", "fields")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self.fields: dict[str, str] = {}
        _W3C.inject(self.fields, set_span_in_context(span))

    def event(self, name: str, ago: float, about: Mapping[str, Any]) -> None:
        """Something that happened C{ago} seconds ago."""
        self._span.add_event(name, about, time.time_ns() - int(ago * _NANO))

    def end(self, status: int, about: Mapping[str, Any]) -> None:
        """@param status: that the client got."""
        self._span.set_attributes({"http.response.status_code": status, **about})
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
