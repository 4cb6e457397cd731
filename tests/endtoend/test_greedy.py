"""
Clients and servers that are slow, greedy, or lie about lengths.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.endtoend.crowd import BODY, HEAD, Crowd
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, all_descriptors, ask, wait_until
from tests.endtoend.load import Load
from tests.endtoend.servers import Backend

MIB = 1 << 20


class SlowClientTests(EndToEndCase):
    """Hundreds of clients that are slow in each way, and a few that are not."""

    def test_slow_clients(self) -> None:
        """
        Whoever is quick is served all the time; what the slow ones have asked for
        does not pile up in memory; when they leave, nothing is left of them.
        """
        self.addCleanup(all_descriptors())
        daemon, backend = Daemon(self), Backend(self)
        daemon.add(backend.port)
        for _ in range(20):
            self.assertEqual(200, ask(daemon.http).status)
        before = daemon.process.memory()
        crowd = Crowd(self, daemon.http)
        crowd.idle(1000)
        crowd.talk(100, HEAD)
        crowd.talk(50, BODY)
        crowd.ask(50, f"/flow/{16 * MIB}")
        wait_until(lambda: daemon.counts()[backend.address] >= 50, "the slow readers")
        load = Load(self, daemon.http)
        load.go_on(500)
        load.stop()
        self.assertEqual([], load.failures)
        self.assertEqual(0, crowd.lost)
        # 50 answers of 16 MiB wait, and 1200 clients are here.
        self.assertLess(daemon.process.memory("VmHWM") - before, 32 * MIB)
        crowd.leave()
        wait_until(lambda: daemon.counts() == {backend.address: 0}, "all counts to be 0")
        self.assertEqual(200, ask(daemon.http).status)

    def test_deadline(self) -> None:
        """A head that does not come in time is not waited for, byte after byte."""
        daemon = Daemon(self, http={"client_header_timeout": 0.5})
        crowd = Crowd(self, daemon.http)
        crowd.talk(20, HEAD)
        wait_until(lambda: crowd.lost == 20, "all of them to be closed")


class LyingServer:
    """
    Answers each connection's first request as it is told to.

    @ivar first: what it says at once.
    @ivar on: what it says for ever after that.
    @ivar said: how many bytes of it were taken.
    """

    def __init__(self, case: EndToEndCase) -> None:
        self.first = self.on = b""
        self.said = 0
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        case.addCleanup(self._end)

    def _end(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            client.settimeout(10)
            with client, contextlib.suppress(OSError):
                if not client.recv(65536):
                    continue
                client.sendall(self.first)
                while self.on:
                    client.sendall(self.on)
                    self.said += len(self.on)


class LyingServerTests(EndToEndCase):
    """Servers that say too much, too little, or too early."""

    def setUp(self) -> None:
        self.daemon = Daemon(self, upstream={"read_timeout": 5.0})
        self.server = LyingServer(self)
        self.daemon.add(self.server.port, max_fails=0)
        self.before = self.daemon.process.memory()

    def request(self) -> bytes:
        """All that the client gets, up to the connection's end."""
        got = b""
        with socket.create_connection((LOOPBACK, self.daemon.http), 30) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(65536):
                    got += data
        return got

    def assert_unharmed(self) -> None:
        """The memory is what it was, nothing is held, and good servers are served."""
        self.assertLess(self.daemon.process.memory("VmHWM") - self.before, 16 * MIB)
        nothing = dict.fromkeys(self.daemon.status(), 0)
        wait_until(lambda: self.daemon.counts() == nothing, "all counts to be 0")
        self.daemon.call("remove", host=LOOPBACK, port=self.server.port)
        good = Backend(self, "good")
        self.daemon.add(good.port)
        self.assertEqual(b"good", ask(self.daemon.http).body)

    def test_endless(self) -> None:
        """
        A head, a status line and informational answers that never end are given up;
        the client hears 502.
        """
        for first, on in (
            (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000),
            (b"HTTP/1.1 200 ", b"O" * 65536),
            (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000),
        ):
            self.server.said, self.server.first, self.server.on = 0, first, on
            for _ in range(3):
                self.assertIn(b"HTTP/1.1 502 ", self.request())
            self.assertLess(self.server.said, 64 * MIB)
        self.assert_unharmed()

    def test_lengths(self) -> None:
        """
        What follows a body of known length is nobody's answer; a body that ends
        early does so for the client, too, and looks like it.
        """
        self.server.first = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\nanother"
        )
        self.assertTrue(self.request().endswith(b"\r\n\r\nbody"))
        self.server.first = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nbody"
        got = self.request()
        self.assertIn(b"Content-Length: 400\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\nbody"))
        self.server.first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
        got = self.request()
        self.assertIn(b"4\r\nbody\r\n", got)
        self.assertNotIn(b"0\r\n\r\n", got)
        self.assert_unharmed()

    def test_early(self) -> None:
        """
        A server that answers and closes before it has the body: the client hears that
        answer, a 502, or nothing.
        """
        self.server.first = b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"
        statuses = set()
        for _ in range(4):
            with contextlib.suppress(ConnectionError):
                statuses.add(ask(self.daemon.http, "/", "PUT", bytes(8 * MIB)).status)
        self.assertLessEqual(statuses, {413, 502})
        self.assert_unharmed()
