"""
The client's side: what it may send, and what it hears.
"""

from __future__ import annotations

import socket

from tests.http.world import GET, OK, HttpTestCase, plain, post, sized

GET10 = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    """A response in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


class KeepAliveTests(HttpTestCase):
    """Whether the client's connection stays open."""

    def test_one_after_the_other(self) -> None:
        """Both connections serve one request after the other."""
        world = self.world()
        client, server, got = world.request()
        self.assertEqual(plain(got), GET)
        for _ in range(3):
            server.send(OK)
            self.assertEqual(client.take(), OK)
            client.send(GET)
            self.assertEqual(plain(server.take()), GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual((world.held, world.idle), (0, 1))

    def test_close_asked(self) -> None:
        """A client that says close is told so, and its connection is closed."""
        client, server, _ = self.world().request(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        server.send(OK)
        self.assertEqual(
            client.await_end(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        )

    def test_http10(self) -> None:
        """HTTP/1.0 without keep-alive ends with its answer."""
        client, server, got = self.world().request(GET10)
        self.assertTrue(got.startswith(b"GET / HTTP/1.1\r\nHost: a\r\n"), got)
        server.send(OK)
        self.assertEqual(
            client.await_end(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        )

    def test_http10_keep_alive(self) -> None:
        """HTTP/1.0 with keep-alive is told that the connection stays."""
        world = self.world()
        request = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
        client, server, _ = world.request(request)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
        server.send(OK)
        self.assertEqual(client.take(), answer)
        client.send(request)
        server.send(OK)
        self.assertEqual(client.take(), answer)

    def test_http10_without_host(self) -> None:
        """A server of HTTP/1.1 gets a Host even if the client sent none."""
        _, _, got = self.world().request(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"\r\nHost: default\r\n", got)

    def test_keepalive_requests(self) -> None:
        """The last request that a connection may carry closes it."""
        world = self.world(http={"keepalive_requests": 2})
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(client.take(), OK)
        client.send(GET)
        server.send(OK)
        self.assertIn(b"\r\nConnection: close\r\n", client.await_end())

    def test_more_than_keepalive_requests(self) -> None:
        """The answers that are due arrive, even if the client has sent more."""
        world = self.world(backends=0, http={"keepalive_requests": 100})
        client = world.client()
        client.offer(GET * 2000)
        world.pump()
        client.offer(GET * 2000)
        got = client.await_end()
        self.assertFalse(client.reset)
        self.assertEqual(got.count(b"HTTP/1.1 502 "), 100)
        self.assertEqual(got.count(b"Connection: close"), 1)

    def test_no_keepalive(self) -> None:
        """With keepalive_timeout 0 every answer is the last."""
        client, server, _ = self.world(http={"keepalive_timeout": 0.0}).request()
        server.send(OK)
        self.assertIn(b"\r\nConnection: close\r\n", client.await_end())

    def test_keepalive_timeout(self) -> None:
        """An idle connection is closed silently after keepalive_timeout."""
        world = self.world(http={"keepalive_timeout": 10.0})
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(client.take(), OK)
        world.wait(9.5)
        self.assertFalse(client.over)
        world.wait(1.0)
        self.assertEqual(client.await_end(), b"")

    def test_drain_idle(self) -> None:
        """Draining closes a connection without a request at once."""
        world = self.world()
        client = world.client()
        world.listener.drain()
        self.assertEqual(client.await_end(), b"")
        self.assertEqual(world.listener.channels, set())

    def test_drain_busy(self) -> None:
        """Draining lets a request under way end; its answer is the last."""
        world = self.world()
        client, server, _ = world.request(GET + GET)
        world.listener.drain()
        server.send(OK)
        self.assertEqual(
            client.await_end(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        )
        self.assertEqual(server.take(), b"")

    def test_retire(self) -> None:
        """
        A listener that retires closes nobody: the next answer says that it is
        the last one.
        """
        world = self.world()
        idle = world.client()
        client, server, _ = world.request(GET)
        world.listener.retire()
        server.send(OK)
        last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        self.assertEqual(client.await_end(), last)
        self.assertFalse(idle.over)
        idle.send(GET)
        server.send(OK)
        self.assertEqual(idle.await_end(), last)

    def test_retire_too_late(self) -> None:
        """
        An answer that has begun cannot say so any more: the connection stays
        for one more, or that request would be lost.
        """
        world = self.world()
        client, server, _ = world.request(GET)
        server.send(OK[:-1])
        self.assertEqual(client.take(), OK[:-1])
        world.listener.retire()
        server.send(OK[-1:])
        self.assertEqual(client.take(), OK[-1:])
        self.assertFalse(client.over)
        client.send(GET)
        server.send(OK)
        self.assertIn(b"Connection: close", client.await_end())

    def test_max_connections(self) -> None:
        """One client too many is closed at once."""
        world = self.world(http={"max_connections": 1})
        client = world.client()
        other = world.client()
        self.assertTrue(other.over)
        self.assertEqual(world.listener.rejected, 1)
        client.send(GET)
        world.backends[0].accept().send(OK)
        self.assertEqual(client.take(), OK)


class PipelineTests(HttpTestCase):
    """Clients that do not wait for answers."""

    def test_order(self) -> None:
        """Requests sent at once are served one by one, answers in order."""
        world = self.world()
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(3))
        client, server, got = world.request(requests)
        for n in range(3):
            self.assertIn(b"GET /%d " % n, got)
            self.assertEqual(got.count(b"GET"), 1)
            server.send(sized(b"%d" % n))
            got = server.take()
        self.assertEqual(client.take(), b"".join(sized(b"%d" % n) for n in range(3)))

    def test_bodies(self) -> None:
        """What follows a body is the next request."""
        world = self.world()
        chunks = b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client, server, got = world.request(post(b"abc") + chunks + b"2\r\nde\r\n0\r\n\r\n" + GET)
        self.assertTrue(got.endswith(b"\r\n\r\nabc"), got)
        server.send(OK)
        self.assertTrue((got := server.take()).endswith(b"\r\n\r\n2\r\nde\r\n0\r\n\r\n"), got)
        server.send(OK)
        self.assertEqual(plain(server.take()), GET)
        server.send(OK)
        self.assertEqual(client.take(), OK * 3)

    def test_bounded(self) -> None:
        """However much a client sends ahead, little of it is kept here."""
        world = self.world()
        client = world.client()
        request = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 1000)
        client.send(request)
        server = world.backends[0].accept()
        (channel,) = world.listener.channels
        flood = memoryview(request * 4000)
        for _ in range(60):
            for _ in range(30):
                flood = flood[client.offer(flood) :]
                world.pump()
            self.assertLess(len(channel._buffer), 140000)
            server.send(OK)
        self.assertEqual(client.take().count(b"200 OK"), 60)

    def test_large_head_behind_a_full_buffer(self) -> None:
        """A head larger than what is read ahead arrives all the same."""
        world = self.world(http={"max_header_size": 200000})
        large = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 150000)
        client, server, _ = world.request()
        client.push(large)
        server.send(OK)
        self.assertEqual(len(plain(server.await_bytes(len(large)))) > 100000, True)
        server.send(OK)
        self.assertEqual(client.take(), OK + OK)

    def test_endless_without_reading(self) -> None:
        """A client that asks on and never reads is not served on for ever."""
        world = self.world()
        client = world.client(receive_buffer=4096)
        client.send(GET * 400)
        server = world.backends[0].accept()
        answered = 0
        large = sized(b"x" * 60000)
        for _ in range(400):
            if not server.take():
                break
            server.push(large)
            answered += 1
        (channel,) = world.listener.channels
        self.assertLess(answered, 200)
        self.assertLess(channel.transport.queued, 200000)
        client.await_bytes(len(large) * answered)
        self.assertIn(b"GET", server.take())

    def test_empty_lines_before(self) -> None:
        """RFC 9112 section 2.2: empty lines before a request mean nothing."""
        client, _, got = self.world().request(b"\r\n\r\n\r\n" + GET)
        self.assertEqual(plain(got), GET)
        self.assertFalse(client.over)

    def test_every_split(self) -> None:
        """A request may arrive in any two pieces."""
        world = self.world()
        request = post(b"abc")
        client, server, _ = world.request(GET)
        server.send(OK)
        client.take()
        for at in range(1, len(request)):
            client.send(request[:at])
            client.send(request[at:])
            self.assertTrue(plain(server.take()).endswith(b"\r\n\r\nabc"))
            server.send(OK)
            self.assertEqual(client.take(), OK)

    def test_byte_by_byte(self) -> None:
        """A request may arrive one byte at a time."""
        world = self.world()
        client = world.client()
        for byte in post(b"abc"):
            client.send(bytes([byte]))
        server = world.backends[0].accept()
        for byte in OK:
            server.send(bytes([byte]))
        self.assertEqual(client.take(), OK)


class RefusalTests(HttpTestCase):
    """Requests that no server gets to see."""

    def refused(self, data: bytes, status: int, **http: object) -> bytes:
        """Send C{data} and expect one answer and the end."""
        world = self.world(http=http)
        client = world.client()
        client.send(data)
        got = client.take()
        self.assertTrue(got.startswith(b"HTTP/1.1 %d " % status), got)
        self.assertIn(b"\r\nConnection: close\r\n", got)
        self.assertEqual(got.count(b"HTTP/1.1"), 1)
        self.assertFalse(world.backends[0].waiting())
        # Our side is closed; the client may finish what it was saying.
        self.assertTrue(client.over)
        client.offer(b"more" * 100)
        world.pump()
        self.assertEqual(world.listener.bad_requests, 1)
        return got

    def test_text(self) -> None:
        """The answer is short and plain."""
        self.assertEqual(
            self.refused(b"GET / HTTP/1.1\r\n\r\n", 400),
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 16\r\nConnection: close\r\n\r\n400 Bad Request\n",
        )

    def test_hopeless_at_once(self) -> None:
        """What can become no head any more is refused without waiting for its end."""
        for data in (
            b"GET /\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"\n",
            b"GET / HTTP/1.1\r\nHost: a\rb",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ):
            self.refused(data, 400)

    def test_large_head(self) -> None:
        """431: the head is larger than max_header_size, finished or not."""
        self.refused(b"GET /" + b"x" * 1100, 431, max_header_size=1024)
        self.refused(
            b"GET /" + b"x" * 1100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, max_header_size=1024
        )

    def test_largest_head(self) -> None:
        """A head of exactly max_header_size is served."""
        world = self.world(http={"max_header_size": 1024})
        start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
        request = start + b"x" * (1020 - len(start)) + b"\r\n\r\n"
        _, _, got = world.request(request)
        self.assertEqual(plain(got), request)

    def test_preface_of_http2(self) -> None:
        """505: HTTP/2 without TLS is not spoken here."""
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)

    def test_refused_after_good(self) -> None:
        """A bad request behind a good one is refused after the good one's answer."""
        world = self.world()
        client, server, _ = world.request(GET + b"BAD\r\n\r\n" + GET)
        self.assertEqual(client.take(), b"")
        server.send(OK)
        got = client.take()
        self.assertTrue(got.startswith(OK + b"HTTP/1.1 400 "), got)
        self.assertTrue(client.over)
        self.assertEqual(server.take(), b"")

    def test_lingering_is_bounded(self) -> None:
        """A client that sends on after its refusal is cut off in the end."""
        world = self.world()
        client = world.client()
        client.send(b"BAD\r\n\r\n")
        for _ in range(12):
            client.offer(b"x" * 1000)
            world.wait(0.5)
        self.assertEqual(world.listener.channels, set())

    def test_head_too_slow(self) -> None:
        """408: the time for a head runs from its first byte, not from its last."""
        world = self.world(http={"client_header_timeout": 10.0})
        client = world.client()
        for byte in b"GET / HTTP/1":
            client.send(bytes([byte]))
            world.wait(1.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 "))
        self.assertTrue(client.over)

    def test_silence(self) -> None:
        """A client that says nothing at all is closed without an answer."""
        world = self.world(http={"client_header_timeout": 10.0})
        client = world.client()
        world.wait(10.5)
        self.assertEqual(client.await_end(), b"")


class RequestBodyTests(HttpTestCase):
    """Bodies on their way to the server."""

    def test_streamed(self) -> None:
        """A body is passed on as it comes."""
        client, server, got = self.world().request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc"
        )
        self.assertTrue(got.endswith(b"\r\n\r\nabc"), got)
        client.send(b"def")
        self.assertEqual(server.take(), b"def")
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_chunked(self) -> None:
        """Chunks are passed on as chunks; extensions and trailers end here."""
        client, server, got = self.world().request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nab"
        )
        self.assertTrue(got.endswith(b"Transfer-Encoding: chunked\r\n"
                                     b"X-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\n"
                                     b"X-Forwarded-Proto: http\r\n\r\n2\r\nab\r\n"), got)
        client.send(b"c\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
        self.assertEqual(server.take(), b"3\r\ncde\r\n0\r\n\r\n")
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_broken_chunks(self) -> None:
        """400 for broken chunks; the server's connection is closed, not reused."""
        world = self.world()
        client, server, _ = world.request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        client.send(b"zz\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(client.over)
        self.assertTrue(server.over)
        self.assertEqual((world.held, world.idle), (0, 0))

    def test_broken_chunks_of_a_second_request(self) -> None:
        """400, too, when an earlier request was answered well."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))

    def test_broken_chunks_and_close(self) -> None:
        """400 reaches a client that asked for the connection's end."""
        world = self.world()
        client = world.client()
        client.send(
            b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nz\r\n"
        )
        self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))

    def test_broken_chunks_while_answered(self) -> None:
        """When the response is under way, all that can be said is a reset."""
        world = self.world()
        client, server, _ = world.request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        server.send(sized(b"x" * 10)[:-5])
        client.take()
        client.send(b"zz\r\n")
        self.assertTrue(client.over)
        self.assertTrue(client.reset)
        self.assertTrue(server.over)

    def test_too_large_by_length(self) -> None:
        """413 as soon as the length is known, before a server is asked."""
        world = self.world(upstream={"client_max_body_size": 5})
        client = world.client()
        client.send(post(b"123456"))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
        self.assertTrue(client.over)
        self.assertFalse(world.backends[0].waiting())
        self.assertEqual(world.entries()[0]["status"], 413)

    def test_too_large_by_chunks(self) -> None:
        """413 when the chunks have become too many."""
        world = self.world(upstream={"client_max_body_size": 5})
        client, server, _ = world.request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        client.send(b"3\r\ndef\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
        self.assertTrue(server.over)
        self.assertEqual(world.entries()[0]["status"], 413)

    def test_exactly_as_large(self) -> None:
        """A body of exactly client_max_body_size is served."""
        world = self.world(upstream={"client_max_body_size": 5})
        client, server, _ = world.request(post(b"12345"))
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_too_slow(self) -> None:
        """408 when the body stops coming; the time runs from its last byte."""
        world = self.world(http={"client_header_timeout": 10.0})
        client, server, _ = world.request(post(b"123456")[:-3])
        for byte in (b"4", b"5"):
            world.wait(8.0)
            client.send(byte)
        world.wait(9.5)
        self.assertFalse(client.over)
        world.wait(1.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 "))
        self.assertTrue(server.over)

    def test_too_slow_while_answered(self) -> None:
        """No second answer when the response is already under way."""
        world = self.world(http={"client_header_timeout": 10.0})
        client, server, _ = world.request(post(b"123456")[:-3])
        server.send(sized(b"12345")[:-1])
        for _ in range(3):
            world.wait(4.0)
            server.offer(b"")
        self.assertTrue(client.over)
        self.assertEqual(client.take().count(b"HTTP/1.1"), 1)

    def test_answered_early(self) -> None:
        """
        An answer before the end of the request ends both connections: what is
        still to come of the request cannot be told from the next one in time.
        """
        world = self.world()
        client, server, _ = world.request(post(b"123456")[:-3])
        server.send(sized(b"no", b"403 Forbidden"))
        self.assertEqual(
            client.take(),
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        )
        self.assertTrue(client.ended)
        client.send(b"456" + GET)
        self.assertEqual(world.idle, 0)
        self.assertTrue(server.over)
        self.assertEqual(server.take(), b"")
        world.wait(6.0)
        self.assertEqual(world.listener.channels, set())

    def test_expect(self) -> None:
        """100 once the server is reached; the server never sees the question."""
        request = (
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"
        )
        client, server, got = self.world().request(request)
        self.assertNotIn(b"xpect", got)
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"ab")
        self.assertEqual(server.take(), b"ab")
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        self.assertEqual(client.take(), OK)

    def test_expect_too_much(self) -> None:
        """A client that waits for 100 hears 413 instead."""
        world = self.world(upstream={"client_max_body_size": 5})
        client = world.client()
        client.send(post(b"123456", b"Expect: 100-continue\r\n")[:-6])
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))

    def test_expect_of_nobody(self) -> None:
        """No 100 while no server is there."""
        world = self.world(backends=0)
        client = world.client()
        client.send(post(b"123456", b"Expect: 100-continue\r\n")[:-6])
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))

    def test_expect_http10(self) -> None:
        """HTTP/1.0 knows no 100."""
        client, _, _ = self.world().request(
            b"PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(client.take(), b"")


class ResponseTests(HttpTestCase):
    """What the client gets of the server's answer."""

    def answered(self, answer: bytes, request: bytes = GET) -> bytes:
        """What an open connection's client has heard."""
        client, server, _ = self.world().request(request)
        server.send(answer)
        return client.take()

    def ended(self, answer: bytes, request: bytes, cut: bool = False) -> bytes:
        """What the client of a connection that is closed has heard."""
        client, server, _ = self.world().request(request)
        server.send(answer)
        if cut:
            server.close()
        return client.await_end()

    def test_chunked(self) -> None:
        """Chunks come out as chunks."""
        self.assertEqual(
            self.answered(chunked(b"ab", b"cde")),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        )

    def test_chunked_to_http10(self) -> None:
        """HTTP/1.0 gets the bare body and the connection's end."""
        self.assertEqual(
            self.ended(chunked(b"ab", b"cde"), GET10),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde",
        )

    def test_until_close(self) -> None:
        """A body that ends with the connection comes out in chunks."""
        client, server, _ = self.world().request()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nab")
        self.assertEqual(
            client.take(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        )
        server.send(b"cde")
        server.close()
        self.assertEqual(client.take(), b"3\r\ncde\r\n0\r\n\r\n")
        client.send(GET)
        self.assertFalse(client.over)

    def test_until_close_to_http10(self) -> None:
        """Likewise to HTTP/1.0, without chunks."""
        self.assertEqual(
            self.ended(b"HTTP/1.0 200 OK\r\n\r\nabc", GET10, cut=True),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
        )

    def test_until_reset(self) -> None:
        """A body that ends with a reset has not ended: the client notices."""
        client, server, _ = self.world().request()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nab")
        client.take()
        server.cut()
        self.assertTrue(client.over)
        self.assertNotIn(b"0\r\n\r\n", client.take())

    def test_head(self) -> None:
        """The answer to HEAD has no body, whatever its fields say."""
        head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
        for fields in (b"Content-Length: 5\r\n", b"X: y\r\n"):
            answer = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
            self.assertEqual(self.answered(answer, head), answer)
        self.assertEqual(
            self.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head),
            b"HTTP/1.1 200 OK\r\n\r\n",
        )

    def test_bodyless(self) -> None:
        """204 and 304 have no body; what they say of one does no harm."""
        for answer, heard in (
            (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (
                b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
                b"HTTP/1.1 204 No Content\r\n\r\n",
            ),
            (
                b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\n\r\n",
            ),
            (
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: x\r\n\r\n",
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: x\r\n\r\n",
            ),
        ):
            self.assertEqual(self.answered(answer), heard)

    def test_announced_body_of_204(self) -> None:
        """A 204 that announces a body is the last on its connection."""
        world = self.world()
        client, server, _ = world.request()
        server.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n")
        client.take()
        self.assertEqual(world.idle, 0)
        self.assertTrue(server.over)

    def test_connection_names_length(self) -> None:
        """Connection can take out any field but the one that frames the body."""
        self.assertEqual(
            self.answered(
                b"HTTP/1.1 200 OK\r\nConnection: Content-Length, X\r\nX: y\r\n"
                b"Content-Length: 2\r\n\r\nok"
            ),
            OK,
        )

    def test_informational(self) -> None:
        """103 is passed on, 100 is not."""
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        self.assertEqual(
            self.answered(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + hints + OK), hints + hints + OK
        )

    def test_informational_to_http10(self) -> None:
        """HTTP/1.0 knows no informational responses."""
        heard = self.ended(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, GET10)
        self.assertNotIn(b"103", heard)
        self.assertTrue(heard.endswith(b"ok"))

    def test_longer_than_announced(self) -> None:
        """More bytes than announced are cut, and the connection is not reused."""
        world = self.world()
        client, server, _ = world.request(GET + GET)
        server.push(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.idle, 0)
        other = world.backends[0].accept()
        self.assertEqual(plain(other.take()), GET)
        other.send(OK)
        self.assertEqual(client.take(), OK)

    def test_more_behind_the_last_chunk(self) -> None:
        """Bytes behind the last chunk are dropped with the connection."""
        world = self.world()
        client, server, _ = world.request()
        server.send(chunked(b"ab") + b"x")
        self.assertTrue(client.take().endswith(b"2\r\nab\r\n0\r\n\r\n"))
        self.assertEqual(world.idle, 0)
        self.assertTrue(server.over)

    def test_shorter_than_announced(self) -> None:
        """A body that stays short is never made to look complete."""
        client, server, _ = self.world().request()
        server.send(sized(b"abcdef")[:-3])
        self.assertTrue(client.take().endswith(b"\r\n\r\nabc"))
        server.close()
        self.assertTrue(client.over)
        self.assertEqual(client.take(), b"")

    def test_broken_chunks(self) -> None:
        """A chunked response that breaks is cut off without a last chunk."""
        client, server, _ = self.world().request()
        server.send(chunked(b"ab")[:-5])
        self.assertTrue(client.take().endswith(b"2\r\nab\r\n"))
        server.send(b"nonsense\r\n")
        self.assertTrue(client.over)
        self.assertNotIn(b"0\r\n\r\n", client.take())

    def test_broken_at_once(self) -> None:
        """Chunks that are broken from the start make a 502."""
        self.assertTrue(
            self.answered(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
            ).startswith(b"HTTP/1.1 502 ")
        )

    def test_every_split(self) -> None:
        """A response may arrive in any two pieces."""
        world = self.world()
        client, server, _ = world.request()
        answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + chunked(b"ab", b"c")
        for at in range(1, len(answer)):
            server.send(answer[:at])
            server.send(answer[at:])
            heard = client.take()
            self.assertTrue(heard.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r"))
            self.assertTrue(heard.endswith(b"\r\n0\r\n\r\n"))
            client.send(GET)
        server.send(OK)
        client.take()

    def test_untouched(self) -> None:
        """Fields that are not of the connection pass as they came, in their order."""
        answer = (
            b"HTTP/1.1 200 Fine\r\nDate: x\r\nserver: me\r\nSet-Cookie: a=b\r\n"
            b"Set-Cookie: c=\xe4\r\nX-Empty:\r\nContent-Length: 2\r\n\r\nok"
        )
        self.assertEqual(self.answered(answer), answer)

    def test_hop_by_hop(self) -> None:
        """Fields of the connection end here, those that Connection names too."""
        self.assertEqual(
            self.answered(
                b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n"
                b"X-Hop: 1\r\nProxy-Connection: x\r\nTrailer: y\r\nUpgrade: h2c\r\n"
                b"Content-Length: 2\r\n\r\nok"
            ),
            OK,
        )


class PressureTests(HttpTestCase):
    """Slow readers and slow takers."""

    def test_stalled_reader(self) -> None:
        """A client that does not read stops the server, and memory stays small."""
        world = self.world()
        client = world.client(receive_buffer=4096)
        client.send(GET)
        server = world.backends[0].accept()
        size = 50_000_000
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        data = b"x" * 100_000
        sent = 0
        for _ in range(500):
            offered = server.offer(data)
            sent += offered
            world.pump()
            if not offered:
                break
        (channel,) = world.listener.channels
        self.assertLess(sent, size)
        self.assertLess(channel.transport.queued, 200_000)
        # It is the client's fault: the server's time does not run.
        world.wait(45.0)
        self.assertFalse(server.over)
        # And it goes on.
        client.look()
        world.until(lambda: client.look() is not None and server.offer(data) > 0)
        world.wait(65.0)

    def test_stalled_for_ever(self) -> None:
        """A client that takes nothing for a minute is cut off."""
        world = self.world()
        client = world.client(receive_buffer=4096)
        client.send(GET)
        server = world.backends[0].accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            if not server.offer(b"x" * 100_000):
                break
            world.pump()
        world.wait(61.0)
        self.assertEqual(world.listener.channels, set())
        self.assertTrue(server.over)
        self.assertEqual(world.entries()[0]["status"], 200)

    def test_stalled_at_the_end(self) -> None:
        """So is one that does not take the rest of its last answer."""
        world = self.world()
        client = world.client(receive_buffer=4096)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        server = world.backends[0].accept()
        server.push(sized(b"x" * 5_000_000)[:-1])
        server.send(b"x")
        (channel,) = world.listener.channels
        world.until(lambda: channel.idle or world.wait(1.0) is not None)
        world.wait(130.0)
        self.assertEqual(world.listener.channels, set())

    def test_kept_connection_is_read_again(self) -> None:
        """
        A connection whose last response filled the client's buffer serves the
        next request like any other.
        """
        world = self.world()
        client = world.client(receive_buffer=4096)
        (channel,) = world.listener.channels
        channel.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send(GET)
        server = world.backends[0].accept()
        answer = sized(b"x" * 120_000)
        server.send(answer[:60_000])
        server.send(answer[60_000:])
        self.assertEqual(world.idle, 1)
        self.assertEqual(client.await_bytes(len(answer)), answer)
        client.send(GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
