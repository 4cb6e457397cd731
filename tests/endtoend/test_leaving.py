"""
What is left of clients that have left: nothing.

C{python -m bench.memory} has ten times as many.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.endtoend.certificates import TlsCase, listener_tls
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import BOUND, LOOPBACK, EndToEndCase, wait_until
from tests.endtoend.holdings import Holdings
from tests.endtoend.servers import Nginx
from tests.net.authority import client_context

MIB = 1 << 20
ROUND = 50
"""Clients at once."""

PIPES = 150
"""Descriptors of pipes that are kept for the next ones."""

SMALL = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
BIG = b"GET /files/big HTTP/1.1\r\nHost: a.example\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00"
"""The beginning of TLS."""

_RESET = struct.pack("ii", 1, 0)

Connect = Callable[[], socket.socket]
Leave = Callable[[socket.socket], None]


def to_the_end(client: socket.socket) -> None:
    """The client hears all."""
    while client.recv(65536):
        pass


def at_once(client: socket.socket) -> None:
    """The client hears nothing."""


def in_the_middle(client: socket.socket) -> None:
    """The client hears a little, and its machine resets the connection."""
    client.recv(1024)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def three_streams(abandoned: bool) -> bytes:
    """
    Requests of one client of HTTP/2.

    @param abandoned: whether it takes them back.
    """
    client = H2Connection(H2Configuration(header_encoding="ascii"))
    client.initiate_connection()
    fields = [(":method", "GET"), (":path", "/files/big")]
    fields += [(":scheme", "https"), (":authority", "a.example")]
    for stream in (1, 3, 5):
        client.send_headers(stream, fields, end_stream=True)
        if abandoned:
            client.reset_stream(stream)
    return bytes(client.data_to_send())


class LeavingCase(EndToEndCase):
    """
    A daemon before an nginx that has a big file.

    @ivar more: TOML of the daemon's.
    """

    more = ""

    def setUp(self) -> None:
        files = self.directory("files")
        with open(os.path.join(files, "big"), "wb") as big:
            big.truncate(64 * MIB)
        self.daemon = Daemon(
            self,
            servers=f'[{{ address = "{Nginx(self, "one", files).address}" }}]',
            upstream={"max_idle_time": 0.5},
            more=self.more,
        )

    def come(self, connect: Connect, words: bytes, leave: Leave, number: int) -> None:
        """So many clients come, say something and leave."""
        for _ in range(number // ROUND):
            clients = [connect() for _ in range(ROUND)]
            for client in clients:
                client.sendall(words)
            for client in clients:
                with client:
                    leave(client)

    def come_and_go(self, number: int) -> None:
        """So many in each of the ways."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until nobody is served."""
        nothing = dict.fromkeys(self.daemon.status(), 0)
        wait_until(lambda: self.daemon.counts() == nothing, "all counts to be 0")

    def assert_nothing_left(self, number: int) -> None:
        """No objects, timers and descriptors, and hardly any memory."""
        self.come_and_go(2 * ROUND)
        self.settle()
        before = Holdings.of(self.daemon)
        self.come_and_go(number)
        self.settle()
        # Connections to the server are kept for half a second.
        end = time.monotonic() + BOUND
        while more := Holdings.of(self.daemon).beyond(before, PIPES, 16 * MIB):
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        self.assertEqual([], more)


class LeavingTests(LeavingCase):
    """Clients without TLS."""

    def plain(self, port: int) -> Connect:
        return lambda: socket.create_connection((LOOPBACK, port), BOUND)

    def come_and_go(self, number: int) -> None:
        http, stream = self.plain(self.daemon.http), self.plain(self.daemon.stream)
        self.come(http, SMALL, to_the_end, number)
        self.come(http, SMALL[:-5], at_once, number)
        self.come(http, BIG, in_the_middle, number)
        self.come(stream, SMALL, to_the_end, number)
        self.come(stream, BIG, in_the_middle, number)

    def test_leaving(self) -> None:
        """Nothing is left of ten thousand."""
        self.assert_nothing_left(2000)


class LeavingByTlsTests(LeavingCase, TlsCase):
    """Clients with TLS, of HTTP/1.1, of HTTP/2 and of streams."""

    def setUp(self) -> None:
        TlsCase.setUp(self)
        self.more = listener_tls("stream", self.pair) + listener_tls("http", self.pair)
        LeavingCase.setUp(self)

    def by_tls(self, port: int, protocol: str) -> Connect:
        context = client_context(self.authority.file, alpn=[protocol])

        def connect() -> ssl.SSLSocket:
            plain = socket.create_connection((LOOPBACK, port), BOUND)
            return context.wrap_socket(plain, server_hostname="a.example")

        return connect

    def come_and_go(self, number: int) -> None:
        stream = self.by_tls(self.daemon.stream, "http/1.1")
        self.come(stream, SMALL, to_the_end, number)
        self.come(stream, BIG, in_the_middle, number)
        http = self.by_tls(self.daemon.http, "http/1.1")
        self.come(http, SMALL, to_the_end, number)
        self.come(http, SMALL[:-5], at_once, number)
        self.come(http, BIG, in_the_middle, number)
        http2 = self.by_tls(self.daemon.http, "h2")
        self.come(http2, three_streams(abandoned=False), in_the_middle, number)
        self.come(http2, three_streams(abandoned=True), in_the_middle, number)
        self.come(self.plain, HELLO, at_once, number)

    def plain(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.daemon.http), BOUND)

    def test_leaving(self) -> None:
        """Nothing is left of sixteen hundred."""
        self.assert_nothing_left(200)
