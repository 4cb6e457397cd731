"""Tests of the admin site over real HTTP."""

from __future__ import annotations

import os
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from dynbalance.admin import site
from dynbalance.admin.api import BODY_LIMIT
from tests.admin.sitecase import SiteCase


class _Raw(Protocol):
    """
    A client that writes what it is told and keeps what it hears.

    @ivar closed: fires when the server has closed.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.closed: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        for text, deferred in self._waiting:
            if text in self.heard and not deferred.called:
                deferred.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.closed.callback(None)

    def hears(self, text: bytes) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self._waiting.append((text, deferred))
        self.dataReceived(b"")
        return deferred.addTimeout(10, reactor)


class SiteTests(SiteCase):
    async def head(self, *arguments: str) -> list[str]:
        """The status line and the header fields of an answer, in lower case."""
        text = await self.curl("-D", "-", "-o", "/dev/null", *arguments)
        return text.lower().splitlines()

    async def connect(self) -> _Raw:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listening)
        return await connectProtocol(endpoint, _Raw())

    async def test_round(self) -> None:
        """curl's plain forms add, beat, show and remove a server."""
        api = f"{self.url}/upstream"
        added = await self.curl("-X", "POST", f"{api}/add", "-d", "port=8080", "-d", "weight=1")
        self.assertIn('"addr":"127.0.0.1:8080"', added)
        self.assertEqual(self.keys(), ["127.0.0.1:8080"])
        beat = await self.curl("-X", "POST", f"{api}/refresh", "-d", "host=", "-d", "port=8080")
        self.assertIn('"message":"Heartbeat refreshed successfully"', beat)
        self.assertIn('"addr":"127.0.0.1:8080"', await self.curl(f"{api}/status"))
        removed = await self.curl("-X", "POST", f"{api}/remove", "-d", "port=8080")
        self.assertTrue(removed.startswith('{"code":200,'))
        self.assertEqual(self.keys(), [])

    async def test_what_the_seeds_script_greps(self) -> None:
        """The seed's pipes of grep and cut find code and message."""
        script = (
            'R=$(curl -s -X POST "$U/upstream/refresh" -d "host=$HOST" -d "port=80");'
            """ echo "$R" | grep -o '"code":[0-9]*' | cut -d: -f2;"""
            """ echo "$R" | grep -o '"message":"[^"]*"' | cut -d: -f2- | tr -d '"'"""
        )
        printed, _ = await self.run_program("bash", "-c", script, U=self.url, HOST="10.0.0.1")
        self.assertEqual(printed, "404\nServer not found: 10.0.0.1:80\n")

    async def test_status_lines(self) -> None:
        """The HTTP status is the envelope's code."""
        for target, code in (
            ("/upstream/status", 200),
            ("/upstream/status?upstream=x", 404),
            ("/upstream/status?x=y", 400),
            ("/nothing", 404),
            ("/healthz", 200),
            ("/readyz", 503),
        ):
            printed = await self.curl("-w", " %{http_code}", self.url + target)
            self.assertTrue(printed.startswith(f'{{"code":{code},'), printed)
            self.assertTrue(printed.endswith(f" {code}"), printed)

    async def test_method_not_allowed(self) -> None:
        """405 comes with Allow."""
        lines = await self.head(f"{self.url}/upstream/add")
        self.assertIn("405", lines[0])
        self.assertIn("allow: post", lines)
        lines = await self.head("-X", "DELETE", f"{self.url}/upstream/cleanup")
        self.assertIn("allow: get, head, post", lines)

    async def test_head(self) -> None:
        """HEAD has GET's length and no body."""
        get = await self.curl(f"{self.url}/upstream/health")
        raw = await self.connect()
        raw.transport.write(
            b"HEAD /upstream/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        await raw.closed
        head, _, body = raw.heard.partition(b"\r\n\r\n")
        self.assertIn(b"content-length: %d" % len(get), head.lower())
        self.assertEqual(body, b"")

    async def test_large_body_by_length(self) -> None:
        """A declared length above the limit is refused before any of it is sent."""
        raw = await self.connect()
        raw.transport.write(
            b"POST /upstream/add HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % (BODY_LIMIT + 1)
        )
        await raw.hears(b'"code":413')
        self.assertTrue(raw.heard.startswith(b"HTTP/1.1 413 "), raw.heard)
        self.assertNotIn(b"100 Continue", raw.heard)
        raw.transport.loseConnection()
        await raw.closed

    async def test_large_body_in_chunks(self) -> None:
        """A body of unknown length is refused where it passes the limit."""
        raw = await self.connect()
        raw.transport.write(
            b"POST /upstream/add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        raw.transport.write(chunk * 17)
        await raw.hears(b'"code":413')
        raw.transport.write(b"0\r\n\r\n")
        await raw.closed
        self.assertEqual(raw.heard.count(b"HTTP/1.1"), 1)

    async def test_large_body_sent_at_once(self) -> None:
        """A client that sends everything before it listens still hears the refusal."""
        descriptor, path = tempfile.mkstemp()
        self.addCleanup(os.remove, path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"host=" + b"x" * (8 * BODY_LIMIT))
        for more in ((), ("-H", "Transfer-Encoding: chunked")):
            printed = await self.curl(
                *("-w", " %{http_code}", "-H", "Expect:", "--data-binary", f"@{path}", *more),
                f"{self.url}/upstream/add",
            )
            self.assertIn('"code":413', printed)
        self.assertIn('"code":200', await self.curl(f"{self.url}/upstream/status"))

    async def test_refused_body_that_never_ends(self) -> None:
        """Who goes on sending after a refusal is cut off after a while."""
        self.patch(site, "LINGER", 0.2)
        raw = await self.connect()
        raw.transport.write(
            b"POST /upstream/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % 10**12
        )
        await raw.hears(b'"code":413')
        raw.transport.write(b"x")
        await raw.closed

    async def test_client_that_leaves(self) -> None:
        """An order of a client that did not wait is carried out."""
        self.store.slow = True
        raw = await self.connect()
        body = b"host=10.0.0.1&port=80"
        raw.transport.write(
            b"POST /upstream/add HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        while "add" not in self.store.calls:
            await _turn()
        raw.transport.abortConnection()
        await raw.closed
        await _turn()
        self.store.slow = False
        self.store.let_go()
        while not self.keys():
            await _turn()
        self.assertEqual(self.keys(), ["10.0.0.1:80"])

    async def test_kept_connection(self) -> None:
        """Two orders on one connection are answered in turn."""
        printed = await self.curl(
            *("-w", "%{num_connects}\n", f"{self.url}/healthz", f"{self.url}/healthz")
        )
        self.assertEqual(printed.count('"code":200'), 2)
        self.assertEqual([line[-1] for line in printed.splitlines()], ["1", "0"])


def _turn() -> Deferred[None]:
    """A short while on the real reactor."""
    turn: Deferred[None] = Deferred()
    reactor.callLater(0.01, turn.callback, None)
    return turn
