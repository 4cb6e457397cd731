"""
Clients that speak HTTP/2: streams, windows, ends, and what is not let through.
"""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.http.clientconnection import LINGER
from dynbalance.http.http2 import Http2Client
from dynbalance.http.http2terms import STREAMS, WINDOW
from dynbalance.http.spool import Spool
from tests.http.h2client import Http2TestCase
from tests.http.world import OK, Wire, plain, sized
from tests.temporary import Temporary

CHUNKED = b"POST /up HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Slow(StringTransport):
    """
    @ivar queued: bytes that the client has not taken.
    @ivar aborted: closed at once.
    """

    queued = 0
    aborted = False

    def loseWriteConnection(self) -> None:
        """When all is taken."""

    def abortConnection(self) -> None:
        self.aborted = True


class RequestTests(Temporary, Http2TestCase):
    """What a server gets."""

    def test_head(self) -> None:
        """A request without a body is a request of HTTP/1.1, its cookies in one line."""
        world = self.h2_world()
        client = world.h2()
        more = (("x-a", "b"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"))
        stream = client.ask("/p?q", more=more)
        server = world.backends[0].accept()
        self.assertEqual(
            b"GET /p?q HTTP/1.1\r\nHost: a.example\r\nx-a: b\r\ncookie: a=1; b=2\r\n\r\n",
            plain(server.take()),
        )
        server.send(OK)
        client.look()
        self.assertEqual({":status": "200", "content-length": "2"}, client.heads[stream])
        self.assertEqual((b"ok", [stream]), (client.bodies[stream], client.ended))
        self.assertEqual({}, client.resets)
        self.assertEqual(1, world.idle)

    def test_body_flows(self) -> None:
        """A body is passed on as it comes, in chunks; the server is asked before its end."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        self.assertEqual(CHUNKED, plain(server.take()))
        client.say(stream, b"hello")
        self.assertEqual(b"5\r\nhello\r\n", server.take())
        client.say(stream, b"", end=True)
        self.assertEqual(b"0\r\n\r\n", server.take())
        server.send(OK)
        self.assertEqual("200", client.status(stream))
        self.assertEqual({}, client.resets)

    def test_known_length(self) -> None:
        """A body whose length is said has that length for the server, too."""
        world = self.h2_world()
        client = world.h2()
        for body in (b"hello", b""):
            length = (("content-length", str(len(body))),)
            client.ask("/up", "POST", more=length, body=body)
            server = world.backends[0].accept()
            head, _, rest = plain(server.take()).partition(b"\r\n\r\n")
            self.assertIn(b"Content-Length: %d" % len(body), head)
            self.assertNotIn(b"chunked", head)
            self.assertEqual(body, rest)
            server.send(OK + b"surplus")
            client.look()

    def test_trailers(self) -> None:
        """Trailers of a request end here, and are no fields of it."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask("/up", "POST", ends=False)
        client.say(stream, b"x")
        client.conn.send_headers(stream, [("x-sum", "1")], end_stream=True)
        client.flush()
        server = world.backends[0].accept()
        self.assertEqual(CHUNKED + b"1\r\nx\r\n0\r\n\r\n", plain(server.take()))
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_sent_again(self) -> None:
        """A body that is short enough goes to another server when the first one dies."""
        world = self.h2_world(backends=2, max_fails=0)
        client = world.h2()
        stream = client.ask("/up", "PUT", body=b"hello")
        first = next(each for each in world.backends if each.waiting())
        first.accept().cut()
        second = next(each for each in world.backends if each is not first).accept()
        self.assertTrue(second.take().endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
        second.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_buffered(self) -> None:
        """With C{request_buffering} the server is asked when all is here, with its length."""
        world = self.h2_world(upstream={"request_buffering": True, "body_buffer": 1000})
        spool = Spool(self.mktemp())
        spool.prepare()
        for upstream in world.upstreams.values():
            upstream.spool = spool
        client = world.h2()
        client.look()
        stream = client.ask("/up", "POST", ends=False)
        body = b"0123456789" * 20_000
        for at in range(0, len(body), 50_000):
            self.assertFalse(world.backends[0].waiting())
            client.say(stream, body[at : at + 50_000])
            client.look()
        client.say(stream, b"", end=True)
        server = world.backends[0].accept()
        world.until(lambda: server.look().endswith(b"\r\n\r\n" + body))
        self.assertIn(b"\r\nContent-Length: 200000\r\n", server.got)
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_padding(self) -> None:
        """What fills up frames is no part of a body, but takes of the window."""
        world = self.h2_world()
        client = world.h2()
        client.look()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        for _ in range(1500):
            client.conn.send_data(stream, b"x", pad_length=255)
            client.flush()
            client.look()
        client.say(stream, b"", end=True)
        world.until(lambda: server.look().endswith(b"0\r\n\r\n"))
        self.assertEqual(1500, server.got.count(b"1\r\nx\r\n"))
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_continue(self) -> None:
        """Who waits for 100 gets it once the server is reached; 103 is passed on."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask("/up", "POST", more=(("expect", "100-continue"),), ends=False)
        server = world.backends[0].accept()
        self.assertEqual(["100"], client.look().informed)
        client.say(stream, b"x", end=True)
        server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
        self.assertEqual("200", client.status(stream))
        self.assertEqual(["100", "103"], client.informed)

    def test_refused(self) -> None:
        """What could be read as something else as HTTP/1.1 never reaches a server."""
        world = self.h2_world()
        for path, more in (
            ("/ HTTP/1.1\r\nx: y", ()),
            ("/", (("x", "a\r\nb: c"),)),
            ("/", (("x", "a\nb"),)),
            ("/", (("x: y", "z"),)),
            ("/", (("X", "y"),)),
            ("/", (("host", "b.example"),)),
            ("/", (("transfer-encoding", "chunked"),)),
            ("/", (("connection", "close"),)),
            ("/", (("content-length", "5"),)),
            ("", ()),
            ("x", ()),
        ):
            client = world.h2()
            client.ask(path, more=more)
            client.look()
            heads = [head[":status"] for head in client.heads.values()]
            self.assertTrue(client.farewells or heads == ["400"], (path, more, heads))
            client.wire.close()
        self.assertFalse(world.backends[0].waiting())

    def test_large_head(self) -> None:
        """A head that is somewhat too large is answered; one without end ends the connection."""
        world = self.h2_world(http={"max_header_size": 1024})
        client = world.h2()
        self.assertEqual("431", client.status(client.ask("/" + "x" * 1100)))
        self.assertEqual([(431, "GET")], [(e["status"], e["method"]) for e in world.entries()])
        client.ask("/" + "x" * 9000)
        self.assertEqual([ErrorCodes.ENHANCE_YOUR_CALM], client.look().farewells)

    def test_large_body(self) -> None:
        """A body above the limit is answered 413, whether it was announced or not."""
        world = self.h2_world(upstream={"client_max_body_size": 10})
        client = world.h2()
        announced = client.ask("/", "POST", (("content-length", "11"),), ends=False)
        self.assertEqual("413", client.status(announced))
        self.assertEqual({announced: ErrorCodes.NO_ERROR}, client.resets)
        stream = client.ask("/", "POST", ends=False)
        server = world.backends[0].accept()
        client.say(stream, b"x" * 11)
        self.assertEqual("413", client.status(stream))
        self.assertTrue(server.over)
        self.assertEqual([413, 413], [entry["status"] for entry in world.entries()])


class FlowTests(Http2TestCase):
    """Windows, both ways."""

    def test_stalled_server(self) -> None:
        """A client's window opens only as the server takes; other streams go on."""
        world = self.h2_world(backends=2)
        client = world.h2()
        client.look()
        stream = client.ask("/up", "POST", ends=False)
        stalled = next(each for each in world.backends if each.waiting())
        server = stalled.accept()
        sent = 0
        for _ in range(1000):
            room = min(16384, client.conn.local_flow_control_window(stream))
            if not room:
                break
            client.say(stream, b"x" * room)
            sent += room
            client.look()
        self.assertLess(sent, 16 << 20)
        before = client.opened.get(stream, 0)
        world.wait(1.0)
        client.look()
        self.assertEqual((before, 0), (client.opened.get(stream, 0), room))
        other = client.ask("/other", "POST", body=b"y" * 1000)
        second = next(each for each in world.backends if each is not stalled).accept()
        second.send(OK)
        self.assertEqual("200", client.status(other))
        # It takes up again where it was, to an end that was said meanwhile.
        client.say(stream, b"", end=True)
        world.until(lambda: self._drained(server, sent))
        world.pump()
        self.assertTrue(server.look().endswith(b"x\r\n0\r\n\r\n"))
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_end_behind_a_stall(self) -> None:
        """The end of a body is told once, also if it comes while the server takes nothing."""
        world = self.h2_world()
        client = world.h2()
        client.look()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        (ours,) = world.connection.streams.values()
        for _ in range(100_000):
            client.say(stream, b"x" * min(4000, client.conn.local_flow_control_window(stream)))
            client.look()
            if ours._held:
                break
        client.say(stream, b"", end=True)
        world.until(lambda: server.look().endswith(b"0\r\n\r\n"))
        world.pump()
        self.assertEqual(1, server.look().count(b"0\r\n\r\n"))
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_server_that_goes_on(self) -> None:
        """A client's window opens again when its server takes again."""
        world = self.h2_world()
        client = world.h2()
        client.look()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        sent = 0
        for _ in range(5000):
            room = min(16384, client.conn.local_flow_control_window(stream))
            if not room:
                # All that is on the way.
                server.take()
                client.look()
                continue
            client.say(stream, b"x" * room)
            client.look()
            sent += room
            if sent > 24 << 20:
                break
        client.say(stream, b"", end=True)
        world.until(lambda: server.look().endswith(b"0\r\n\r\n"))
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def _drained(self, server: Wire, sent: int) -> bool:
        return server.look().count(b"x") >= sent and server.got.endswith(b"0\r\n\r\n")

    def test_waits_for_a_server(self) -> None:
        """No more of a body is taken than is kept while it has no server."""
        world = self.h2_world(max_conns=1, upstream={"queue": 5, "queue_timeout": 60.0})
        client = world.h2()
        client.look()
        first = client.ask()
        server = world.backends[0].accept()
        stream = client.ask("/up", "POST", ends=False)
        for _ in range(1000):
            room = min(16384, client.conn.local_flow_control_window(stream))
            if not room:
                break
            client.say(stream, b"x" * room)
            client.look()
        self.assertEqual(0, room)
        self.assertLess(client.opened.get(stream, 0), 2 * WINDOW)
        server.send(OK)
        self.assertEqual("200", client.status(first))
        world.until(lambda: server.look().count(b"x") >= WINDOW)
        client.look()
        client.say(stream, b"", end=True)
        server.send(OK)
        self.assertEqual("200", client.status(stream))

    def test_closed_window(self) -> None:
        """Of a response no more is read than the client and a bounded buffer take."""
        world = self.h2_world()
        client = world.h2(window=100)
        client.acknowledges = False
        stream = client.ask()
        server = world.backends[0].accept()
        size = 32 << 20
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0
        for _ in range(2000):
            taken = server.offer(b"x" * 16384)
            sent += taken
            world.pump()
            if not taken:
                break
        self.assertLess(sent, 16 << 20)
        client.look()
        self.assertEqual(100, len(client.bodies[stream]))
        client.conn.increment_flow_control_window(50, stream)
        client.flush()
        self.assertEqual(150, len(client.look().bodies[stream]))
        client.conn.reset_stream(stream, ErrorCodes.CANCEL)
        client.flush()
        self.assertTrue(server.over)
        self.assertEqual(0, world.held)

    def test_slow_client(self) -> None:
        """A long response goes on whenever the client takes some, to its last byte."""
        world = self.h2_world()
        client = world.h2(window=1 << 16)
        stream = client.ask()
        server = world.backends[0].accept()
        body = bytes(range(256)) * 8192
        data = sized(body)
        at = idle = 0
        for _ in range(10000):
            taken = server.offer(data[at : at + 16384]) if at < len(data) else 0
            at += taken
            world.pump()
            idle = 0 if taken else idle + 1
            if idle > 3:
                # Nobody takes any more: all that is on the way is let through.
                client.look()
            if stream in client.ended:
                break
        self.assertEqual(body, client.bodies[stream])

    def test_one_window_closed(self) -> None:
        """A stream whose window is closed holds up no other."""
        world = self.h2_world(backends=2)
        client = world.h2(window=10)
        client.acknowledges = False
        first = client.ask("/first")
        closed = world.backends[0].accept()
        closed.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 100)
        second = client.ask("/second")
        client.conn.increment_flow_control_window(100_000, second)
        client.flush()
        # All that the connection's window has left, and more.
        server = world.backends[1].accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 66000\r\n\r\n" + b"y" * 65_525)
        client.look()
        closed.send(b"x" * 800)
        server.send(b"y" * 475)
        client.look()
        self.assertEqual([10, 65525], [len(client.bodies[each]) for each in (first, second)])
        client.conn.increment_flow_control_window(1 << 20)
        client.flush()
        self.assertEqual([second], client.look().ended)
        self.assertEqual(10, len(client.bodies[first]))

    def test_turns(self) -> None:
        """Streams send in turn: a short response does not wait for the end of a long one."""
        world = self.h2_world(backends=2)
        client = world.h2(window=1 << 20)
        long, short = client.ask("/long"), client.ask("/short")
        servers = [backend.accept() for backend in world.backends]
        for server in servers:
            body = b"l" * 200_000 if b"/long" in server.take() else b"s" * 1000
            server.send(sized(body))
        # The window of the connection let 65,535 bytes through.
        client.acknowledges = False
        client.look()
        self.assertEqual(65535, sum(map(len, client.bodies.values())))
        client.conn.increment_flow_control_window(32768)
        client.flush()
        client.look()
        self.assertEqual(([short], 98303), (client.ended, sum(map(len, client.bodies.values()))))
        client.conn.increment_flow_control_window(1 << 20)
        client.flush()
        client.look()
        self.assertEqual([short, long], client.ended)
        self.assertEqual(200_000, len(client.bodies[long]))


class StreamEndTests(Http2TestCase):
    """How streams end."""

    def test_early_response(self) -> None:
        """A response before the end of the request is passed on, and the rest not asked for."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        client.say(stream, b"x")
        server.send(sized(b"enough", b"403 Forbidden"))
        self.assertEqual("403", client.status(stream))
        self.assertEqual(([stream], b"enough"), (client.ended, client.bodies[stream]))
        self.assertEqual({stream: ErrorCodes.NO_ERROR}, client.resets)
        self.assertTrue(server.over)
        again = client.ask()
        world.backends[0].accept().send(OK)
        self.assertEqual("200", client.status(again))

    def test_reset(self) -> None:
        """A stream that the client gives up costs its server's connection, and no other stream."""
        world = self.h2_world(backends=2)
        client = world.h2()
        streams = [client.ask(), client.ask()]
        servers = [backend.accept() for backend in world.backends]
        client.conn.reset_stream(streams[0], ErrorCodes.CANCEL)
        client.flush()
        world.pump()
        gone = [server for server in servers if server.over]
        self.assertEqual((1, 1), (len(gone), world.held))
        next(server for server in servers if server not in gone).send(OK)
        self.assertEqual("200", client.status(streams[1]))
        self.assertEqual([499, 200], [entry["status"] for entry in world.entries()])

    def test_broken_response(self) -> None:
        """A response that breaks off resets its stream."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask()
        server = world.backends[0].accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        server.close()
        client.look()
        self.assertEqual((b"hel", []), (client.bodies[stream], client.ended))
        self.assertEqual({stream: ErrorCodes.INTERNAL_ERROR}, client.resets)

    def test_answers(self) -> None:
        """HEAD, 204, 304 and our own answers end with their head or their body."""
        world = self.h2_world()
        client = world.h2()
        for method, said, status in (
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200"),
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "304"),
            ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200"),
            ("GET", b"nonsense\r\n\r\n", "502"),
        ):
            stream = client.ask(method=method)
            if world.backends[0].waiting():
                server = world.backends[0].accept()
            server.send(said)
            self.assertEqual(status, client.status(stream))
            self.assertEqual(stream, client.ended[-1])
        self.assertEqual({}, client.resets)

    def test_slow_body(self) -> None:
        """Who does not go on with a body is answered 408."""
        world = self.h2_world(http={"client_header_timeout": 5.0})
        client = world.h2()
        stream = client.ask("/up", "POST", ends=False)
        server = world.backends[0].accept()
        world.wait(4.0)
        client.say(stream, b"x")
        world.wait(4.0)
        self.assertEqual({}, client.look().heads)
        world.wait(2.0)
        self.assertEqual("408", client.status(stream))
        self.assertTrue(server.over)

    def test_takes_nothing(self) -> None:
        """A stream whose client takes nothing for a minute is given up."""
        world = self.h2_world()
        client = world.h2(window=1)
        client.acknowledges = False
        stream = client.ask()
        world.backends[0].accept().send(OK)
        world.wait(58.0)
        self.assertEqual({}, client.look().resets)
        world.wait(3.0)
        self.assertEqual({stream: ErrorCodes.CANCEL}, client.look().resets)


class ConnectionEndTests(Http2TestCase):
    """How connections end."""

    def test_idle(self) -> None:
        """Who asks for nothing is told and closed; who waits for an answer is not."""
        world = self.h2_world(http={"keepalive_timeout": 5.0, "client_header_timeout": 3.0})
        silent, client = world.h2(), world.h2()
        stream = client.ask()
        world.wait(4.0)
        self.assertEqual([ErrorCodes.NO_ERROR], silent.look().farewells)
        self.assertTrue(silent.wire.over)
        world.wait(10.0)
        world.backends[0].accept().send(OK)
        self.assertEqual("200", client.status(stream))
        world.wait(4.0)
        self.assertFalse(client.wire.over)
        world.wait(2.0)
        self.assertTrue(client.look().wire.over)

    def test_drain(self) -> None:
        """A drain takes no more requests, answers those under way, and closes."""
        world = self.h2_world()
        client = world.h2()
        stream = client.ask()
        server = world.backends[0].accept()
        world.listener.drain()
        world.pump()
        # By hand: to this library nothing may come behind a farewell.
        late = client.conn.get_next_available_stream_id()
        fields = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
        client.conn.send_headers(late, fields, end_stream=True)
        client.flush()
        self.assertFalse(client.wire.over)
        server.send(OK)
        said = client.wire.await_end()
        self.assertIn(b"ok", said)
        refused = b"\0\0\4\3\0" + late.to_bytes(4, "big") + b"\0\0\0\7"
        self.assertIn(refused, said)
        self.assertNotIn(stream, client.resets)
        self.assertFalse(world.backends[0].waiting())

    def test_retire(self) -> None:
        """Under a new configuration a client's next request is its last on the connection."""
        world = self.h2_world()
        client, busy = world.h2(), world.h2()
        busy.ask("/busy")
        server = world.backends[0].accept()
        world.listener.retire()
        client.look()
        self.assertEqual([], client.farewells)
        server.send(OK)
        self.assertIn(b"ok", busy.wire.await_end())
        client.ask()
        server.send(OK)
        self.assertIn(b"ok", client.wire.await_end())

    def test_slow_end(self) -> None:
        """What waits for a client at the end is waited for while the client takes any of it."""
        world = self.h2_world()
        client = Http2Client(world.listener, "10.0.0.1")
        transport = _Slow()
        client.makeConnection(transport)
        transport.queued = 3
        client.drain()
        for left in (2, 1):
            transport.queued = left
            world.wait(LINGER + 0.2)
            self.assertFalse(transport.aborted)
        world.wait(LINGER + 0.2)
        self.assertTrue(transport.aborted)
        client.connectionLost()

    def test_client_says_farewell(self) -> None:
        """A client that says that it will ask no more still gets its answers."""
        world = self.h2_world()
        client = world.h2()
        client.ask()
        client.wire.send(b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 8)
        world.backends[0].accept().send(OK)
        self.assertIn(b"ok", client.wire.await_end())

    def test_enough(self) -> None:
        """After C{keepalive_requests} the connection ends, as in HTTP/1.1."""
        world = self.h2_world(http={"keepalive_requests": 2})
        client = world.h2()
        client.ask()
        server = world.backends[0].accept()
        server.send(OK)
        client.look()
        self.assertEqual([], client.farewells)
        client.ask()
        server.send(OK)
        self.assertIn(b"ok", client.wire.await_end())

    def test_gone(self) -> None:
        """When the client is gone, all that was under way for it is given up."""
        world = self.h2_world()
        client = world.h2()
        client.ask()
        client.ask("/up", "POST", ends=False)
        servers = [world.backends[0].accept() for _ in range(2)]
        self.assertEqual(2, world.held)
        client.wire.cut()
        self.assertEqual([True, True], [server.over for server in servers])
        self.assertEqual(0, world.held)


class FloodTests(Http2TestCase):
    """Clients that want to be a burden."""

    def test_too_many_streams(self) -> None:
        """Streams above the limit are refused, one by one; the others are served."""
        world = self.h2_world(max_conns=0)
        client = world.h2()
        streams = [client.ask() for _ in range(STREAMS + 3)]
        client.look()
        self.assertEqual(
            dict.fromkeys(streams[STREAMS:], ErrorCodes.REFUSED_STREAM), client.resets
        )
        self.assertEqual(STREAMS, world.held)

    def _flood(self, data: bytes, count: int = 1100) -> None:
        """C{data} is taken a few times, and ends the connection when it comes without end."""
        world = self.h2_world()
        client = world.h2()
        client.wire.send(data * 100)
        self.assertEqual([], client.look().farewells)
        client.wire.send(data * count)
        said = client.wire.await_end()
        # A farewell with ENHANCE_YOUR_CALM.
        self.assertIn(b"\0\0\0\x0b", said[-8:])

    def test_pings(self) -> None:
        """Pings."""
        self._flood(b"\0\0\x08\6\0\0\0\0\0" + b"\0" * 8)

    def test_settings(self) -> None:
        """Settings."""
        self._flood(b"\0\0\0\4\0\0\0\0\0")

    def test_unknown(self) -> None:
        """Frames that nobody knows."""
        self._flood(b"\0\0\0\xee\0\0\0\0\0")

    def test_windows(self) -> None:
        """Windows that are opened, and nothing asked for."""
        self._flood(b"\0\0\4\x08\0\0\0\0\0\0\0\0\1")

    def test_rapid_reset(self) -> None:
        """Streams that are opened and given up at once."""
        world = self.h2_world(http={"keepalive_requests": 10**6}, max_conns=0)
        client = world.h2()
        for _ in range(1100):
            stream = client.conn.get_next_available_stream_id()
            fields = [(":method", "GET"), (":path", "/"), (":scheme", "https")]
            client.conn.send_headers(stream, [*fields, (":authority", "a")], end_stream=True)
            client.conn.reset_stream(stream, ErrorCodes.CANCEL)
            if stream % 64 == 1:
                client.flush()
        client.flush()
        self.assertIn(b"\0\0\0\x0b", client.wire.await_end()[-8:])
        self.assertEqual(0, world.held)

    def test_fields_without_end(self) -> None:
        """A block of fields that goes on and on is not waited for, nor kept."""
        world = self.h2_world(http={"max_header_size": 1024})
        for size, count in ((1000, 3), (0, 1100)):
            client = world.h2()
            client.wire.send(b"\0\0\0\1\0\0\0\0\1")
            client.wire.send((size.to_bytes(3, "big") + b"\x09\0\0\0\0\1" + b"\0" * size) * count)
            self.assertTrue(client.wire.over)
            client.wire.close()

    def test_long_frame(self) -> None:
        """A frame that is too long is refused before it comes."""
        world = self.h2_world()
        client = world.h2()
        client.wire.send(b"\0\x40\1\0\0\0\0\0\1")
        self.assertIn(ErrorCodes.FRAME_SIZE_ERROR, client.look().farewells)

    def test_answers_to_frames(self) -> None:
        """Windows that are opened for what was sent are no flood, however small they are."""
        world = self.h2_world()
        client = world.h2(window=500)
        stream = client.ask()
        world.backends[0].accept().send(sized(b"x" * 1_000_000))
        for _ in range(3000):
            if stream in client.look().ended:
                break
        self.assertEqual(([], 1_000_000), (client.farewells, len(client.bodies[stream])))

    def test_patience(self) -> None:
        """What comes now and then, or in answer to a response, is no flood."""
        world = self.h2_world()
        client = world.h2()
        ping = b"\0\0\x08\6\0\0\0\0\0" + b"\0" * 8
        for _ in range(30):
            client.ask()
            client.wire.send(ping * 100)
            world.wait(3.5)
            if world.backends[0].waiting():
                server = world.backends[0].accept()
            server.send(OK)
            client.look()
        self.assertEqual([], client.farewells)
        self.assertEqual(30, len(client.ended))


class HookTests(Http2TestCase):
    """A balancer hook decides about streams as about any request."""

    def test_waits(self) -> None:
        """One that waits holds up its own stream; a stream that is given up gives it up."""
        world = self.h2_world(backends=2)
        waits: list[Deferred[None]] = []
        cancelled: list[Deferred[None]] = []

        def choose(context: Any) -> Deferred[None] | None:
            if context.request.uri == "/now":
                context.set_current_peer(world.backends[1].key)
                return None
            waits.append(Deferred(cancelled.append))
            return waits[-1].addCallback(
                lambda _: context.set_current_peer(world.backends[0].key)
            )

        to = world.upstream
        peers = Peers(to.upstream)
        to.hook = Hook(call=choose, upstream=to.upstream, peers=peers, subsystem="http")
        client = world.h2()
        first, second = client.ask("/first"), client.ask("/second", "POST", body=b"hello")
        now = client.ask("/now")
        world.backends[1].accept().send(OK)
        self.assertEqual("200", client.status(now))
        client.conn.reset_stream(first, ErrorCodes.CANCEL)
        client.flush()
        self.assertEqual([waits[0]], cancelled)
        waits[1].callback(None)
        server = world.backends[0].accept()
        self.assertTrue(server.take().endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
        server.send(OK)
        self.assertEqual("200", client.status(second))
