"""
A balancer hook at work in the stream subsystem.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.net.deadlines import TICK
from dynbalance.store.reports import Granted, Wish
from dynbalance.stream.accesslog import StreamLog
from dynbalance.stream.leaving import LOOK
from dynbalance.stream.session import Session
from tests.net.pump import Peer, unused_port
from tests.stream.building import StreamCase


class HookTests(StreamCase):
    """Where connections go."""

    def hooked(self, call: Callable[[Any], object], *addresses: str, **options: Any) -> None:
        self.listen(*addresses, **options)
        hook = Hook(
            call=call,
            upstream=self.upstream,
            peers=Peers(self.upstream),
            subsystem="stream",
            retry=self.listener.options.retry,
        )
        self.listener.options = evolve(self.listener.options, hook=hook)

    def test_peer(self) -> None:
        """A connection goes where the hook says, and is counted there."""
        seen: list[Any] = []

        def call(b: Any) -> None:
            seen.append(b.request)
            b.set_current_peer("127.0.0.1", two.port)

        one, two = self.backend(), self.backend()
        self.hooked(call, f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}")
        client = self.client()
        client.send(b"hello")
        self.accept(two).expect(b"hello")
        self.assertEqual([0, 1], [server.held for server in self.upstream.servers])
        self.assertEqual(("127.0.0.1", self.port), (seen[0].local, seen[0].local_port))
        self.assertEqual(("127.0.0.1", None), (seen[0].client, seen[0].server_name))
        self.assertGreater(seen[0].client_port, 0)

    def test_server_name(self) -> None:
        """The hook hears the name that a TLS client asks for."""
        backend = self.backend()
        self.hooked(lambda b: None, f"127.0.0.1:{backend.port}")
        self.assertEqual("a.example", self.listener.way_of("a.example").server_name)

    def test_policy(self) -> None:
        """Without a peer the policy chooses, also after a peer that refused."""
        heard: list[Any] = []

        def call(b: Any) -> None:
            heard.append(b.get_last_failure())
            if b.attempt == 1:
                b.set_current_peer("127.0.0.1", unused_port())
                b.set_more_tries(1)

        backend = self.backend()
        self.hooked(call, f"127.0.0.1:{backend.port}")
        client = self.client()
        client.send(b"hello")
        self.accept(backend).expect(b"hello")
        self.assertEqual([None, ("failed", 0)], heard)

    def test_raises(self) -> None:
        """A hook that raises closes the connection, and the traceback is in the log."""
        backend = self.backend()
        self.hooked(lambda b: 1 // 0, f"127.0.0.1:{backend.port}")
        self.client().expect_end()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(1, self.listener.refused)

    def test_exit(self) -> None:
        """So does one that says so."""
        backend = self.backend()
        self.hooked(lambda b: b.exit(403), f"127.0.0.1:{backend.port}")
        self.client().expect_end()
        self.assertEqual(1, self.listener.refused)

    def test_declined(self) -> None:
        """DECLINED takes a try."""
        calls: list[int] = []

        def call(b: Any) -> None:
            calls.append(b.attempt)
            b.exit(b.DECLINED)

        self.hooked(call, "127.0.0.1:1", "127.0.0.1:2")
        self.client().expect_end()
        self.assertEqual([1, 2], calls)
        self.assertEqual(0, sum(server.failures for server in self.upstream.servers))

    def test_failures_are_the_hooks(self) -> None:
        """A peer of the hook's that refuses is not judged."""
        port = unused_port()
        self.hooked(lambda b: b.set_current_peer("127.0.0.1", port), f"127.0.0.1:{port}")
        self.client().expect_end()
        (server,) = self.upstream.servers
        self.assertEqual((0, 0, False), (server.fails, server.failures, server.failed))

    def test_timeout(self) -> None:
        """The larger of C{send} and C{read} is how long both may be silent."""

        def call(b: Any) -> None:
            b.set_timeouts(send=1, read=2)

        backend = self.backend()
        self.hooked(call, f"127.0.0.1:{backend.port}")
        client = self.client()
        self.accept(backend)
        self.pump.settle()
        self.pump.advance(1.5)
        self.pump.settle()
        self.assertEqual(1, self.listener.active)
        self.pump.advance(0.5 + 2 * TICK)
        client.expect_end()

    def test_waits(self) -> None:
        """A hook that waits holds up its own connection; the listener's end cancels it."""
        waits: list[Deferred[None]] = []
        cancelled: list[int] = []

        async def call(b: Any) -> None:
            waits.append(Deferred())
            try:
                await waits[-1]
            except CancelledError:
                cancelled.append(1)
                raise

        backend = self.backend()
        self.hooked(call, f"127.0.0.1:{backend.port}")
        first = self.client()
        first.send(b"hello")
        self.pump.settle()
        second = self.client()
        self.pump.settle()
        waits[0].callback(None)
        self.accept(backend).expect(b"hello")
        self.listener.abort_all()
        second.expect_end()
        self.assertEqual([1], cancelled)

    def wished(self, upstream: StrictUpstream) -> str:
        """Where a place is wanted."""
        wishes: list[Wish] = []

        def look() -> bool:
            wishes.extend(upstream.turn())
            return bool(wishes)

        self.pump.until(look)
        return wishes[0].address

    def test_full_over_all_nodes(self) -> None:
        """Where the store has no place on the hook's server, that is as if it had refused."""
        heard: list[Any] = []
        one, two = self.backend(), self.backend()

        def call(b: Any) -> None:
            heard.append(b.get_last_failure())
            b.set_current_peer("127.0.0.1", (one, two)[b.attempt - 1].port)
            b.set_more_tries(2 - b.attempt)

        keys = [f"127.0.0.1:{backend.port}" for backend in (one, two)]
        self.hooked(call, *keys, max_conns=1, strict=True)
        upstream = self.upstream
        assert isinstance(upstream, StrictUpstream)
        upstream.near()
        client = self.client()
        client.send(b"hello")
        for key, count in zip(keys, (0, 1), strict=True):
            self.assertEqual(key, self.wished(upstream))
            upstream.granted(Granted(counts=(count,), totals={key: 1}))
        self.accept(two).expect(b"hello")
        self.assertEqual([None, ("failed", 0)], heard)
        self.assertEqual([0, 1], [server.held for server in upstream.servers])

    async def ponder(self, b: Any) -> None:
        try:
            await Deferred()
        except CancelledError:
            self.cancelled += 1
            raise

    def waiting(self, **options: Any) -> Peer:
        """A client whose hook waits."""
        self.cancelled = 0
        self.hooked(self.ponder, "127.0.0.1:1", **options)
        client = self.client()
        self.pump.until(lambda: self.listener.active == 1)
        self.out = io.StringIO()
        log = StreamLog("tcp:1", self.out, lambda: 0.0, self.pump.seconds)
        self.listener.access_log = log
        for session in self.listener.sessions:
            assert isinstance(session, Session)
            session.attempts = []
        return client

    def logged(self) -> tuple[int, str]:
        """The only line of the access log."""
        [line] = self.out.getvalue().splitlines()
        entry = json.loads(line)
        return entry["status"], entry["reason"]

    def test_client_leaves(self) -> None:
        """A hook that waits is cancelled when the client closes its connection, or resets it."""
        for leave in (Peer.close, Peer.abort):
            client = self.waiting()
            self.pump.advance(2 * LOOK)
            self.assertEqual((0, 1), (self.cancelled, self.listener.active))
            leave(client)
            self.pump.settle()
            self.pump.advance(LOOK + 2 * TICK)
            self.pump.settle()
            self.assertEqual((1, 0), (self.cancelled, self.listener.active))
            self.assertEqual((499, "the client left"), self.logged())

    def test_client_has_said_all(self) -> None:
        """Who has asked something and ends waits for the answer; not without C{half_close}."""
        for half_close in (True, False):
            client = self.waiting(half_close=half_close)
            client.send(b"hello")
            client.end()
            self.pump.settle()
            self.pump.advance(3 * LOOK)
            self.pump.settle()
            self.assertEqual(not half_close, bool(self.cancelled))
            self.assertEqual(half_close, bool(self.listener.active))
            self.listener.abort_all()

    def test_too_long(self) -> None:
        """A hook that waits longer than it may is cancelled, and the client closed."""
        client = self.waiting()
        for _ in range(99):
            self.pump.advance(0.1)
        self.assertEqual(0, self.cancelled)
        self.pump.advance(0.1)
        self.pump.advance(2 * TICK)
        client.expect_end()
        self.assertEqual((1, 1), (self.cancelled, self.listener.refused))
        said = "the balancer hook did not decide within 10 s"
        self.assertEqual((504, said), self.logged())

    def test_without_end(self) -> None:
        """Attempts that never end leave others their turn."""
        calls: list[int] = []

        def call(b: Any) -> None:
            calls.append(1)
            if len(calls) < 100:
                # Refused at once, without a turn of the reactor.
                b.set_current_peer("unix:/nowhere/at/all")
                b.set_more_tries(1)

        backend = self.backend()
        self.hooked(call, f"127.0.0.1:{backend.port}")
        client = self.client()
        client.send(b"hello")
        self.accept(backend).expect(b"hello")
        self.assertEqual(100, len(calls))


class HookTransportTests(HookTests):
    """The same for clients that come by Twisted's transports."""

    transports = True
