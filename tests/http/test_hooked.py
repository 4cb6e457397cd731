"""
A balancer hook at work in the HTTP subsystem.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.config.upstream import StickyConfig
from dynbalance.errors import BalancerError
from dynbalance.http.spool import Spool
from dynbalance.net.deadlines import TICK
from dynbalance.store.reports import Granted, Wish
from tests.http.world import GET, OK, HttpTestCase, World, plain, post, sized
from tests.temporary import Temporary

ALL = ("error", "timeout", "http_404", "http_500", "non_idempotent")


class HookCase(Temporary, HttpTestCase):
    """Worlds whose upstream has a hook."""

    def hooked(self, call: Callable[[Any], object], *args: Any, **settings: Any) -> World:
        settings = {"next_upstream": ALL, "retry_budget": 0.0, **settings}
        backends = args[0] if args else 2
        world = self.world(backends, upstream=settings, max_fails=1)
        to = world.upstream
        to.hook = Hook(
            call=call,
            upstream=to.upstream,
            peers=Peers(to.upstream),
            subsystem="http",
            retry=to.retries,
        )
        return world


class ChoosingTests(HookCase):
    """Where a request goes."""

    def test_peer(self) -> None:
        """Each request goes where the hook says, and connections are kept there."""
        world = self.hooked(lambda b: b.set_current_peer(world.backends[1].key))
        client, server, got = world.request(backend=1)
        self.assertEqual(GET, plain(got))
        self.assertEqual(1, world.servers[1].held)
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual((0, 1), (world.held, world.idle))
        client.send(GET)
        self.assertEqual(GET, plain(server.take()))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_stranger(self) -> None:
        """A peer may be one that the upstream does not have."""
        world = self.world(1, others={"beside": 1})
        peer = world.elsewhere["beside"][0]
        to = world.upstream
        to.hook = Hook(
            call=lambda b: b.set_current_peer("127.0.0.1", peer.port),
            upstream=to.upstream,
            peers=Peers(to.upstream),
            subsystem="http",
        )
        client = world.client()
        client.send(GET)
        peer.accept().send(OK)
        self.assertEqual(OK, client.take())

    def test_policy(self) -> None:
        """Without a peer the policy chooses."""
        world = self.hooked(lambda b: None, 1)
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_cookie(self) -> None:
        """A cookie is for what the policy has chosen, and not for the hook's peers."""

        def call(b: Any) -> None:
            if b.request.uri == "/":
                b.set_current_peer(world.backends[0].key)

        world = self.hooked(call, 1, sticky=StickyConfig(cookie="to"))
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(OK, client.take())
        client.send(GET.replace(b"/ ", b"/else "))
        server.take()
        server.send(OK)
        self.assertIn(b"Set-Cookie: to=", client.take())

    def test_raises(self) -> None:
        """A hook that raises is 500, with the traceback in the log and nothing sent."""
        world = self.hooked(lambda b: 1 // 0)
        client = world.client()
        client.send(GET)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))
        self.assertFalse(any(backend.waiting() for backend in world.backends))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        client.send(GET)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_exit(self) -> None:
        """The client gets the status that the hook ends with."""
        for code, status in ((403, b"403"), (404, b"404"), (-1, b"500"), (-3, b"502"), (7, b"500")):
            calls: list[int] = []

            def call(b: Any, code: int = code, calls: list[int] = calls) -> None:
                calls.append(1)
                b.exit(code)

            client = self.hooked(call).client()
            client.send(GET)
            self.assertTrue(client.take().startswith(b"HTTP/1.1 %b " % status), code)
            self.assertEqual([1], calls)

    def test_declined(self) -> None:
        """DECLINED is a failed attempt, and the next one follows."""
        calls: list[Any] = []

        def call(b: Any) -> None:
            calls.append(b.get_last_failure())
            b.exit(b.DECLINED)

        client = self.hooked(call, 2).client()
        client.send(GET)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual([None, None], calls)


class AttemptTests(HookCase):
    """Attempts after the first."""

    def attempts(self, more: Callable[[Any], None], **settings: Any) -> int:
        """How many attempts on a peer that refuses."""
        calls: list[int] = []

        def call(b: Any) -> None:
            calls.append(b.attempt)
            b.set_current_peer("127.0.0.1:1")
            more(b)

        client = self.hooked(call, 1, **settings).client()
        client.send(GET)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(list(range(1, len(calls) + 1)), calls)
        return len(calls)

    def test_more_tries(self) -> None:
        """The numbers of the table in docs/hooks.rst."""

        def first(count: int) -> Callable[[Any], None]:
            return lambda b: b.set_more_tries(count) if b.attempt == 1 else None

        def both(b: Any) -> None:
            if b.attempt <= 2:
                b.set_more_tries(1)

        self.assertEqual(1, self.attempts(lambda b: None, next_upstream_tries=10))
        self.assertEqual(4, self.attempts(first(3)))
        self.assertEqual(3, self.attempts(both, next_upstream_tries=10))
        self.assertEqual(2, self.attempts(both, next_upstream_tries=2))
        self.assertEqual(5, self.attempts(lambda b: b.set_more_tries(2), next_upstream_tries=5))

    def test_without_end(self) -> None:
        """Attempts that never end leave others their turn, and end with their time."""
        calls: list[int] = []

        def call(b: Any) -> None:
            calls.append(b.attempt)
            # Refused at once, without a turn of the reactor.
            b.set_current_peer("unix:/nowhere/at/all")
            b.set_more_tries(1)

        world = self.hooked(call, 1, next_upstream_timeout=1.0)
        client = world.client()
        client.push(GET)
        world.clock.advance(0)
        world.hub.doRead()
        self.assertLess(len(calls), 100)
        world.clock.advance(2.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 502 "))

    def test_last_failure(self) -> None:
        """After an answer, a refusal and a timeout the hook hears what it was."""
        heard: list[Any] = []

        def call(b: Any) -> None:
            heard.append(b.get_last_failure())
            if b.attempt == 1:
                b.set_more_tries(5)
                b.set_timeouts(read=0.5)
            b.set_current_peer("127.0.0.1:1" if b.attempt == 4 else world.backends[0].key)

        world = self.hooked(call, 1)
        client = world.client()
        client.send(GET)
        world.backends[0].accept().send(sized(b"no", b"404 No"))
        world.backends[0].accept().send(sized(b"no", b"500 No"))
        world.backends[0].accept()
        world.wait(1.0)
        world.backends[0].accept().send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual(
            [None, ("next", 404), ("failed", 500), ("failed", 504), ("failed", 502)], heard
        )
        # Not a word of it to whoever judges servers.
        self.assertEqual((0, 0), (world.servers[0].fails, world.servers[0].failures))

    def test_dead_kept_connection(self) -> None:
        """The hook is called for the free try after a kept connection that was dead."""
        heard: list[Any] = []

        def call(b: Any) -> None:
            heard.append((b.attempt, b.get_last_failure()))
            b.set_current_peer(world.backends[0].key)

        world = self.hooked(call, 1)
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        client.send(GET)
        server.close()
        world.backends[0].accept().send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual([(1, None), (1, None), (2, ("failed", 502))], heard)

    def test_timeouts(self) -> None:
        """Timeouts hold for the request that the hook has set them for, and no other."""
        reads = [0.5, None]

        def call(b: Any) -> None:
            b.set_current_peer(world.backends[0].key)
            b.set_timeouts(read=reads.pop(0))

        world = self.hooked(call, 1, next_upstream=())
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(OK, client.take())
        client.send(GET)
        server.take()
        world.wait(2.0)
        self.assertEqual(b"", client.take())
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_keepalive(self) -> None:
        """C{enable_keepalive} says how long the attempt's connection is kept."""

        def call(b: Any) -> None:
            b.set_current_peer(world.backends[0].key)
            b.enable_keepalive(5, 2)

        world = self.hooked(call, 1)
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        self.assertEqual(1, world.idle)
        client.send(GET)
        server.take()
        server.send(OK)
        client.take()
        self.assertTrue(server.over)
        client.send(GET)
        server = world.backends[0].accept()
        server.send(OK)
        client.take()
        world.wait(6.0)
        self.assertEqual((0, True), (world.idle, server.over))


    def test_keepalive_of_kept(self) -> None:
        """It holds for a connection that was kept by other rules before, and no longer."""
        limits = [100, 2]

        def call(b: Any) -> None:
            b.set_current_peer(world.backends[0].key)
            b.enable_keepalive(60, limits.pop(0))

        world = self.hooked(call, 1)
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        client.send(GET)
        server.take()
        server.send(OK)
        client.take()
        self.assertEqual((0, True), (world.idle, server.over))


class StrictTests(HookCase):
    """Where the store has to be asked for a place on the hook's server."""

    def wished(self, world: World, upstream: StrictUpstream) -> str:
        """Where a place is wanted."""
        wishes: list[Wish] = []

        def look() -> bool:
            wishes.extend(upstream.turn())
            return bool(wishes)

        world.until(look)
        return wishes[0].address

    def test_full_over_all_nodes(self) -> None:
        """A server that has none there is as one that has refused."""
        heard: list[Any] = []

        def choose(b: Any) -> None:
            heard.append(b.get_last_failure())
            b.set_current_peer(world.backends[b.attempt - 1].key)
            b.set_more_tries(2 - b.attempt)

        world = self.hooked(choose, counting="strict")
        upstream = world.upstream.upstream
        assert isinstance(upstream, StrictUpstream)
        upstream.near()
        client = world.client()
        client.send(GET)
        for backend, count in zip(world.backends, (0, 1), strict=True):
            self.assertEqual(backend.key, self.wished(world, upstream))
            upstream.granted(Granted(counts=(count,), totals={backend.key: 1}))
        server = world.backends[1].accept()
        self.assertEqual(GET, plain(server.take()))
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual([None, ("failed", 502)], heard)


class WaitingTests(HookCase):
    """Hooks that wait."""

    def setUp(self) -> None:
        super().setUp()
        self.waits: list[Deferred[None]] = []
        self.cancelled = 0

    async def choose(self, b: Any) -> None:
        if b.request.uri == "/slow":
            self.waits.append(Deferred())
            try:
                await self.waits[-1]
            except CancelledError:
                self.cancelled += 1
                raise
        b.set_current_peer(self.of.backends[0].key)

    def test_others_go_on(self) -> None:
        """A hook that waits holds up its own request and no other."""
        world = self.of = self.hooked(self.choose, 1)
        slow = world.client()
        slow.send(GET.replace(b"/ ", b"/slow "))
        quick, server, _ = world.request()
        server.send(OK)
        self.assertEqual(OK, quick.take())
        self.assertEqual(b"", slow.take())
        self.waits[0].callback(None)
        self.assertIn(b"/slow", server.take())
        server.send(OK)
        self.assertEqual(OK, slow.take())

    def test_client_leaves(self) -> None:
        """The wait is cancelled when the client leaves."""
        world = self.of = self.hooked(self.choose, 1)
        client = world.client()
        client.send(GET.replace(b"/ ", b"/slow "))
        self.assertEqual(1, len(self.waits))
        client.cut()
        world.until(lambda: self.cancelled == 1)
        self.assertFalse(world.backends[0].waiting())

    def test_too_long(self) -> None:
        """A hook that waits longer than it may is cancelled: 504, and nobody is asked."""
        world = self.of = self.hooked(self.choose, 1)
        client = world.client()
        client.send(GET.replace(b"/ ", b"/slow "))
        world.wait(9.9)
        self.assertEqual((b"", 0), (client.take(), self.cancelled))
        world.wait(0.1 + 2 * TICK)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))
        self.assertEqual(1, self.cancelled)
        self.assertFalse(world.backends[0].waiting())
        self.assertEqual([504], [entry["status"] for entry in world.entries()])

    def test_just_in_time(self) -> None:
        """Only the hook's own time counts, for each call anew."""
        world = self.of = self.hooked(self.choose, 1)
        client = world.client()
        client.send(GET.replace(b"/ ", b"/slow "))
        for _ in range(2):
            world.wait(9.5)
            self.waits.pop().callback(None)
            server = world.backends[0].accept()
            world.wait(9.5)
            server.send(OK)
            self.assertEqual(OK, client.take())
            server.close()
            client.send(GET.replace(b"/ ", b"/slow "))
        self.assertEqual(0, self.cancelled)

    def test_body_meanwhile(self) -> None:
        """What comes of the request's body meanwhile is sent, too."""
        world = self.of = self.hooked(self.choose, 1)
        request = post(b"x" * 200000).replace(b"/ ", b"/slow ", 1)
        client = world.client()
        client.push(request[:1000])
        world.pump()
        client.push(request[1000:70000])
        world.pump()
        self.waits[0].callback(None)
        server = world.backends[0].accept()
        client.push(request[70000:])
        world.until(lambda: server.look().endswith(b"x" * 200000))
        server.send(OK)
        self.assertEqual(OK, client.take())


class RequestTests(HookCase):
    """What a hook makes of the request."""

    def meet(self, call: Callable[[Any], None], request: bytes, **settings: Any) -> list[bytes]:
        """What the first and the second attempt send."""

        def choose(b: Any) -> None:
            b.set_current_peer(world.backends[0].key)
            b.set_more_tries(1)
            call(b)

        world = self.hooked(choose, 1, **settings)
        if settings:
            world.upstream.spool = Spool(os.path.dirname(self.mktemp()))
        client = world.client()
        client.send(request)
        first = world.backends[0].accept()
        sent = [first.take()]
        first.send(sized(b"no", b"500 No"))
        second = world.backends[0].accept()
        sent.append(second.take())
        second.send(OK)
        self.assertEqual(OK, client.take())
        return sent

    def test_recreated(self) -> None:
        """A changed request is what the attempt sends that it was changed for."""

        def call(b: Any) -> None:
            if b.attempt == 2:
                b.request.uri = "/again"
                b.request.headers["X-Try"] = "2"
                b.request.body = b"another body"
                b.recreate_request()

        chunked = (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nold\r\n0\r\n\r\n"
        )
        for request in (post(b"old"), chunked):
            for settings in ({}, {"request_buffering": True}):
                first, second = self.meet(call, request, **settings)
                self.assertTrue(first.startswith(b"POST / "))
                self.assertNotIn(b"X-Try", first)
                self.assertTrue(second.startswith(b"POST /again HTTP/1.1\r\nHost: a\r\n"))
                self.assertIn(b"\r\nX-Try: 2\r\n", second)
                self.assertIn(b"\r\nX-Real-IP: 127.0.0.1\r\n", second)
                self.assertIn(b"\r\nContent-Length: 12\r\n", second)
                self.assertNotIn(b"chunked", second)
                self.assertTrue(second.endswith(b"\r\n\r\nanother body"))

    def test_head_alone(self) -> None:
        """A body that is not replaced is sent with the new head, as it came."""
        bodies: list[Any] = []

        def call(b: Any) -> None:
            bodies.append(b.request.body)
            b.request.headers["X-Try"] = str(b.attempt)
            b.recreate_request()

        chunked = (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nold\r\n0\r\n\r\n"
        )
        for number, sent in enumerate(self.meet(call, chunked), 1):
            self.assertIn(b"X-Try: %d\r\n" % number, sent)
            self.assertTrue(sent.endswith(b"\r\n\r\n3\r\nold\r\n0\r\n\r\n"))
        for sent in self.meet(call, chunked, request_buffering=True):
            self.assertTrue(sent.endswith(b"\r\n\r\nold"))
            self.assertIn(b"\r\nContent-Length: 3\r\n", sent)
            self.assertNotIn(b"chunked", sent)
        self.assertEqual([b"old"] * 4, bodies)

    def test_key(self) -> None:
        """Where a key decides, it is that of the request as it is sent."""

        def call(b: Any) -> None:
            if b.request.uri == "/moved":
                b.request.headers["X-User"] = there
                b.recreate_request()

        world = self.hooked(call, 3, policy="hash", hash_key="$http_x_user")
        servers = {}
        for user in map(str, range(20)):
            lease = world.upstream.upstream.choose((), user.encode())
            assert lease is not None
            servers[user] = world.servers.index(lease.server)
            lease.release()
        here = "0"
        there = next(user for user, server in servers.items() if server != servers[here])
        asking = b"GET %b HTTP/1.1\r\nHost: a\r\nX-User: %b\r\n\r\n"
        for uri, user in ((b"/", here), (b"/moved", there)):
            client, server, got = world.request(asking % (uri, here.encode()), servers[user])
            self.assertIn(b"\r\nX-User: %b\r\n" % user.encode(), got)
            server.send(OK)
            self.assertEqual(OK, client.take())

    def test_refused(self) -> None:
        """What cannot be sent is told to the hook, and the request stays as it was."""

        def call(b: Any) -> None:
            b.request.uri = "/a#b"
            with self.assertRaises(BalancerError):
                b.recreate_request()

        for sent in self.meet(call, GET):
            self.assertEqual(GET, plain(sent))
