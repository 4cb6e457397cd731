"""What a hook sees of a request, and how a changed one is sent."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.hook import Context, HttpContext
from dynbalance.balancer.hookoutcome import Failed
from dynbalance.balancer.hookrequest import Headers, HttpRequest
from dynbalance.errors import BalancerError
from dynbalance.http.fields import BadMessage
from dynbalance.http.request import RequestHead, parse_request
from tests.balancer.hooked import decided, now, request, run


class HeadersTests(TestCase):
    """The fields of a head, by name."""

    def fields(self) -> Headers:
        return Headers([("host", "a"), ("x-one", "1"), ("accept", "b"), ("x-one", "2")])

    def test_any_case(self) -> None:
        """Names have no case."""
        headers = self.fields()
        self.assertEqual(headers["Host"], "a")
        self.assertEqual(headers.get("X-ONE"), "1")
        self.assertIn("aCCept", headers)
        self.assertNotIn("x-two", headers)
        self.assertIsNone(headers.get("x-two"))
        self.assertRaises(KeyError, lambda: headers["x-two"])

    def test_several(self) -> None:
        """A name may have several fields; the mapping shows the first."""
        headers = self.fields()
        self.assertEqual(headers.get_all("X-One"), ["1", "2"])
        self.assertEqual(dict(headers), {"host": "a", "x-one": "1", "accept": "b"})
        self.assertEqual(len(headers), 3)

    def test_set(self) -> None:
        """What is set takes the first one's place, and the others go."""
        headers = self.fields()
        headers["X-One"] = "3"
        headers["X-Two"] = "4"
        self.assertEqual(
            headers.fields(), [("host", "a"), ("X-One", "3"), ("accept", "b"), ("X-Two", "4")]
        )

    def test_add(self) -> None:
        """One more of a name."""
        headers = self.fields()
        headers.add("X-One", "3")
        self.assertEqual(headers.get_all("x-one"), ["1", "2", "3"])

    def test_delete(self) -> None:
        """All of a name go; a name without fields cannot."""
        headers = self.fields()
        del headers["X-One"]
        self.assertEqual(headers.fields(), [("host", "a"), ("accept", "b")])
        self.assertRaises(KeyError, headers.__delitem__, "x-one")

    def test_one_line_only(self) -> None:
        """Nothing that is set can become a second field, or another message."""
        headers = self.fields()
        for name, value in (
            ("x", "a\r\nx-evil: 1"),
            ("x", "a\n"),
            ("x", "a\0"),
            ("x", "\u20ac"),
            ("x y", "a"),
            ("x:", "a"),
            ("", "a"),
            ("x\r\ny", "a"),
        ):
            self.assertRaises(ValueError, headers.__setitem__, name, value)
            self.assertRaises(ValueError, headers.add, name, value)
        self.assertEqual(headers.fields(), self.fields().fields())

    def test_frame_is_not_a_hooks(self) -> None:
        """Fields of the connection and of the message's frame can only be read."""
        headers = Headers([("content-length", "5"), ("connection", "upgrade")])
        self.assertEqual(headers["Content-Length"], "5")
        for name in ("Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect"):
            self.assertRaises(ValueError, headers.__setitem__, name, "5")
            self.assertRaises(ValueError, headers.add, name, "5")
        self.assertRaises(ValueError, headers.__delitem__, "Content-Length")


class Sender:
    """
    Takes over changed requests as the HTTP subsystem does.

    @ivar heads: those that were to be sent, as they are read.
    @ivar bodies: the bodies with them.
    """

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.bodies: list[bytes | None] = []

    def __call__(self, head: bytes, body: bytes | None) -> None:
        self.heads.append(parse_request(head))
        self.bodies.append(body)


def of(block: bytes, body: bytes | None = b"") -> HttpRequest:
    """The request of a head, as the HTTP subsystem makes it."""
    head = parse_request(block)
    return HttpRequest(
        method=head.method,
        target=head.target,
        fields=head.fields,
        client="192.0.2.1",
        host=head.host,
        minor=head.minor,
        read_body=lambda: body,
    )


class RecreateRequestTests(TestCase):
    """Sending what the request now says."""

    def recreated(
        self, choose: Any, block: bytes, body: bytes | None = b""
    ) -> tuple[RequestHead, bytes | None]:
        """The head and the body that are sent after one attempt."""
        sender = Sender()

        def changing(balancer: HttpContext) -> None:
            choose(balancer.request)
            balancer.recreate_request()

        decided(run(changing, seen=of(block, body), recreate=sender).attempt(1))
        return sender.heads[-1], sender.bodies[-1]

    def test_unchanged(self) -> None:
        """What was not changed is what the client has sent."""
        for block in (
            b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\nX-One: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\n\r\n",
        ):
            before = parse_request(block)
            head, body = self.recreated(lambda r: r.headers, block)
            self.assertEqual(head.fields, before.fields)
            self.assertEqual(head.length, before.length)
            self.assertEqual(head.upgrade, before.upgrade)
            self.assertEqual(head.forward.lower(), before.forward.lower())
            self.assertIsNone(body)

    def test_host_of_a_whole_url(self) -> None:
        """The host is the one that the request is for."""
        head, _ = self.recreated(
            lambda r: None, b"GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
        )
        self.assertEqual((head.host, head.target), (b"b.example", b"/x"))

    def test_headers(self) -> None:
        """Fields that were set, added and taken out."""

        def change(seen: HttpRequest) -> None:
            seen.headers["X-Test"] = "second"
            seen.headers["Host"] = "b.example"
            seen.headers.add("X-More", "1")
            del seen.headers["X-Gone"]

        head, _ = self.recreated(
            change, b"GET / HTTP/1.1\r\nHost: a\r\nX-Test: first\r\nX-Gone: 1\r\n\r\n"
        )
        self.assertEqual(
            head.fields, ((b"host", b"b.example"), (b"x-test", b"second"), (b"x-more", b"1"))
        )
        self.assertEqual(head.host, b"b.example")

    def test_method_and_uri(self) -> None:
        """Another method, another path."""

        def change(seen: HttpRequest) -> None:
            seen.method = "PURGE"
            seen.uri = "/b?c"

        head, _ = self.recreated(change, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual((head.method, head.target), (b"PURGE", b"/b?c"))

    def test_body(self) -> None:
        """A new body brings its own length, once, and no chunks."""

        def change(seen: HttpRequest) -> None:
            assert seen.body is not None
            seen.body = seen.body + b" world"

        for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            head, body = self.recreated(
                change, b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n", b"hello"
            )
            self.assertEqual(body, b"hello world")
            self.assertEqual(head.length, 11)
            self.assertEqual(
                head.fields, ((b"host", b"a"), (b"content-length", b"11"))
            )

    def test_body_taken_away(self) -> None:
        """A body may become empty."""

        def change(seen: HttpRequest) -> None:
            seen.body = b""

        head, body = self.recreated(
            change, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", b"hello"
        )
        self.assertEqual((head.length, body), (0, b""))

    def test_body_that_is_not_here(self) -> None:
        """A body that has not come whole can be neither seen nor replaced."""
        seen = request(read_body=lambda: None)
        self.assertIsNone(seen.body)
        self.assertRaises(BalancerError, setattr, seen, "body", b"new")
        bad: Any = "text"
        self.assertRaises(TypeError, setattr, request(), "body", bad)

    def test_again_and_again(self) -> None:
        """It may be called in each attempt and several times in one."""
        sender = Sender()

        def choose(balancer: HttpContext) -> None:
            for _ in range(2):
                balancer.request.headers["X-Attempt"] = str(balancer.attempt)
                balancer.request.body = b"hello"
                balancer.recreate_request()

        made = run(choose, recreate=sender)
        decided(made.attempt(2))
        decided(made.attempt(1))
        self.assertEqual([head.get(b"x-attempt") for head in sender.heads],
                         [b"1", b"1", b"2", b"2"])
        self.assertEqual([head.length for head in sender.heads], [5] * 4)

    def test_without_the_call(self) -> None:
        """Changes alone reach nobody; a later call finds them."""
        sender = Sender()

        def choose(balancer: HttpContext) -> None:
            if balancer.attempt == 1:
                balancer.request.headers["X-Test"] = "first"
            else:
                balancer.recreate_request()

        made = run(choose, recreate=sender)
        decided(made.attempt(2))
        self.assertEqual(sender.heads, [])
        decided(made.attempt(1))
        self.assertEqual(sender.heads[0].get(b"x-test"), b"first")

    def test_refused(self) -> None:
        """What is no request says why, and changes nothing."""
        sender = Sender()

        def set_to(method: str, uri: str) -> Any:
            def choose(balancer: HttpContext) -> None:
                balancer.request.method = method
                balancer.request.uri = uri
                self.assertRaises(BalancerError, balancer.recreate_request)

            return choose

        for method, uri in (
            ("GET", "/a b"),
            ("GET", "/a HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /b"),
            ("GET", "a"),
            ("GET", ""),
            ("GET", "/\u20ac"),
            ("GET /", "/"),
            ("", "/"),
            ("HEAD", "/"),
            ("TRACE", "/"),
            ("GET", "/a#b"),
        ):
            decided(run(set_to(method, uri), recreate=sender).attempt(1))
        decided(run(set_to("GET", "/"), seen=request(method=b"HEAD"), recreate=sender).attempt(1))
        self.assertEqual(sender.heads, [])

    def test_why(self) -> None:
        """The words are those of whoever refuses; without any there are nginx's."""

        def failing(error: Exception) -> Any:
            def recreate(head: bytes, body: bytes | None) -> None:
                raise error

            return recreate

        for recreate, why in (
            (failing(BadMessage("bad Host")), "bad Host"),
            (failing(ValueError()), "failed to recreate the upstream request"),
            (None, "failed to recreate the upstream request"),
        ):
            outcome = now(run(HttpContext.recreate_request, recreate=recreate).attempt(1))
            assert isinstance(outcome, Failed)
            self.assertEqual(str(outcome.failure.value), why)
        self.assertEqual(len(self.flushLoggedErrors(BalancerError)), 3)

    @given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=8), st.text(max_size=20))
    def test_never_two_requests(self, name: str, value: str, method: str, uri: str) -> None:
        """Whatever a hook writes, one head is sent that says just that, or none."""
        sender = Sender()

        def choose(balancer: Context) -> None:
            seen: HttpRequest = balancer.request  # type: ignore[attr-defined]
            try:
                seen.headers[name] = value
                seen.method, seen.uri = method or "GET", "/" + uri
                balancer.recreate_request()  # type: ignore[attr-defined]
            except (ValueError, BalancerError):
                return

        decided(run(choose, recreate=sender).attempt(1))
        for head in sender.heads:
            self.assertEqual(head.target, b"/" + uri.encode("latin-1"))
            self.assertEqual(head.get(name.lower().encode()), value.strip(" \t").encode("latin-1"))
            self.assertEqual(len(head.fields), 1 if name.lower() == "host" else 2)


class LookingTests(TestCase):
    """What a request shows."""

    def test_request(self) -> None:
        """Method, URI, fields, the client's address and the body, as text and bytes."""
        seen = of(b"PUT /a?b HTTP/1.1\r\nHost: a\r\nX: \xe4\r\nContent-Length: 2\r\n\r\n", b"ab")
        self.assertEqual((seen.method, seen.uri, seen.client), ("PUT", "/a?b", "192.0.2.1"))
        self.assertEqual(seen.headers["x"], "\u00e4")
        self.assertEqual(seen.body, b"ab")
        self.assertEqual(repr(seen), "<HttpRequest PUT /a?b from 192.0.2.1>")

    def test_body_grows(self) -> None:
        """The body is as of now: what was not here in one attempt may be in the next."""
        here: list[bytes | None] = [None]
        seen = request(read_body=lambda: here[0])
        self.assertIsNone(seen.body)
        here[0] = b"all"
        self.assertEqual(seen.body, b"all")
