"""
The servers' side: choosing, connecting, trying again, and what is kept.
"""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from dynbalance.config.listeners import RouteConfig
from dynbalance.http import connection
from dynbalance.http.mounted import Mount
from dynbalance.http.response import MAX_HEAD
from dynbalance.net.dial import Target, transport_for
from dynbalance.net.names import Names
from tests.http.world import (
    GET,
    OK,
    Backend,
    HandReactor,
    HttpTestCase,
    Wire,
    World,
    plain,
    post,
    sized,
)

BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 16\r\n\r\n502 Bad Gateway\n"
)


class Nowhere:
    """Every server is a unix socket that does not exist."""

    def target(self, address: object) -> Target:
        return Target(socket.AF_UNIX, "/nowhere/at/all")


class ReuseTests(HttpTestCase):
    """Which connections to servers are kept."""

    def test_shared_among_clients(self) -> None:
        """A kept connection serves whoever comes next."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        other = world.client()
        other.send(GET)
        self.assertEqual(plain(server.take()), GET)
        server.send(OK)
        self.assertEqual(other.take(), OK)
        self.assertFalse(world.backends[0].waiting())

    def test_not_kept(self) -> None:
        """Connections that the server or the settings end are closed."""
        for answer, settings in (
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", {}),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", {}),
            (OK, {"keepalive": 0}),
            (OK, {"keepalive_requests": 1}),
        ):
            world = self.world(upstream=settings)
            client, server, _ = world.request()
            server.send(answer)
            self.assertEqual(client.take(), OK)
            self.assertEqual(world.idle, 0)
            self.assertTrue(server.over)

    def test_not_kept_in_pieces(self) -> None:
        """So they are when the body comes in pieces."""
        for head, pieces in (
            (b"Content-Length: 4", (b"ab", b"cd")),
            (b"Transfer-Encoding: chunked", (b"2\r\nab\r\n2\r\ncd", b"\r\n0\r\n\r\n")),
        ):
            for last, kept in ((b"Connection: close\r\n", 0), (b"", 1)):
                world = self.world()
                client, server, _ = world.request()
                server.send(b"HTTP/1.1 200 OK\r\n%b%b\r\n\r\n" % (last, head))
                for piece in pieces:
                    server.send(piece)
                self.assertIn(b"cd", client.take())
                self.assertEqual(kept, world.idle)
                self.assertEqual(not kept, server.over)

    def test_http10_keep_alive(self) -> None:
        """A server of HTTP/1.0 may keep the connection if it says so."""
        world = self.world()
        client, server, _ = world.request()
        server.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.idle, 1)

    def test_too_old(self) -> None:
        """A connection older than keepalive_time is not kept after its request."""
        world = self.world(upstream={"keepalive_time": 20.0})
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        world.wait(21.0)
        client.send(GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertTrue(server.over)

    def test_idle_too_long(self) -> None:
        """A connection without work is closed after max_idle_time."""
        world = self.world(upstream={"max_idle_time": 20.0})
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        world.wait(19.0)
        self.assertEqual(world.idle, 1)
        world.wait(1.5)
        self.assertEqual(world.idle, 0)
        self.assertTrue(server.over)

    def test_one_too_many(self) -> None:
        """Of too many idle connections the oldest goes."""
        world = self.world(upstream={"keepalive": 1})
        _first, one, _ = world.request()
        _second, two, _ = world.request()
        one.send(OK)
        two.send(OK)
        self.assertEqual(world.idle, 1)
        self.assertTrue(one.over)
        self.assertFalse(two.over)

    def test_last_one_first(self) -> None:
        """Of several the one that was used last is used next; when that is gone, the others."""
        world = self.world()
        wires = [world.request()[:2] for _ in range(3)]
        for _client, server in wires:
            server.send(OK)
        for client, server in reversed(wires):
            client.take()
            client.send(GET)
            self.assertEqual(plain(server.take()), GET)
            server.close()
            # The free try, over a connection of its own.
            world.backends[0].accept().send(sized(b"new", b"200 OK\r\nConnection: close"))
            self.assertTrue(client.take().endswith(b"new"))
        self.assertEqual(world.idle, 0)

    def test_close_idle(self) -> None:
        """Those that wait can be closed, and those that work go on."""
        world = self.world()
        waiting, working = world.request(), world.request()
        waiting[1].send(OK)
        world.upstream.close_idle()
        self.assertTrue(waiting[1].over)
        working[1].send(OK)
        self.assertEqual(OK, working[0].take())
        self.assertEqual(1, world.idle)

    def test_answer_before_a_question(self) -> None:
        """Bytes on an idle connection end it; they answer nobody's request."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        server.send(sized(b"evil"))
        self.assertEqual(world.idle, 0)
        client.send(GET)
        other = world.backends[0].accept()
        other.send(OK)
        self.assertEqual(client.take(), OK)

    def test_end_of_an_idle_one(self) -> None:
        """An idle connection that the server closes is forgotten."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        server.close()
        self.assertEqual(world.idle, 0)

    def test_removed_server(self) -> None:
        """Nothing remembers a server whose last connection has gone."""
        world = self.world()
        client, server, _ = world.request()
        (record,) = world.servers
        server.send(OK)
        client.send(GET)
        self.assertIn(record, world.upstream.idle)
        record.removed = True
        server.send(OK)
        self.assertEqual(client.take(), OK + OK)
        self.assertTrue(server.over)
        self.assertEqual(world.upstream.idle, {})


class CountTests(HttpTestCase):
    """What is counted of a server."""

    def test_bytes(self) -> None:
        """All that is sent to it, and all that comes from it but chunks' framing."""
        world = self.world()
        client = world.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        server = world.backends[0].accept()
        sent = server.take()
        client.send(b"def")
        sent += server.take()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
        server.send(answer + b"ab")
        client.take()
        server.send(b"cd")
        client.take()
        (record,) = world.servers
        self.assertEqual((record.bytes_in, record.bytes_out), (len(sent), len(answer) + 4))
        self.assertEqual(record.responses, [0, 0, 1, 0, 0, 0])


class RetryTests(HttpTestCase):
    """When a request goes to another server."""

    def test_refused(self) -> None:
        """A server that refuses is passed over, and taken out."""
        world = self.world(backends=2)
        world.backends[0].refuse()
        client, server, got = world.request(backend=1)
        self.assertEqual(plain(got), GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertTrue(world.servers[0].failed)

    def test_refused_post(self) -> None:
        """A POST that reached nobody goes to the next server."""
        world = self.world(backends=2)
        world.backends[0].refuse()
        _, _, got = world.request(post(b"abc"), backend=1)
        self.assertTrue(got.endswith(b"\r\n\r\nabc"), got)

    def test_all_refuse(self) -> None:
        """502 when nobody is left."""
        world = self.world(backends=3)
        for backend in world.backends:
            backend.refuse()
        client = world.client()
        client.send(GET)
        self.assertEqual(client.take(), BAD_GATEWAY)
        self.assertFalse(client.over)
        self.assertEqual(len(world.entries()[0]["attempts"]), 3)

    def test_pipelined_failures(self) -> None:
        """Failures that are known at once do not pile up."""
        world = self.world(backends=0, http={"keepalive_requests": 10_000})
        client = world.client()
        client.push(GET * 3000)
        self.assertEqual(client.await_bytes(len(BAD_GATEWAY) * 3000), BAD_GATEWAY * 3000)

    def test_failures_at_once(self) -> None:
        """Nor do dials that fail before they are under way."""
        world = self.world(backends=2, names=Nowhere(), http={"keepalive_requests": 10_000})
        client = world.client()
        client.push(GET * 1000)
        self.assertEqual(client.await_bytes(len(BAD_GATEWAY) * 1000), BAD_GATEWAY * 1000)
        self.assertEqual(len(world.entries()[0]["attempts"]), 2)

    def test_closed_before_the_answer(self) -> None:
        """A GET that got no answer is asked again elsewhere, a POST is not."""
        for request, again in ((GET, True), (post(b"abc"), False)):
            world = self.world(backends=2)
            client, server, _ = world.request(request)
            server.close()
            self.assertEqual(world.backends[1].waiting(), again)
            if again:
                world.backends[1].accept().send(OK)
                self.assertEqual(client.take(), OK)
            else:
                self.assertEqual(client.take(), BAD_GATEWAY)

    def test_post_that_may_be_repeated(self) -> None:
        """With non_idempotent, a POST is asked again, too."""
        world = self.world(
            backends=2, upstream={"next_upstream": ("error", "timeout", "non_idempotent")}
        )
        _client, server, _ = world.request(post(b"abc"))
        server.close()
        other = world.backends[1].accept()
        self.assertTrue(other.take().endswith(b"\r\n\r\nabc"))

    def test_off(self) -> None:
        """With next_upstream off there is one attempt."""
        world = self.world(backends=2, upstream={"next_upstream": ()})
        world.backends[0].refuse()
        client = world.client()
        client.send(GET)
        self.assertEqual(client.take(), BAD_GATEWAY)
        self.assertFalse(world.backends[1].waiting())

    def test_tries(self) -> None:
        """next_upstream_tries bounds the attempts."""
        world = self.world(backends=3, upstream={"next_upstream_tries": 2})
        world.backends[0].refuse()
        world.backends[1].refuse()
        client = world.client()
        client.send(GET)
        self.assertEqual(client.take(), BAD_GATEWAY)
        self.assertFalse(world.backends[2].waiting())

    def test_too_late(self) -> None:
        """No attempt begins after next_upstream_timeout."""
        world = self.world(backends=2, upstream={"next_upstream_timeout": 5.0})
        client, server, _ = world.request()
        world.wait(6.0)
        server.close()
        self.assertEqual(client.take(), BAD_GATEWAY)
        self.assertFalse(world.backends[1].waiting())

    def test_body_is_sent_again(self) -> None:
        """What was read of the body goes to the next server, then the rest."""
        for request, rest, whole in (
            (
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc",
                b"def",
                b"\r\n\r\nabcdef",
            ),
            (
                b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                b"3\r\ndef\r\n0\r\n\r\n",
                b"\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
            ),
        ):
            world = self.world(backends=2)
            client, server, _ = world.request(request)
            server.close()
            other = world.backends[1].accept()
            client.send(rest)
            self.assertTrue((got := other.take()).endswith(whole), got)
            other.send(OK)
            self.assertEqual(client.take(), OK)

    def test_body_too_long_to_be_kept(self) -> None:
        """A request whose body was not kept cannot be repeated."""
        world = self.world(backends=2, upstream={"body_buffer": 10})
        client, server, _ = world.request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n12345678901"
        )
        server.close()
        got = client.take()
        self.assertTrue(got.startswith(b"HTTP/1.1 502 "), got)
        self.assertTrue(client.over)
        self.assertFalse(world.backends[1].waiting())

    def test_after_the_answer_began(self) -> None:
        """Nothing is tried again once the client has heard something."""
        world = self.world(backends=2)
        client, server, _ = world.request()
        server.send(sized(b"abc")[:-1])
        client.take()
        server.close()
        self.assertTrue(client.over)
        self.assertFalse(world.backends[1].waiting())
        self.assertFalse(world.servers[0].failed)

    def test_invalid_answers(self) -> None:
        """502 for what is no answer."""
        for answer in (
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nX" + b"x" * MAX_HEAD,
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ):
            world = self.world(backends=2)
            client, server, _ = world.request()
            server.push(answer)
            got = client.take()
            self.assertTrue(got.endswith(BAD_GATEWAY), got[-300:])
            self.assertTrue(server.over)
            self.assertFalse(world.backends[1].waiting())

    def test_hints_only(self) -> None:
        """A server that only hints and goes has not answered."""
        client, server, _ = self.world().request()
        server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        server.close()
        self.assertTrue(client.take().endswith(BAD_GATEWAY))


class KeptConnectionTests(HttpTestCase):
    """Kept connections that died unnoticed."""

    def kept(self, request: bytes = GET, **more: int) -> tuple[World, Wire]:
        """
        A kept connection whose end comes together with the next request.
        """
        world = self.world(**more)
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(client.take(), OK)
        client.offer(request)
        world.until(lambda: b"HTTP/1.1" in server.look())
        server.close()
        return world, client

    def test_free_try(self) -> None:
        """One more try is free, on a new connection, even with one server."""
        world, client = self.kept()
        server = world.backends[0].accept()
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.servers[0].failures, 0)

    def test_one_only(self) -> None:
        """The free try is no licence to try for ever."""
        world, client = self.kept()
        world.backends[0].accept().close()
        self.assertEqual(client.take(), BAD_GATEWAY)
        self.assertFalse(world.backends[0].waiting())

    def test_not_for_post(self) -> None:
        """A POST may have been heard: it is not repeated."""
        _world, client = self.kept(post(b"abc"))
        self.assertEqual(client.take(), BAD_GATEWAY)

    def test_half_an_answer(self) -> None:
        """Once the server has begun to answer, the try is not free."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.send(GET)
        server.send(b"HTTP/1.1 2")
        server.close()
        self.assertEqual(client.take(), OK + BAD_GATEWAY)


class TimeoutTests(HttpTestCase):
    """Servers that take their time."""

    def fill(self, backend: Backend) -> None:
        """Let the kernel accept nobody else for a server."""
        backend.socket.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", backend.port))
            self.fillers.append(filler)

    def setUp(self) -> None:
        super().setUp()
        self.fillers: list[socket.socket] = []

    def tearDown(self) -> None:
        for filler in self.fillers:
            filler.close()
        super().tearDown()

    def test_connect_post(self) -> None:
        """A POST that reached nobody in time goes to the next server, whole."""
        world = self.world(backends=2, upstream={"connect_timeout": 3.0})
        self.fill(world.backends[0])
        client = world.client()
        client.send(post(b"abc"))
        world.wait(3.5)
        server = world.backends[1].accept()
        self.assertEqual(plain(server.take()), post(b"abc"))
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual([1, 0], [each.fails for each in world.servers])

    def test_connect(self) -> None:
        """A server that does not accept is given up after connect_timeout."""
        world = self.world(upstream={"connect_timeout": 3.0})
        self.fill(world.backends[0])
        client = world.client()
        # The body's end does not give the server more time.
        client.send(post(b"abc")[:-1])
        client.send(b"c")
        world.wait(2.5)
        self.assertEqual(client.take(), b"")
        world.wait(1.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 Gateway Timeout\r\n"))

    def test_answer(self) -> None:
        """504 when no head comes within read_timeout; the next server is asked."""
        world = self.world(backends=2, upstream={"read_timeout": 10.0})
        client, server, _ = world.request()
        world.wait(10.5)
        self.assertTrue(server.over)
        world.backends[1].accept()
        world.wait(10.5)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))

    def test_answer_to_a_post(self) -> None:
        """A POST that timed out is not repeated."""
        world = self.world(backends=2, upstream={"read_timeout": 10.0})
        client, _server, _ = world.request(post(b"abc"))
        world.wait(10.5)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))
        self.assertFalse(world.backends[1].waiting())

    def test_time_begins_with_the_end_of_the_request(self) -> None:
        """A client that is slow with its body does not cost the server its time."""
        world = self.world(upstream={"read_timeout": 10.0})
        client, server, _ = world.request(post(b"abc")[:-1])
        world.wait(20.0)
        client.send(b"c")
        world.wait(9.0)
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_between_pieces(self) -> None:
        """The time is between two reads, not for the whole answer."""
        for answer in (
            sized(b"abcdef"),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n",
        ):
            world = self.world(upstream={"read_timeout": 10.0})
            client, server, _ = world.request()
            server.send(answer[:-4])
            for byte in answer[-4:-1]:
                world.wait(9.0)
                server.send(bytes([byte]))
            self.assertFalse(client.over)
            world.wait(10.5)
            self.assertTrue(client.over)
            self.assertTrue(server.over)

    def test_send(self) -> None:
        """A server that does not take the request is given up after send_timeout."""
        world = self.world(upstream={"send_timeout": 10.0, "read_timeout": 100.0})
        client = world.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")
        world.backends[0].accept()
        data = b"x" * 100_000
        for _ in range(900):
            if not client.offer(data):
                break
            world.pump()
        else:
            self.fail("everything is taken")
        (channel,) = world.listener.channels
        self.assertLess(channel._exchange._connection.transport.queued, 200_000)
        world.wait(9.0)
        self.assertEqual(world.held, 1)
        world.wait(2.0)
        self.assertEqual(world.held, 0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))
        world.wait(12.0)
        self.assertEqual(world.listener.channels, set())

    def test_send_slowly(self) -> None:
        """A server that takes the request slowly, but takes it, has its time."""
        world = self.world(upstream={"send_timeout": 10.0, "read_timeout": 100.0})
        client = world.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")
        server = world.backends[0].accept()
        while client.offer(b"x" * 100_000):
            world.pump()
        (channel,) = world.listener.channels
        transport = channel._exchange._connection.transport
        for _ in range(4):
            queued = transport.queued
            while transport.queued == queued and transport.queued:
                server.socket.recv(1 << 20)
                world.pump()
                if client.offer(b"x" * 100_000):
                    world.pump()
            world.wait(9.0)
            self.assertEqual(world.held, 1)


class UploadTests(HttpTestCase):
    """Bodies that are faster than their server."""

    def test_while_connecting(self) -> None:
        """A body that comes before the server is reached waits within its bound."""
        world = self.world(names=Names(resolver := HandResolver(), HandReactor()), hosts=("app",))
        client = world.client()
        size = 3_000_000
        request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        rest = memoryview(request + b"x" * size)
        for _ in range(100):
            rest = rest[client.offer(rest) :]
            world.pump()
        (channel,) = world.listener.channels
        self.assertLess(len(channel._exchange._body.so_far()), 200_000)
        resolver.answer("127.0.0.1")
        server = world.backends[0].accept()
        got = len(server.take().partition(b"\r\n\r\n")[2])
        while rest:
            rest = rest[client.offer(rest) :]
            got += len(server.take())
        server.await_bytes(size - got)
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_after_connecting(self) -> None:
        """
        A body that waited goes on, even if the server took some of it and
        has not choked on the rest.
        """

        def small(hub: Any, skt: socket.socket, target: Target, protocol: Any) -> Any:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            return transport_for(hub, skt, target, protocol)

        self.patch(connection, "transport_for", small)
        world = self.world(
            names=Names(resolver := HandResolver(), HandReactor()),
            hosts=("app",),
            upstream={"body_buffer": 30_000},
        )
        world.backends[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client = world.client()
        start = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60003\r\n\r\n"
        client.send(start + b"x" * 60_000)
        (channel,) = world.listener.channels
        self.assertTrue(channel._held_back)
        resolver.answer("127.0.0.1")
        server = world.backends[0].accept()
        self.assertIn(channel._exchange._connection.transport.queued, range(1, 65536))
        self.assertFalse(channel._held_back)
        client.send(b"end")
        world.until(lambda: server.look().endswith(b"end"))
        server.send(OK)
        self.assertEqual(client.take(), OK)

    def test_answered_before_it_was_read(self) -> None:
        """
        A connection that still holds some of the request is not kept, though
        the answer is complete.
        """
        world = self.world()
        world.backends[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client, server, _ = world.request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        (channel,) = world.listener.channels
        transport = channel._exchange._connection.transport
        for _ in range(1000):
            if transport.queued:
                break
            client.send(b"4000\r\n" + b"x" * 16384 + b"\r\n")
        client.send(b"0\r\n\r\n")
        self.assertIn(transport.queued, range(1, 65536))
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.idle, 0)
        # What it holds still arrives.
        self.assertTrue(server.await_end().endswith(b"\r\n0\r\n\r\n"))

    def test_echo(self) -> None:
        """A server may answer while the request is still coming, both to their end."""
        client, server, _ = self.world().request(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertIn(b"Connection: close", client.take())
        for _ in range(3):
            client.send(b"1\r\na\r\n")
            self.assertEqual(server.take(), b"1\r\na\r\n")
            server.send(b"1\r\nb\r\n")
            self.assertEqual(client.take(), b"1\r\nb\r\n")
        client.send(b"0\r\n\r\n")
        self.assertEqual(server.take(), b"0\r\n\r\n")
        server.send(b"0\r\n\r\n")
        self.assertEqual(client.await_end(), b"0\r\n\r\n")


class ClientGoneTests(HttpTestCase):
    """Clients that leave before the end."""

    def gone(self, world: World) -> dict[str, object]:
        """Everything is given back, and the log says 499."""
        self.assertEqual(world.held, 0)
        self.assertEqual(world.idle, 0)
        self.assertEqual(world.listener.channels, set())
        self.assertEqual(len(world.entries()), 1)
        return world.entries()[0]

    def test_while_waiting(self) -> None:
        """Gone before the answer: the server's connection is closed at once."""
        for leave in (Wire.close, Wire.cut):
            world = self.world()
            client, server, _ = world.request()
            self.assertEqual(world.held, 1)
            leave(client)
            self.assertTrue(server.over)
            entry = self.gone(world)
            self.assertEqual(entry["status"], 499)
            self.assertEqual(world.servers[0].failures, 0)

    def test_while_sending(self) -> None:
        """Gone within its body."""
        world = self.world()
        client, server, _ = world.request(post(b"abc")[:-1])
        client.close()
        self.assertTrue(server.over)
        self.assertEqual(self.gone(world)["status"], 499)

    def test_while_dialing(self) -> None:
        """Gone before the server is reached: the dial is given up."""
        world = self.world()
        world.backends[0].socket.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", world.backends[0].port))
        client = world.client()
        client.send(GET)
        self.assertEqual(world.held, 1)
        client.close()
        self.assertEqual(self.gone(world)["status"], 499)
        for filler in fillers:
            filler.close()

    def test_while_resolving(self) -> None:
        """Gone before the server's name is known."""
        world = self.world(names=Names(resolver := HandResolver(), HandReactor()), hosts=("app",))
        client = world.client()
        client.send(GET)
        self.assertEqual(world.held, 1)
        client.close()
        self.assertEqual(self.gone(world)["status"], 499)
        resolver.answer("127.0.0.1")
        self.assertFalse(world.backends[0].waiting())

    def test_within_the_answer(self) -> None:
        """Gone within the answer: the log says what it was told."""
        world = self.world()
        client, server, _ = world.request()
        server.send(sized(b"abc")[:-1])
        client.close()
        self.assertTrue(server.over)
        self.assertEqual(self.gone(world)["status"], 200)

    def test_next_one_waits_no_more(self) -> None:
        """What it had sent ahead is dropped."""
        world = self.world()
        client, _server, _ = world.request(GET * 5)
        client.close()
        self.gone(world)


class TunnelTests(HttpTestCase):
    """Upgrades."""

    REQUEST = (
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    ANSWER = (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
        b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )

    def test_both_ways(self) -> None:
        """What each side sends, early bytes too, reaches the other."""
        world = self.world()
        client, server, got = world.request(self.REQUEST + b"early")
        self.assertIn(b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", got)
        self.assertNotIn(b"early", got)
        server.send(self.ANSWER + b"hello")
        self.assertEqual(client.take(), self.ANSWER + b"hello")
        self.assertEqual(server.take(), b"early")
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(server.take(), b"GET / HTTP/1.1\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(world.held, 1)

    def test_client_ends(self) -> None:
        """The client's end is the server's, after what was sent."""
        world = self.world()
        client, server, _ = world.request(self.REQUEST)
        server.send(self.ANSWER)
        client.offer(b"last")
        client.close()
        self.assertEqual(server.await_end(), b"last")
        self.assertEqual(world.held, 0)
        self.assertEqual(world.entries()[0]["status"], 101)

    def test_server_ends(self) -> None:
        """The server's end is the client's, after what was sent."""
        world = self.world()
        client, server, _ = world.request(self.REQUEST)
        server.send(self.ANSWER)
        client.take()
        server.offer(b"last")
        server.close()
        self.assertEqual(client.await_end(), b"last")
        self.assertEqual(world.held, 0)

    def test_silence(self) -> None:
        """Bytes of either side keep a tunnel open; silence of both ends it."""
        world = self.world(upstream={"read_timeout": 10.0})
        client, server, _ = world.request(self.REQUEST)
        server.send(self.ANSWER)
        for wire in (client, server, client):
            world.wait(9.0)
            wire.send(b"x")
        self.assertFalse(client.over)
        world.wait(10.5)
        self.assertTrue(client.over)
        self.assertTrue(server.over)

    def test_pressure(self) -> None:
        """A side that does not read stops the other."""
        world = self.world()
        client, server, _ = world.request(self.REQUEST)
        server.send(self.ANSWER)
        for sender, receiver in ((client, server), (server, client)):
            sent = 0
            for _ in range(900):
                offered = sender.offer(b"x" * 100_000)
                sent += offered
                world.pump()
                if not offered:
                    break
            else:
                self.fail("everything is taken")
            receiver.await_bytes(sent)

    def test_refused(self) -> None:
        """A server that does not switch answers like any other."""
        client, server, _ = self.world().request(self.REQUEST)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        client.send(GET)
        self.assertEqual(plain(server.take()), GET)

    def test_required(self) -> None:
        """426 keeps the word of what is required."""
        client, server, _ = self.world().request()
        server.send(
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nConnection: upgrade\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        self.assertIn(b"\r\nUpgrade: x\r\n", client.take())

    def test_unasked(self) -> None:
        """A server may only switch to what it was asked for."""
        for answer in (
            self.ANSWER.replace(b"websocket", b"other"),
            self.ANSWER.replace(b"Upgrade: websocket\r\n", b""),
        ):
            client, server, _ = self.world().request(self.REQUEST)
            server.send(answer + b"rest")
            self.assertEqual(client.take(), BAD_GATEWAY)

    def test_not_asked_properly(self) -> None:
        """Upgrade without Connection, in HTTP/1.0, or to h2c is not passed on."""
        for request in (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        ):
            _, _, got = self.world().request(request)
            self.assertEqual(plain(got), GET)


class FieldTests(HttpTestCase):
    """What the servers are told."""

    def told(self, request: bytes, http: dict[str, object], **upstream: object) -> bytes:
        return self.world(http=http, upstream=upstream).request(request)[2]

    def test_forwarded(self) -> None:
        """Whose word on the client's address counts, and what is made of it."""
        claims = b"X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 8.8.8.8\r\n\r\n"
        said = b"GET / HTTP/1.1\r\nHost: a\r\n" + claims
        local, other = (ip_network("127.0.0.0/8"),), (ip_network("10.0.0.0/8"),)
        for request, trusted, real, chain in (
            (GET, (), b"127.0.0.1", b"127.0.0.1"),
            (said, (), b"127.0.0.1", b"9.9.9.9, 127.0.0.1"),
            (said, local, b"9.9.9.9", b"9.9.9.9, 127.0.0.1"),
            (said, other, b"127.0.0.1", b"127.0.0.1"),
        ):
            got = self.told(request, {"trusted_proxies": trusted})
            self.assertEqual(
                got,
                b"GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: %b\r\nX-Forwarded-For: %b\r\n"
                b"X-Forwarded-Proto: http\r\n\r\n" % (real, chain),
            )

    def test_hop_by_hop(self) -> None:
        """Fields of the client's connection end here; all others pass untouched."""
        got = self.told(
            b"GET /a?b=%20 HTTP/1.1\r\nHost: A.example:80\r\nConnection: close, X-Hop\r\n"
            b"X-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nTrailer: x\r\nProxy-Connection: x\r\n"
            b"cookie:  a=b ;\tc\r\nX-\xe4: 1\r\n".replace(b"X-\xe4", b"X-Y")
            + b"Cookie: d\r\n\r\n",
            {},
        )
        self.assertEqual(
            plain(got),
            b"GET /a?b=%20 HTTP/1.1\r\nHost: A.example:80\r\ncookie:  a=b ;\tc\r\nX-Y: 1\r\n"
            b"Cookie: d\r\n\r\n",
        )

    def test_connection_names_ours(self) -> None:
        """Connection cannot take out what frames the body or names the client."""
        got = self.told(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Connection: Content-Length, Host, X-Real-IP\r\n\r\nx",
            {},
        )
        self.assertEqual(plain(got), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        self.assertIn(b"X-Real-IP: 127.0.0.1\r\n", got)

    def test_set_headers(self) -> None:
        """set_headers replaces, adds and removes."""
        got = self.told(
            b"GET /x HTTP/1.1\r\nHost: a\r\nCookie: c\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
            {
                "set_headers": {
                    "cookie": "",
                    "X-a": "$http_x_b $request_uri $scheme $remote_addr",
                    "X-Real-IP": "",
                }
            },
        )
        self.assertEqual(
            got,
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-B: 2\r\nX-Forwarded-For: 127.0.0.1\r\n"
            b"X-Forwarded-Proto: http\r\nX-a: 2 /x http 127.0.0.1\r\n\r\n",
        )

    def test_host(self) -> None:
        """The host option is what the servers get as Host."""
        self.assertIn(b"\r\nHost: inner\r\n", self.told(GET, {}, host="inner"))
        self.assertIn(
            b"\r\nHost: a.in\r\n",
            self.told(b"GET / HTTP/1.1\r\nHost: A:80\r\n\r\n", {}, host="$host.in"),
        )

    def test_absolute_target(self) -> None:
        """An absolute target counts more than Host, and goes on in origin form."""
        got = self.told(b"GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", {})
        self.assertEqual(plain(got), b"GET /x?y HTTP/1.1\r\nHost: b:81\r\n\r\n")


class RouteTests(HttpTestCase):
    """Requests for other upstreams."""

    def test_host_and_path(self) -> None:
        """The longest path of the best host wins."""
        world = self.world(
            http={
                "routes": (
                    RouteConfig(path="/v1/", upstream="any"),
                    RouteConfig(host="api.example", path="/", upstream="api"),
                    RouteConfig(host="api.example", path="/v1/", upstream="v1"),
                )
            },
            others={"any": 1, "api": 1, "v1": 1},
        )
        for host, path, name in (
            (b"a", b"/", None),
            (b"a", b"/v1/x", "any"),
            (b"API.example:80", b"/v1", "api"),
            (b"api.example.", b"/v1/", "v1"),
        ):
            client = world.client()
            client.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
            backend = world.elsewhere[name][0] if name else world.backends[0]
            backend.accept().send(OK)
            self.assertEqual(client.take(), OK)


class MountedTests(HttpTestCase):
    """The admin API on a traffic port."""

    class Reply:
        status = 201
        headers = ((b"Content-Type", b"application/json"), (b"X-A", b"b"))
        body = b"{}"

    def mounted(self) -> tuple[World, list[tuple[object, ...]], list[Deferred[object]]]:
        asked: list[tuple[object, ...]] = []
        replies: list[Deferred[object]] = []

        def ask(*question: object) -> Deferred[object]:
            asked.append(question)
            replies.append(Deferred())
            return replies[-1]

        return self.world(mounted=Mount(ask, 100)), asked, replies  # type: ignore[arg-type]

    def test_asked(self) -> None:
        """The API gets the whole request; its reply is the answer."""
        world, asked, replies = self.mounted()
        client = world.client()
        request = (
            b"POST /upstream/add?x=y HTTP/1.1\r\nHost: a\r\nContent-Type: t\r\n"
            b"Content-Length: 3\r\n\r\nabc"
        )
        client.send(request + GET)
        (call,) = asked
        self.assertEqual(call[:4], (b"POST", b"/upstream/add", b"x=y", b"abc"))
        self.assertEqual((call[4](b"content-type"), call[5]), (b"t", "127.0.0.1"))  # type: ignore[operator]
        replies[0].callback(self.Reply())
        self.assertEqual(
            client.take(),
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b"X-A: b\r\n\r\n{}",
        )
        world.backends[0].accept().send(OK)
        self.assertEqual(client.take(), OK)

    def test_failed(self) -> None:
        """A failure of the API is a 500, and is logged."""
        world, _, replies = self.mounted()
        client = world.client()
        client.send(b"GET /upstream/status HTTP/1.1\r\nHost: a\r\n\r\n")
        replies[0].errback(ZeroDivisionError())
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_large(self) -> None:
        """The API is asked once as soon as a body is too large, and refuses it itself."""
        start = b"POST /upstream/add HTTP/1.1\r\nHost: a\r\n"
        for request in (
            start + b"Content-Length: 1000\r\n\r\n" + b"x" * 101,
            start + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b"x" * 101,
        ):
            world, asked, replies = self.mounted()
            client = world.client()
            client.send(request[:-50])
            self.assertEqual(asked, [])
            client.send(request[-50:])
            client.send(b"x" * 50)
            self.assertEqual([len(call[3]) for call in asked], [101])  # type: ignore[arg-type]
            replies[0].callback(self.Reply())
            self.assertIn(b"\r\nConnection: close\r\n", client.take())
            self.assertTrue(client.over)

    def test_gone(self) -> None:
        """A client that leaves does not stop what it ordered."""
        world, _, replies = self.mounted()
        client = world.client()
        client.send(b"GET /upstream/status HTTP/1.1\r\nHost: a\r\n\r\n")
        client.close()
        replies[0].callback(self.Reply())
        self.assertEqual(world.listener.channels, set())


class HandResolver:
    """A reactor whose resolver answers when the test says so."""

    def __init__(self) -> None:
        self.questions: list[tuple[object, int]] = []

    @property
    def nameResolver(self) -> HandResolver:
        return self

    def resolveHostName(self, receiver: object, host: str, port: int) -> None:
        self.questions.append((receiver, port))

    def answer(self, *hosts: str) -> None:
        for receiver, port in self.questions:
            for host in hosts:
                receiver.addressResolved(IPv4Address("TCP", host, port))  # type: ignore[attr-defined]
            receiver.resolutionComplete()  # type: ignore[attr-defined]
        self.questions = []


class NameTests(HttpTestCase):
    """Servers with names."""

    def test_found(self) -> None:
        """A server's name is looked up before it is dialed."""
        world = self.world(names=Names(resolver := HandResolver(), HandReactor()), hosts=("app",))
        client = world.client()
        client.send(GET)
        self.assertFalse(world.backends[0].waiting())
        resolver.answer("127.0.0.1")
        world.backends[0].accept().send(OK)
        self.assertEqual(client.take(), OK)

    def test_unknown(self) -> None:
        """A name that is not found is a failure like a refusal; so is one known as such."""
        world = self.world(
            backends=2,
            names=Names(resolver := HandResolver(), HandReactor()),
            hosts=("nowhere", "127.0.0.1"),
            max_fails=0,
        )
        client = world.client()
        for _ in range(4):
            client.send(GET)
            resolver.answer()
            if world.idle == 0 and world.backends[1].waiting():
                server = world.backends[1].accept()
            server.send(OK)
            self.assertEqual(client.take(), OK)


class LogTests(HttpTestCase):
    """The access log."""

    def test_entry(self) -> None:
        """Each request has one line with all attempts."""
        world = self.world(backends=2)
        world.backends[0].refuse()
        client = world.client()
        client.send(post(b"abc", b"X-Request-ID: r1\r\n"))
        server = world.backends[1].accept()
        world.wait(1.0)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        (entry,) = world.entries()
        attempts = entry.pop("attempts")
        self.assertEqual(entry.pop("duration"), 1.0)
        self.assertEqual(
            entry,
            {
                "time": "1970-01-01T00:00:00+00:00",
                "listener": "web",
                "client": "127.0.0.1",
                "method": "POST",
                "uri": "/",
                "protocol": "HTTP/1.1",
                "host": "a",
                "status": 200,
                "bytes_in": 3,
                "bytes_out": len(OK),
                "upstream": "default",
                "request_id": "r1",
            },
        )
        self.assertEqual(
            [(a["server"], a["status"], a["cause"]) for a in attempts],
            [(world.backends[0].key, 0, "error"), (world.backends[1].key, 200, "")],
        )

    def test_refused(self) -> None:
        """A request that is refused before its head is read has a line, too, with what it says."""
        long = b"GET /" + b"x" * 2000
        for data, status, start in (
            (b"GET /a?b HTTP/1.1\r\n\r\n", 400, ("GET", "/a?b", "HTTP/1.1")),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ("PRI", "*", "HTTP/2.0")),
            (b"G\x16T / HTTP/1.1\r\n\r\n", 400, ("", "", "")),
            (b"GET /a\x00b HTTP/1.1\r\n\r\n", 400, ("GET", "/a", "")),
            (long, 431, ("GET", "/" + "x" * 1019, "")),
        ):
            world = self.world(http={"max_header_size": 1500})
            client = world.client()
            client.send(data)
            answer = client.await_end()
            (entry,) = world.entries()
            self.assertEqual(start, (entry["method"], entry["uri"], entry["protocol"]))
            self.assertEqual((status, len(answer)), (entry["status"], entry["bytes_out"]))
            self.assertEqual(("", [], 0), (entry["upstream"], entry["attempts"], entry["duration"]))

    def test_refused_behind_another(self) -> None:
        """Such a line tells nothing of the request before it."""
        world = self.world()
        client, server, _ = world.request(GET + b"BAD\r\n\r\n")
        server.send(OK)
        answers = client.await_end()
        first, second = world.entries()
        self.assertEqual((200, len(OK)), (first["status"], first["bytes_out"]))
        self.assertEqual((400, len(answers) - len(OK)), (second["status"], second["bytes_out"]))
        self.assertEqual("", second["method"])

    def test_refused_late(self) -> None:
        """A head that does not end in time has a line; silence has none."""
        world = self.world(http={"client_header_timeout": 5.0})
        client, silent = world.client(), world.client()
        client.send(b"DELETE /a HT")
        world.wait(6.0)
        self.assertTrue(silent.over)
        client.await_end()
        (entry,) = world.entries()
        self.assertEqual((408, 5.0), (entry["status"], entry["duration"]))
        self.assertEqual(("DELETE", "/a", ""), (entry["method"], entry["uri"], entry["protocol"]))

    def test_too_large(self) -> None:
        """A body that is refused for its size has one line, with the upstream."""
        world = self.world(upstream={"client_max_body_size": 2})
        client = world.client()
        client.send(post(b"abc"))
        client.await_end()
        (entry,) = world.entries()
        self.assertEqual((413, "default"), (entry["status"], entry["upstream"]))
