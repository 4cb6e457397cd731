"""Tests of single health checks over real sockets."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.error import UnknownHostError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.health.judge import Finding
from dynbalance.health.probe import Approach, Probe
from dynbalance.health.questions import HttpQuestion, Question, TcpQuestion
from dynbalance.net import dial
from dynbalance.net.direct import carrier
from dynbalance.net.names import Names
from dynbalance.net.reach import Reach

reactor: Any = installed
GET = HttpQuestion("/health", "", "200-299")
PING = TcpQuestion("PING\r\n", "+PONG")


class Talker(Protocol):
    """A server that does with each connection what the test says."""

    factory: Talkers

    def connectionMade(self) -> None:
        self.factory.here.add(self)
        if self.factory.greet is not None:
            self.factory.greet(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data
        if self.factory.answer is not None:
            self.factory.answer(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.here.discard(self)


class Talkers(Factory):
    """Its connections, and all that they heard."""

    protocol = Talker
    noisy = False

    def __init__(
        self,
        answer: Callable[[Talker], None] | None,
        greet: Callable[[Talker], None] | None = None,
    ) -> None:
        self.answer = answer
        self.greet = greet
        self.heard = b""
        self.here: set[Talker] = set()


def _say(data: bytes) -> Callable[[Talker], None]:
    return lambda talker: talker.transport.write(data)


class ProbeTests(TestCase):
    """Each with a server of its own."""

    def setUp(self) -> None:
        self.hub = carrier(reactor)
        self.addCleanup(self.hub.close)

    def serve(self, talkers: Talkers) -> str:
        port = reactor.listenTCP(0, talkers, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    def way(self, timeout: float = 5.0, names: Any = None, reach: Reach | None = None) -> Approach:
        return Approach(
            hub=self.hub,
            names=names or Names(reactor, reactor),
            clock=reactor,
            timeout=timeout,
            reach=reach or Reach(),
        )

    def check(self, question: Question, key: str, way: Approach | None = None) -> Deferred[Finding]:
        found: Deferred[Finding] = Deferred()
        Probe(way or self.way(), question, Address.parse(key), key, found.callback).start()
        return found

    async def all_gone(self, talkers: Talkers) -> None:
        """The check has closed its connection."""
        for _ in range(500):
            if not talkers.here:
                return
            await deferLater(reactor, 0.01)
        raise AssertionError("a connection is left")

    async def test_good(self) -> None:
        """A good answer is one, even while the server keeps the connection open."""
        talkers = Talkers(_say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"))
        key = self.serve(talkers)
        self.assertEqual(Finding(), await self.check(GET, key))
        self.assertTrue(talkers.heard.startswith(b"GET /health HTTP/1.1\r\nHost: " + key.encode()))
        await self.all_gone(talkers)

    async def test_bad(self) -> None:
        """A bad answer is one."""
        talkers = Talkers(_say(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"))
        self.assertEqual(Finding("status 503"), await self.check(GET, self.serve(talkers)))
        await self.all_gone(talkers)

    async def test_pieces(self) -> None:
        """The answer may come in pieces."""

        def answer(talker: Talker) -> None:
            talker.transport.write(b"+PO")
            reactor.callLater(0.02, talker.transport.write, b"NG\r\n")

        self.assertEqual(Finding(), await self.check(PING, self.serve(Talkers(answer))))

    async def test_refused(self) -> None:
        """Nobody listens."""
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            key = f"127.0.0.1:{nobody.getsockname()[1]}"
            finding = await self.check(GET, key)
        self.assertIn("connect failed", finding.cause)
        self.assertIn("refused", finding.cause)

    async def test_no_descriptor_left(self) -> None:
        """Nobody can be asked, which says nothing of the server."""
        self.patch(dial, "below_for_traffic", lambda: 0)
        finding = await self.check(GET, "127.0.0.1:1")
        self.assertFalse(finding.of_server)

    async def test_silent(self) -> None:
        """A server that says nothing is bad after the timeout, and is left."""
        talkers = Talkers(None)
        finding = await self.check(GET, self.serve(talkers), self.way(0.1))
        self.assertEqual(Finding("timed out after 0.1 s"), finding)
        await self.all_gone(talkers)

    async def test_dribble(self) -> None:
        """The timeout is for all of the answer: words in between do not prolong it."""

        def dribble(talker: Talker) -> None:
            if talker in talkers.here:
                talker.transport.write(b"x")
                reactor.callLater(0.02, dribble, talker)

        talkers = Talkers(dribble)
        finding = await self.check(PING, self.serve(talkers), self.way(0.2))
        self.assertEqual(Finding("timed out after 0.2 s"), finding)
        await self.all_gone(talkers)
        # The last call of dribble.
        await deferLater(reactor, 0.05)

    async def test_closes(self) -> None:
        """A server that hangs up has not answered."""
        talkers = Talkers(lambda talker: talker.transport.loseConnection())
        key = self.serve(talkers)
        self.assertEqual(Finding("closed before it answered"), await self.check(GET, key))

    async def test_flood(self) -> None:
        """An answer without end is not read on."""
        talkers = Talkers(_say(b"x" * 10_000_000))
        finding = await self.check(PING, self.serve(talkers))
        self.assertIn("unexpected answer", finding.cause)
        await self.all_gone(talkers)

    async def test_unix(self) -> None:
        """A server behind a unix socket is one like any other."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "s")
            port = reactor.listenUNIX(path, Talkers(_say(b"+PONG\r\n")))
            self.assertEqual(Finding(), await self.check(PING, f"unix:{path}"))
            await port.stopListening()

    async def test_unknown_name(self) -> None:
        """A name that nobody knows is a bad answer."""

        class Nobody:
            def target(self, address: Address) -> Deferred[Any]:
                return fail(UnknownHostError("nobody.example"))

        finding = await self.check(GET, "nobody.example:80", self.way(names=Nobody()))
        self.assertIn("name lookup failed", finding.cause)

    async def test_slow_name(self) -> None:
        """The timeout covers the name, too."""

        class Slow:
            def target(self, address: Address) -> Deferred[Any]:
                return Deferred()

        finding = await self.check(GET, "slow.example:80", self.way(0.05, names=Slow()))
        self.assertEqual("timed out after 0.05 s", finding.cause)

    async def test_proxy_header(self) -> None:
        """Servers that expect a PROXY header get one, of nobody."""
        talkers = Talkers(_say(b"+PONG\r\n"))
        finding = await self.check(PING, self.serve(talkers), self.way(reach=Reach(1)))
        self.assertEqual(Finding(), finding)
        self.assertEqual(b"PROXY UNKNOWN\r\nPING\r\n", talkers.heard)
        await self.all_gone(talkers)

    async def test_cancel(self) -> None:
        """A check that is given up says nothing, and leaves nothing."""
        talkers = Talkers(None)
        found: list[Finding] = []
        key = self.serve(talkers)
        probe = Probe(self.way(), PING, Address.parse(key), key, found.append)
        probe.start()
        for _ in range(500):
            if talkers.heard:
                break
            await deferLater(reactor, 0.01)
        probe.cancel()
        await self.all_gone(talkers)
        early = Probe(self.way(), PING, Address.parse(key), key, found.append)
        early.start()
        early.cancel()
        self.assertEqual([], found)

    async def test_many(self) -> None:
        """Checks do not disturb each other."""
        key = self.serve(Talkers(_say(b"+PONG\r\n")))
        found = await gatherResults([self.check(PING, key) for _ in range(50)])
        self.assertEqual([Finding()] * 50, found)
