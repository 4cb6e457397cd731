"""Requests as parts of traces: what servers are told, and what spans tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.http.world import OK, HttpTestCase, World, sized

OURS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
THEIRS = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """A tracer that remembers."""

    def __init__(self) -> None:
        self.begun: list[Remembered] = []

    def begin(self, name: str, parent: Mapping[str, str], about: Mapping[str, Any]) -> Remembered:
        self.begun.append(Remembered(name, parent, about))
        return self.begun[-1]


class Remembered:
    """A span, with all that was said of it."""

    def __init__(self, name: str, parent: Mapping[str, str], about: Mapping[str, Any]) -> None:
        self.fields = {"traceparent": OURS}
        self.name, self.parent, self.about = name, dict(parent), dict(about)
        self.events: list[tuple[str, float, dict[str, Any]]] = []
        self.ends: list[tuple[int, dict[str, Any]]] = []

    def event(self, name: str, ago: float, about: Mapping[str, Any]) -> None:
        self.events.append((name, round(ago, 3), dict(about)))

    def end(self, status: int, about: Mapping[str, Any]) -> None:
        self.ends.append((status, dict(about)))


def get(*fields: bytes) -> bytes:
    """A request with more fields."""
    return b"\r\n".join((b"GET /x?y=1 HTTP/1.1", b"Host: a", *fields, b"", b""))


class TracedCase(HttpTestCase):
    """A world whose listener has a tracer."""

    def setUp(self) -> None:
        super().setUp()
        self.spans = Spans()

    def traced(self, *args: Any, **more: Any) -> World:
        return self.world(*args, tracer=self.spans, **more)

    @property
    def span(self) -> Remembered:
        """The only one."""
        (span,) = self.spans.begun
        return span


class FieldsTests(TracedCase):
    """What the server gets."""

    def test_made(self) -> None:
        """A request without a trace gets one, and is otherwise what it was."""
        _, _, seen = self.traced().request(get(b"Accept: */*"))
        self.assertTrue(seen.startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n"))
        self.assertEqual(seen.count(b"traceparent: " + OURS.encode() + b"\r\n"), 1)
        self.assertIn(b"X-Real-IP: 127.0.0.1\r\n", seen)
        self.assertEqual(self.span.parent, {})

    def test_continued(self) -> None:
        """What came is told to the tracer, and the server gets ours instead."""
        fields = b"TraceParent: " + THEIRS, b"tracestate: a=1", b"tracestate: b=2"
        _, _, seen = self.traced().request(get(*fields))
        self.assertEqual(
            self.span.parent, {"traceparent": THEIRS.decode(), "tracestate": "a=1,b=2"}
        )
        self.assertNotIn(THEIRS, seen)
        self.assertNotIn(b"tracestate", seen)

    def test_twice(self) -> None:
        """Two parents are none that is valid."""
        self.traced().request(get(b"traceparent: " + THEIRS, b"traceparent: " + THEIRS))
        self.assertEqual(self.span.parent["traceparent"], f"{THEIRS.decode()},{THEIRS.decode()}")

    def test_off(self) -> None:
        """Without a tracer the fields are passed on as they came."""
        lines = b"TraceParent: nonsense", b"tracestate: a=1"
        _, _, seen = self.world().request(get(*lines))
        self.assertIn(b"\r\n".join(lines), seen)

    def test_with_set_headers(self) -> None:
        """A head that is written anew has it, too."""
        world = self.traced(http={"set_headers": {"X-More": "1"}})
        seen = world.request(get())[2]
        self.assertEqual(seen.count(b"traceparent: "), 1)
        self.assertIn(b"X-More: 1\r\n", seen)


class SpanTests(TracedCase):
    """What is told of a request."""

    def test_answer(self) -> None:
        """The method, the path, the client, the status, and where it was answered."""
        world = self.traced()
        client, server, _ = world.request(get())
        world.wait(0.5)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        key = world.servers[0].key
        self.assertEqual(
            (self.span.name, self.span.about),
            (
                "GET",
                {
                    "http.request.method": "GET",
                    "url.scheme": "http",
                    "url.path": "/x",
                    "client.address": "127.0.0.1",
                },
            ),
        )
        about = {"dynbalance.server": key, "http.response.status_code": 200}
        self.assertEqual(self.span.events, [("attempt", 0.5, about)])
        told = {
            "dynbalance.upstream": "default",
            "dynbalance.server": key,
            "dynbalance.attempts": 1,
        }
        self.assertEqual(self.span.ends, [(200, told)])

    def test_attempts(self) -> None:
        """Each attempt has its event with its cause."""
        world = self.traced(2, upstream={"next_upstream": ("http_503",)})
        client, server, _ = world.request(get())
        server.send(sized(b"no", b"503 No"))
        second = world.backends[1].accept()
        second.take()
        second.send(OK)
        client.take()
        first, last = (about for _, _, about in self.span.events)
        self.assertEqual(first["error.type"], "http_503")
        self.assertEqual(last["http.response.status_code"], 200)
        ((status, told),) = self.span.ends
        self.assertEqual((status, told["dynbalance.attempts"]), (200, 2))
        self.assertEqual(told["dynbalance.server"], world.servers[1].key)

    def test_no_server(self) -> None:
        """An answer of our own is the span's, and ended with it."""
        world = self.traced(0)
        client = world.client()
        client.send(get())
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502"))
        told = {"dynbalance.upstream": "default", "dynbalance.server": "", "dynbalance.attempts": 0}
        self.assertEqual(self.span.ends, [(502, told)])

    def test_client_gone(self) -> None:
        """Who leaves before an answer leaves a 499, once."""
        world = self.traced()
        client, _, _ = world.request(get())
        client.close()
        world.until(lambda: bool(self.span.ends))
        self.assertEqual([status for status, _ in self.span.ends], [499])

    def test_without_a_log(self) -> None:
        """Attempts are told also where no access log wants them."""
        world = self.traced()
        world.listener.access_log = None
        client, server, _ = world.request(get())
        server.send(OK)
        client.take()
        self.assertEqual(len(self.span.events), 1)

    def test_one_after_another(self) -> None:
        """Each request on a kept connection has its own span."""
        world = self.traced()
        client, server, _ = world.request(get())
        server.send(OK)
        client.take()
        client.send(get())
        server.take()
        server.send(OK)
        client.take()
        self.assertEqual([span.ends[0][0] for span in self.spans.begun], [200, 200])
        self.assertEqual([len(span.events) for span in self.spans.begun], [1, 1])
