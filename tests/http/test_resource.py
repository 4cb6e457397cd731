"""
The balancer as a resource in a site of twisted.web.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from twisted.internet.protocol import Factory
from twisted.web._http2 import H2Connection as Http2Protocol
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.server import Site
from twisted.web.test.requesthelper import DummyRequest

from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.config.upstream import StickyConfig
from dynbalance.http.resource import ReverseProxyResource
from tests.http.world import OK, HttpTestCase, Wire, World, plain, post, sized


def undated(response: bytes) -> bytes:
    """A response without the date that twisted.web adds."""
    head, _, body = response.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Here(Resource):
    """Something else of the site."""

    def render_GET(self, request: object) -> bytes:
        return b"here"


class SiteWorld(World):
    """A world whose clients come in by a site."""

    def __init__(self, *args: Any, trusted: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.port.stopListening()
        root = Resource()
        networks = [ip_network(text) for text in trusted]
        self.resource = ReverseProxyResource(self.upstream, networks)
        root.putChild(b"app", self.resource)
        root.putChild(b"other", _Here())
        self.site = Site(root, reactor=self.clock)
        self.port = self.hub.listenTCP(0, self.site, interface="127.0.0.1")
        self.pump()


GET_APP = b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n"


class ResourceTests(HttpTestCase):
    """L{ReverseProxyResource} in a site."""

    def site(self, *args: Any, **kwargs: Any) -> SiteWorld:
        world = SiteWorld(*args, **kwargs)
        self._worlds.append(world)
        return world

    def exchange(self, answer: bytes, request: bytes = GET_APP) -> bytes:
        """What the client hears of an answer."""
        client, server, _ = self.site().request(request)
        server.send(answer)
        return undated(client.take())

    def test_request(self) -> None:
        """The whole path goes to the server, with what is said of the client."""
        _, _, got = self.site().request(
            b"GET /app/x/..;y?z=%20 HTTP/1.1\r\nHost: a:1\r\nCookie: c\r\nCookie: d\r\n"
            b"X-Forwarded-For: 9.9.9.9\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
        )
        self.assertEqual(
            got,
            b"GET /app/x/..;y?z=%20 HTTP/1.1\r\nHost: a:1\r\nCookie: c\r\nCookie: d\r\n"
            b"X-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n"
            b"X-Forwarded-Proto: http\r\n\r\n",
        )

    def test_trusted(self) -> None:
        """A trusted proxy's word on the client counts."""
        _, _, got = self.site(trusted=("127.0.0.0/8",)).request(
            b"GET /app HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
        )
        self.assertIn(b"X-Real-IP: 9.9.9.9\r\n", got)

    def test_time(self) -> None:
        """The server's time begins with the request, though the hub did not bring it."""
        world = self.site()
        render = world.resource.render

        def after_a_minute(request: Any) -> int:
            world.hub.now -= 60.0
            return render(request)

        self.patch(world.resource, "render", after_a_minute)
        _, server, _ = world.request(GET_APP)
        server.send(OK)
        self.assertLess(world.servers[0].times.total, 1.0)
        self.assertEqual(sum(world.servers[0].times.counts), 1)

    def test_key_and_cookie(self) -> None:
        """A policy with a key has it here, too, and cookies keep clients."""
        world = self.site(3, upstream={"policy": "hash", "hash_key": "$arg_k", "keepalive": 0})
        places = set()
        for _ in range(4):
            client = world.client()
            client.send(b"GET /app?k=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            [place] = [n for n, backend in enumerate(world.backends) if backend.waiting()]
            places.add(place)
            world.backends[place].accept().send(OK)
            client.take()
        self.assertEqual(1, len(places))
        world = self.site(upstream={"sticky": StickyConfig()})
        client, server, _ = world.request(GET_APP)
        server.send(OK)
        self.assertIn(b"\r\nSet-Cookie: route=", client.take())

    def test_hook(self) -> None:
        """A balancer hook decides here, too."""

        def call(b: Any) -> None:
            b.set_current_peer(world.backends[1].key)
            b.request.uri = "/hooked"
            b.recreate_request()

        world = self.site(2)
        to = world.upstream
        peers = Peers(to.upstream)
        to.hook = Hook(call=call, upstream=to.upstream, peers=peers, subsystem="http")
        client, server, got = world.request(GET_APP, backend=1)
        self.assertTrue(got.startswith(b"GET /hooked HTTP/1.1\r\nHost: a\r\n"), got)
        self.assertIn(b"\r\nX-Real-IP: 127.0.0.1\r\n", got)
        server.send(OK)
        self.assertIn(b"ok", client.take())

    def test_host(self) -> None:
        """The host option counts here, too; HTTP/1.0 without a Host gets one."""
        _, _, got = self.site(upstream={"host": "inner"}).request(GET_APP)
        self.assertIn(b"\r\nHost: inner\r\n", got)
        _, _, got = self.site().request(b"GET /app HTTP/1.0\r\n\r\n")
        self.assertIn(b"\r\nHost: default\r\n", got)

    def test_response(self) -> None:
        """Status, reason, fields and body are the server's own."""
        self.assertEqual(
            self.exchange(
                b"HTTP/1.1 299 As you like\r\nServer: me\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
                b"Connection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok"
            ),
            b"HTTP/1.1 299 As you like\r\nServer: me\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
            b"Content-Length: 2\r\n\r\nok",
        )

    def test_date(self) -> None:
        """A server's date is the only one."""
        client, server, _ = self.site().request(GET_APP)
        server.send(b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")

    def test_framings(self) -> None:
        """Chunks and bodies until the end come out in chunks."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nok",
        ):
            client, server, _ = self.site().request(GET_APP)
            server.send(answer)
            server.close()
            self.assertEqual(
                undated(client.take()),
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            )

    def test_bodyless(self) -> None:
        """HEAD, 204 and 304 have no body."""
        self.assertEqual(
            self.exchange(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                b"HEAD /app HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        )
        self.assertEqual(
            self.exchange(b"HTTP/1.1 204 No Content\r\n\r\n"), b"HTTP/1.1 204 No Content\r\n\r\n"
        )
        self.assertEqual(
            self.exchange(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
            b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        )

    def test_one_after_the_other(self) -> None:
        """Pipelined requests are served in order over one server connection."""
        world = self.site()
        client, server, _got = world.request(GET_APP + GET_APP)
        server.send(sized(b"1"))
        self.assertEqual(plain(server.take()), GET_APP)
        server.send(sized(b"2"))
        self.assertEqual(undated(client.take()).count(b"200 OK"), 2)
        self.assertEqual((world.held, world.idle), (0, 1))

    def test_body(self) -> None:
        """A body arrives with its length, however it came."""
        for request in (
            post(b"abc").replace(b"/", b"/app", 1),
            (
                b"POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        ):
            client, server, got = self.site().request(request)
            self.assertEqual(
                plain(got), b"POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            )
            server.send(OK)
            self.assertTrue(client.take().endswith(b"\r\n\r\nok"))

    def test_large_body(self) -> None:
        """A large body goes as fast as the server takes it."""
        world = self.site()
        size = 12_000_000
        client = world.client()
        client.push(b"PUT /app HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.push(b"x" * size)
        server = world.backends[0].accept()
        world.pump()
        (connection,) = [c for c in world.hub.getReaders() if "ClientTransport" in repr(c)]
        self.assertTrue(connection.producerPaused)
        self.assertLess(connection.queued, 200_000)
        got = server.take().partition(b"\r\n\r\n")[2]
        server.await_bytes(size - len(got))
        server.send(OK)
        self.assertTrue(client.take().endswith(b"\r\n\r\nok"))

    def test_retry(self) -> None:
        """A server that refuses is passed over, and the body sent to the next."""
        world = self.site(backends=2)
        world.backends[0].refuse()
        _, _, got = world.request(post(b"abc").replace(b"/", b"/app", 1), backend=1)
        self.assertTrue(got.endswith(b"\r\n\r\nabc"))

    def test_failures(self) -> None:
        """502, 504 and 413 are answered as by a listener."""
        world = self.site(upstream={"client_max_body_size": 2, "read_timeout": 10.0})
        client, _server, _ = world.request(GET_APP)
        world.wait(10.5)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 Gateway Timeout\r\n"))
        client.send(post(b"abc").replace(b"/", b"/app", 1))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
        world.backends[0].refuse()
        client.send(GET_APP)
        self.assertEqual(
            undated(client.take()),
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 16\r\n\r\n502 Bad Gateway\n",
        )
        client.send(GET_APP.replace(b"GET", b"HEAD"))
        self.assertTrue(client.take().endswith(b"\r\n\r\n"))

    def test_refused(self) -> None:
        """What the parser refuses, and upgrades, are not passed on."""
        world = self.site()
        upgrade = b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        for request, status in (
            (b"TRACE /app HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"GET /app HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            (b"GET /app HTTP/1.1\r\n\r\n", 400),
            (b"GET /app HTTP/1.1\r\nHost: a\r\n" + upgrade, 501),
        ):
            client = world.client()
            client.send(request)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 %d " % status), request)
        self.assertFalse(world.backends[0].waiting())

    def test_broken_off(self) -> None:
        """A response that breaks off never looks complete."""
        for answer in (
            sized(b"abcdef")[:-3],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ):
            client, server, _ = self.site().request(GET_APP)
            server.send(answer)
            self.assertIn(b"abc", client.take())
            server.close()
            self.assertTrue(client.over)
            self.assertNotIn(b"0\r\n\r\n", client.take())

    def test_client_gone(self) -> None:
        """When the client leaves, the slot is given back at once."""
        for leave in (Wire.close, Wire.cut):
            world = self.site()
            client, server, _ = world.request(GET_APP)
            self.assertEqual(world.held, 1)
            leave(client)
            self.assertEqual(world.held, 0)
            self.assertTrue(server.over)

    def test_stalled_reader(self) -> None:
        """A client that does not read stops the server; all arrives in the end."""
        world = self.site()
        client, server, _ = world.request(GET_APP)
        size = 40_000_000
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        rest = memoryview(b"x" * size)
        while sent := server.offer(rest[:100_000]):
            rest = rest[sent:]
            world.pump()
        self.assertGreater(len(rest), 10_000_000)
        head = client.await_bytes(100)
        got = len(head.partition(b"\r\n\r\n")[2])
        while got < size:
            rest = rest[server.offer(rest[:500_000]) :]
            got += len(client.take())
        self.assertEqual((got, world.held, world.idle), (size, 0, 1))

    def test_found_in_a_tree(self) -> None:
        """It is a leaf: everything below its place is its own."""
        world = self.site()
        request = DummyRequest([b"app", b"a", b"b"])
        found = getChildForRequest(world.site.resource, request)
        self.assertIs(found, world.resource)
        self.assertEqual(repr(found), "<ReverseProxyResource to default>")

    def http2(self, world: SiteWorld) -> tuple[Wire, H2Connection]:
        """A client of HTTP/2 that is connected to the site."""

        class Http2(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Http2Protocol:
                protocol = Http2Protocol(world.clock)
                protocol.timeOut = None
                protocol.site = world.site
                protocol.factory = world.site
                protocol.requestFactory = world.site.requestFactory
                return protocol

        world.port.stopListening()
        world.port = world.hub.listenTCP(0, Http2(), interface="127.0.0.1")
        client = world.client()
        h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        h2.initiate_connection()
        client.send(h2.data_to_send())
        return client, h2

    def heard(self, client: Wire, h2: H2Connection) -> list[Any]:
        """What the client of HTTP/2 hears."""
        events = h2.receive_data(client.take())
        client.send(h2.data_to_send())
        return events

    def test_http2(self) -> None:
        """Clients of HTTP/2 get the same by twisted.web's own server."""
        world = self.site()
        client, h2 = self.http2(world)
        head = [(":method", "POST"), (":path", "/app?x"), (":scheme", "http"), (":authority", "a")]
        h2.send_headers(1, [*head, ("cookie", "c"), ("content-length", "3")])
        h2.send_data(1, b"abc", end_stream=True)
        client.send(h2.data_to_send())
        server = world.backends[0].accept()
        got = plain(server.take())
        self.assertTrue(got.startswith(b"POST /app?x HTTP/1.1\r\nHost: a\r\n"), got)
        self.assertTrue(got.endswith(b"\r\nContent-Length: 3\r\n\r\nabc"), got)
        server.send(b"HTTP/1.1 201 Made\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        server.send(b"0\r\n\r\n")
        events = self.heard(client, h2)
        (response,) = [event for event in events if isinstance(event, ResponseReceived)]
        fields = dict(response.headers)
        self.assertEqual((fields[b":status"], fields[b"x-a"]), (b"201", b"b"))
        self.assertNotIn(b"transfer-encoding", fields)
        body = b"".join(event.data for event in events if isinstance(event, DataReceived))
        self.assertEqual(body, b"ok")
        self.assertTrue([event for event in events if isinstance(event, StreamEnded)])
        self.assertEqual(world.held, 0)

    def test_http2_broken_off(self) -> None:
        """A response that breaks off resets its stream and no other."""
        world = self.site()
        client, h2 = self.http2(world)
        head = [(":method", "GET"), (":path", "/app"), (":scheme", "http"), (":authority", "a")]
        h2.send_headers(1, head, end_stream=True)
        h2.send_headers(3, head, end_stream=True)
        client.send(h2.data_to_send())
        first, second = world.backends[0].accept(), world.backends[0].accept()
        self.assertEqual(plain(second.take()), GET_APP)
        first.send(sized(b"abc")[:-1])
        first.close()
        second.send(OK)
        events = self.heard(client, h2)
        self.assertEqual([e.stream_id for e in events if isinstance(e, StreamReset)], [1])
        self.assertEqual([e.stream_id for e in events if isinstance(e, StreamEnded)], [3])
        h2.send_headers(5, head, end_stream=True)
        client.send(h2.data_to_send())
        self.assertEqual(plain(second.take()), GET_APP)
        h2.reset_stream(5)
        client.send(h2.data_to_send())
        self.assertEqual(world.held, 0)
        self.assertTrue(second.over)

    def test_beside(self) -> None:
        """The rest of the site is the site's."""
        client = self.site().client()
        client.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(client.take().endswith(b"\r\n\r\nhere"))
