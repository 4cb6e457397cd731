"""
Where a stream's connections are led, and what of it is written down.
"""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.net.dial import place_of
from dynbalance.net.proxyprotocol import header
from dynbalance.net.reach import Reach
from dynbalance.stream.accesslog import StreamLog
from dynbalance.stream.options import Destination, SniRoutes, StreamOptions
from tests.net.pump import unused_port
from tests.stream.building import StreamCase


class SniRoutesTests(SynchronousTestCase):
    """L{SniRoutes}."""

    def test_find(self) -> None:
        """The name itself is best, then the longest suffix; a final dot means nothing."""
        balancer = Balancer([UpstreamOrder(name="u")], lambda: 0.0, lambda: 0.5)
        ways = {
            name: Destination(balancer.upstream("u"), StreamOptions(timeout=number))
            for number, name in enumerate(("a.b", "*.b", "*.c.b", "rest"))
        }
        rest = ways.pop("rest")
        routes = SniRoutes(ways, rest)
        cases = {
            "a.b": "a.b", "a.b.": "a.b", "x.b": "*.b", "x.y.b": "*.b", "x.c.b": "*.c.b",
            "c.b": "*.b",
        }  # fmt: skip
        for name, way in cases.items():
            self.assertIs(ways[way], routes.find(name), name)
        for name in ("", "b", "ab", "x.bb", "a.b.c"):
            self.assertIs(rest, routes.find(name), name)


class PlaceTests(SynchronousTestCase):
    """L{place_of}."""

    def test_families(self) -> None:
        """An address as the kernel has it becomes one of Twisted's."""
        self.assertEqual(("1.2.3.4", 5), _pair(place_of(("1.2.3.4", 5))))
        self.assertEqual(("::1", 5), _pair(place_of(("::1", 5, 0, 0))))
        self.assertEqual(b"/x", place_of(b"/x").name)
        self.assertIsNone(place_of("").name)


class ListenerTests(StreamCase):
    """What a listener adds to its sessions."""

    def logging(self) -> None:
        self.out = io.StringIO()
        self.listener.access_log = StreamLog("tcp:1", self.out, lambda: 0.0, self.pump.seconds)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def test_header(self) -> None:
        """The server hears of the client first, and anew from each that is tried."""
        backend = self.backend()
        self.listen(
            f"127.0.0.1:{unused_port()}", f"127.0.0.1:{backend.port}", reach=Reach(1)
        )
        client = self.client()
        server = self.accept(backend)
        here, there = client.skt.getsockname(), client.skt.getpeername()
        server.expect(header(1, place_of(here), place_of(there)))
        client.send(b"hello")
        server.expect(b"hello")

    def test_log(self) -> None:
        """A line for each connection, with what was tried and what was moved."""
        backend = self.backend()
        dead = f"127.0.0.1:{unused_port()}"
        self.listen(dead, f"127.0.0.1:{backend.port}")
        self.logging()
        client = self.client()
        server = self.accept(backend)
        client.send(b"hello")
        server.expect(b"hello")
        server.send(b"bye")
        client.expect(b"bye")
        client.close()
        server.expect_end()
        server.close()
        self.pump.until(self.out.getvalue)
        [line] = self.logged()
        self.assertEqual("1970-01-01T00:00:00+00:00", line["time"])
        self.assertEqual(("tcp:1", "127.0.0.1", 200), (
            line["listener"], line["client"], line["status"]
        ))
        self.assertEqual((5, 3, "u"), (line["bytes_in"], line["bytes_out"], line["upstream"]))
        first, second = line["attempts"]
        self.assertEqual((dead, None), (first["server"], first["connect"]))
        self.assertIn("refused", first["cause"])
        self.assertEqual("", second["cause"])
        self.assertIsNotNone(second["connect"])

    def test_too_many(self) -> None:
        """Who is one too many has a line, too."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{backend.port}", max_connections=1)
        self.logging()
        self.client()
        self.accept(backend)
        self.client()
        self.pump.until(self.out.getvalue)
        self.assertEqual([503], [line["status"] for line in self.logged()])


class ListenerOverTransportsTests(ListenerTests):
    """The same over Twisted's transports."""

    transports = True


def _pair(place: Any) -> tuple[str, int]:
    return place.host, place.port
