"""
What the daemon needs for bodies that nobody takes, and for clients that say nothing.

C{python -m bench.memory} is the same at length.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from dynbalance.invariants import VARIABLE
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import (
    BOUND,
    LOOPBACK,
    EndToEndCase,
    all_descriptors,
    ask,
    wait_until,
)
from tests.endtoend.servers import Nginx

MIB = 1 << 20
SIZE = 256 * MIB
PART = 65536
CHUNK = b"%x\r\n%s\r\n" % (PART, bytes(PART))

class Pouring:
    """
    Sends bytes from a thread of its own, with or without a length.

    @ivar sent: bytes so far.
    """

    def __init__(self, client: socket.socket, part: bytes) -> None:
        self._client = client
        self._part = part
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(SIZE // PART):
                self._client.sendall(self._part)
                self.sent += PART
            if self._part is CHUNK:
                self._client.sendall(b"0\r\n\r\n")

    def until_stuck(self) -> None:
        """Wait until nothing more is taken."""
        seen, since = -1, time.monotonic()

        def stuck() -> bool:
            nonlocal seen, since
            if self.sent != seen:
                seen, since = self.sent, time.monotonic()
            return bool(seen) and time.monotonic() > since + 0.4

        wait_until(stuck, "the bytes to stop")


def drink(client: socket.socket, end: bytes) -> int:
    """
    Take all that comes, with a pause in each MiB.

    @param end: the last bytes; none of a body that has a length.
    @return: how much it was.
    """
    got, last, paused = 0, b"", 0
    while not (got >= SIZE and last.endswith(end)):
        data = client.recv(MIB)
        if not data:
            break
        got += len(data)
        last = (last + data)[-8:]
        if got // MIB > paused:
            paused = got // MIB
            time.sleep(0.003)
    return got


class BodyTests(EndToEndCase):
    """A quarter of a gigabyte for someone who takes nothing at first, and then little."""

    def setUp(self) -> None:
        self.listening = socket.create_server((LOOPBACK, 0))
        self.addCleanup(self.listening.close)
        self.listening.settimeout(BOUND)
        port = self.listening.getsockname()[1]
        self.daemon = Daemon(self, servers=f'[{{ address = "{LOOPBACK}:{port}" }}]')
        self.idle = self.daemon.process.memory()

    def pair(self, port: int, request: bytes) -> tuple[socket.socket, socket.socket]:
        """
        A client that has said something, and the server that has heard it.
        """
        client = socket.create_connection((LOOPBACK, port), BOUND)
        self.addCleanup(client.close)
        client.sendall(request)
        server, _ = self.listening.accept()
        self.addCleanup(server.close)
        server.settimeout(BOUND)
        heard = b""
        while not heard.endswith(b"\r\n\r\n"):
            heard += server.recv(65536)
        return client, server

    def assert_flat(self, source: socket.socket, sink: socket.socket, part: bytes) -> None:
        """All of it arrives, and hardly any of it is ever in the daemon."""
        end = b"0\r\n\r\n" if part is CHUNK else b""
        pouring = Pouring(source, part)
        pouring.until_stuck()
        # What the kernel takes for four sockets and a pipe.
        self.assertLess(pouring.sent, SIZE // 2)
        self.assertGreaterEqual(drink(sink, end), SIZE)
        self.assertEqual(SIZE, pouring.sent)
        grown = self.daemon.process.memory("VmHWM") - self.idle
        self.assertLess(grown, 32 * MIB, f"grew by {grown // MIB} MiB")

    def test_http_down(self) -> None:
        """From a server to a client, with a length and without one."""
        for field, part in (
            (b"Content-Length: %d" % SIZE, bytes(PART)),
            (b"Transfer-Encoding: chunked", CHUNK),
        ):
            request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            client, server = self.pair(self.daemon.http, request)
            server.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % field)
            self.assert_flat(server, client, part)
            client.close()
            server.close()

    def test_http_up(self) -> None:
        """From a client to a server, likewise."""
        for field, part in (
            (b"Content-Length: %d" % SIZE, bytes(PART)),
            (b"Transfer-Encoding: chunked", CHUNK),
        ):
            request = b"PUT / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % field
            client, server = self.pair(self.daemon.http, request)
            self.assert_flat(client, server, part)
            server.sendall(b"HTTP/1.1 204 Done\r\nConnection: close\r\n\r\n")
            self.assertIn(b" 204 ", client.recv(4096))
            client.close()
            server.close()

    def test_stream(self) -> None:
        """Over a stream, either way."""
        client, server = self.pair(self.daemon.stream, b"\r\n\r\n")
        self.assert_flat(server, client, bytes(PART))
        self.assert_flat(client, server, bytes(PART))


class IdleTests(EndToEndCase):
    """Two thousand clients at once."""

    NUMBER = 2000

    def test_idle(self) -> None:
        """One that says nothing, and one that waits after an answer, cost 4 KiB at most."""
        self.addCleanup(all_descriptors())
        server = Nginx(self, "one")
        daemon = Daemon(
            self,
            servers=f'[{{ address = "{server.address}" }}]',
            # Its looks take memory for each object.
            environment={VARIABLE: ""},
        )
        for _ in range(200):
            self.assertEqual(200, ask(daemon.http).status)
        process = daemon.process
        before, descriptors = process.memory(), process.descriptors()
        with contextlib.ExitStack() as crowd:
            clients = [
                crowd.enter_context(socket.create_connection((LOOPBACK, daemon.http), 30))
                for _ in range(self.NUMBER)
            ]
            # Those that have asked before may be leaving yet.
            many = descriptors + self.NUMBER - 8
            wait_until(lambda: process.descriptors() >= many, "all to be here")
            self.assertLess((process.memory() - before) / self.NUMBER, 4096)
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertIn(b" 200 ", client.recv(4096))
            self.assertLess((process.memory() - before) / self.NUMBER, 4096)
        # A few connections to the server may be kept.
        wait_until(lambda: process.descriptors() <= descriptors + 8, "all to be gone")
