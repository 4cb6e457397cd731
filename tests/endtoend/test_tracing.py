"""
Traces: a daemon, a server that shows what it got, and somebody who stands in for
an OpenTelemetry collector.
"""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Reply, ask, free_port, wait_until
from tests.endtoend.servers import Backend

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """
    Takes spans by OTLP over HTTP.

    @ivar spans: those that came.
    @ivar resources: what each batch says of who sent it.
    """

    def __init__(self, case: EndToEndCase) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        case.addCleanup(self.stop)

    @property
    def environment(self) -> dict[str, str]:
        """That leads a daemon here, and has it send soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SERVICE_NAME": "edge",
        }

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces", path
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values_of(batch.resource.attributes))
            for scope in batch.scope_spans:
                self.spans += scope.spans

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def values_of(attributes: Any) -> dict[str, str]:
    """By name, as text."""
    return {
        each.key: each.value.string_value or str(each.value.int_value) for each in attributes
    }


def told(reply: Reply) -> str:
    """The traceparent that the server got."""
    (line,) = [x for x in reply.body.decode().split("\r\n") if x.lower().startswith("traceparent:")]
    return line.partition(":")[2].strip()


def recorded(traceparent: str) -> bool:
    """What the flag says; there are others beside it."""
    return bool(int(traceparent[-2:], 16) & 1)


class TracingTests(EndToEndCase):
    """With C{tracing.enabled}."""

    def daemon(self, more: str, environment: dict[str, str], **tables: Any) -> Daemon:
        return Daemon(
            self,
            servers=f'[{{ address = "{Backend(self).address}" }}]',
            more=f"[tracing]\nenabled = true\n{more}",
            environment=environment,
            **tables,
        )

    def test_spans(self) -> None:
        """
        A trace is continued, or begun; the span that the server is told of comes
        to the collector, with what became of the request.
        """
        collector = Collector(self)
        daemon = self.daemon("", collector.environment)
        seen = told(
            ask(daemon.http, "/head?secret", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        )
        wait_until(lambda: collector.spans, "the span")
        (span,) = collector.spans
        self.assertEqual(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01", seen)
        self.assertEqual((TRACE, SPAN), (span.trace_id.hex(), span.parent_span_id.hex()))
        about = values_of(span.attributes)
        self.assertEqual(
            ("GET", "GET", "/head", "200", "default", "1"),
            (
                span.name,
                about["http.request.method"],
                about["url.path"],
                about["http.response.status_code"],
                about["dynbalance.upstream"],
                about["dynbalance.attempts"],
            ),
        )
        self.assertTrue(span.start_time_unix_nano <= span.events[0].time_unix_nano)
        self.assertTrue(span.events[0].time_unix_nano <= span.end_time_unix_nano)
        who = collector.resources[0]
        self.assertEqual(("edge", "dynbalance"), (who["service.name"], who["service.instance.id"]))
        not_recorded = told(
            ask(daemon.http, "/head", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        )
        self.assertTrue(not_recorded.startswith(f"00-{TRACE}-"))
        self.assertFalse(recorded(not_recorded))
        self.assertNotIn(SPAN, not_recorded)
        begun = told(ask(daemon.http, "/head", headers={"traceparent": "nonsense"}))
        self.assertRegex(begun, r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
        self.assertTrue(recorded(begun))
        wait_until(lambda: len(collector.spans) == 2, "the other span")
        self.assertEqual({seen[36:52], begun[36:52]}, {s.span_id.hex() for s in collector.spans})

    def test_end(self) -> None:
        """What was not sent yet is sent at the end."""
        collector = Collector(self)
        environment = {**collector.environment, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        daemon = self.daemon("", environment)
        seen = told(ask(daemon.http, "/head"))
        self.assertEqual([], collector.spans)
        self.assertEqual(0, daemon.process.stop())
        self.assertEqual([seen[36:52]], [span.span_id.hex() for span in collector.spans])

    def test_no_collector(self) -> None:
        """Nobody waits for a collector that is not there, and the daemon ends in time."""
        nowhere = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{free_port()}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        daemon = self.daemon("sample = 0.5\n", nowhere)
        flags = {recorded(told(ask(daemon.http, "/head"))) for _ in range(40)}
        self.assertEqual({False, True}, flags)
        self.assertEqual(0, daemon.process.stop())

    def test_workers(self) -> None:
        """Workers trace as well as one process does."""
        collector = Collector(self)
        daemon = self.daemon("", collector.environment, root={"workers": 2}, store="embedded:")
        seen = told(ask(daemon.http, "/head"))
        wait_until(lambda: collector.spans, "the span")
        self.assertEqual(seen[36:52], collector.spans[0].span_id.hex())
        self.assertIn(
            collector.resources[0]["service.instance.id"], ("dynbalance-w1", "dynbalance-w2")
        )
