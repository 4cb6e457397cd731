"""
How the daemon ends: in order, cut short, and never half.
"""

from __future__ import annotations

import signal
import socket
import threading
import time

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Reply, accepts, ask, wait_until
from tests.endtoend.servers import Backend, Redis


class Asking:
    """
    A request in a thread.

    @ivar reply: once it is there.
    @ivar failed: why it will not come.
    """

    def __init__(self, port: int, target: str) -> None:
        self.reply: Reply | None = None
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._ask, args=(port, target))
        self._thread.start()

    def _ask(self, port: int, target: str) -> None:
        try:
            self.reply = ask(port, target)
        except Exception as failed:  # noqa: BLE001 - told in place of the reply
            self.failed = failed

    def wait(self) -> None:
        self._thread.join(30)


class EndingTests(EndToEndCase):
    """TERM while requests and connections are under way."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.backend = Backend(self)

    def begin(self, shutdown_timeout: float) -> None:
        """Start a daemon with one held request, one stream, and an idle client."""
        self.daemon = Daemon(self, self.redis.url, root={"shutdown_timeout": shutdown_timeout})
        self.daemon.add(self.backend.port)
        self.idle = socket.create_connection((LOOPBACK, self.daemon.http), 20)
        self.addCleanup(self.idle.close)
        self.stream = socket.create_connection((LOOPBACK, self.daemon.stream), 20)
        self.addCleanup(self.stream.close)
        self.stream.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        self.held = Asking(self.daemon.http, "/held")
        self.addCleanup(self.held.wait)
        wait_until(lambda: self.backend.told("/waiting") == 1, "the held request")
        wait_until(lambda: self.counted(2), "both to be published")

    def counted(self, number: int) -> bool:
        return self.redis.counts() == {self.backend.address: number}

    def order_the_end(self, number: int = signal.SIGTERM) -> None:
        self.daemon.process.signal(number)
        wait_until(lambda: not accepts(self.daemon.http), "the HTTP port to be closed")
        wait_until(lambda: not accepts(self.daemon.stream), "the TCP port to be closed")

    def finish(self) -> None:
        """Let what is in flight come to its end."""
        self.backend.told("/release")
        self.held.wait()
        assert self.held.reply, self.held.failed
        self.assertEqual(200, self.held.reply.status)
        self.stream.sendall(b"cd")
        self.assertIn(b"\r\n\r\nabcd", self.stream.recv(4096))
        self.stream.close()

    def test_in_order(self) -> None:
        """New connections are refused, what is in flight finishes, the status is 0."""
        self.begin(20.0)
        self.order_the_end()
        self.assertEqual(b"", self.idle.recv(1))
        # The admin API tells until the end.
        self.assertEqual({self.backend.address: 2}, self.daemon.counts())
        self.assertFalse(self.daemon.process.ended)
        self.finish()
        self.assertEqual(0, self.daemon.process.wait(5))
        self.assertTrue(self.counted(0))
        self.assertEqual("", self.redis("ZRANGE", "upstream:nodes", "0", "-1"))
        self.assertFalse(accepts(self.daemon.admin))

    def test_by_interrupt(self) -> None:
        """INT does the same."""
        self.begin(20.0)
        self.order_the_end(signal.SIGINT)
        self.finish()
        self.assertEqual(0, self.daemon.process.wait(5))

    def test_hang_up(self) -> None:
        """HUP ends nothing, and what is under way then still ends in order."""
        self.begin(20.0)
        self.daemon.reload()
        self.assertEqual(200, ask(self.daemon.http, "/").status)
        self.order_the_end()
        self.finish()

    def test_last_answer_says_so(self) -> None:
        """A kept connection's last answer tells the client that it is the last."""
        self.begin(20.0)
        self.order_the_end()
        self.finish()
        assert self.held.reply
        self.assertEqual("close", self.held.reply.headers["connection"])

    def test_second_signal(self) -> None:
        """A second TERM cuts what is in flight."""
        self.begin(20.0)
        self.order_the_end()
        began = time.monotonic()
        self.daemon.process.signal(signal.SIGTERM)
        self.assertEqual(0, self.daemon.process.wait(5))
        self.assertLess(time.monotonic() - began, 5)
        self.held.wait()
        self.assertIsNotNone(self.held.failed)
        self.assertTrue(self.counted(0))

    def test_timeout(self) -> None:
        """What is still in flight after shutdown_timeout is cut."""
        self.begin(1.0)
        began = time.monotonic()
        self.order_the_end()
        self.assertEqual(0, self.daemon.process.wait(6))
        self.assertGreater(time.monotonic() - began, 0.9)
        self.held.wait()
        self.assertIsNotNone(self.held.failed)
        self.assertTrue(self.counted(0))

    def test_at_once(self) -> None:
        """With nothing in flight it does not wait."""
        daemon = Daemon(self, self.redis.url)
        began = time.monotonic()
        self.assertEqual(0, daemon.process.stop())
        self.assertLess(time.monotonic() - began, 3)
        self.assertNotIn("Traceback", daemon.process.log())
        self.assertIn("dynbalance has ended", daemon.process.log())


class NodesTests(EndToEndCase):
    """Two daemons over one Redis."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.left, self.right = (
            Daemon(self, self.redis.url, name, keeping={"lease": 1.0})
            for name in ("left", "right")
        )
        self.backend = Backend(self)

    def hold(self, daemon: Daemon, number: int) -> None:
        """Have requests held through one of them."""
        before = self.backend.told("/waiting")
        for _ in range(number):
            self.addCleanup(Asking(daemon.http, "/held").wait)
        wait_until(lambda: self.backend.told("/waiting") == before + number, "held requests")
        self.addCleanup(self.backend.told, "/release")

    def test_members(self) -> None:
        """What one is told both know within a second."""
        self.left.add(self.backend.port)
        wait_until(lambda: ask(self.right.http).status == 200, "the other to know", 1.0)
        self.right.call("toggle", host=LOOPBACK, port=self.backend.port, action="disable")
        wait_until(lambda: ask(self.left.http).status == 502, "the other to know", 1.0)

    def test_counts(self) -> None:
        """Each counts what both hold, and chooses by it."""
        self.left.add(self.backend.port)
        wait_until(lambda: self.right.counts() == {self.backend.address: 0}, "the server")
        self.hold(self.left, 3)
        self.hold(self.right, 2)
        both = {self.backend.address: 5}
        for daemon in (self.left, self.right):
            wait_until(lambda d=daemon: d.counts() == both, "both to count both")
        self.assertEqual(3, self.left.status()[self.backend.address]["node_connections"])
        self.assertEqual(both, self.redis.counts())
        idle = Backend(self, "idle")
        self.right.add(idle.port)
        for _ in range(10):
            self.assertEqual(b"idle", ask(self.right.http).body)
        wait_until(lambda: ask(self.left.http).body == b"idle", "the other to know it")
        for _ in range(10):
            self.assertEqual(b"idle", ask(self.left.http).body)

    def test_max_conns(self) -> None:
        """A server that one has filled is full for the other."""
        self.left.add(self.backend.port, max_conns=2)
        wait_until(lambda: ask(self.right.http).status == 200, "the other to know")
        self.hold(self.left, 2)
        wait_until(lambda: ask(self.right.http).status == 502, "it to be full")

    def test_killed(self) -> None:
        """The counts of one that dies are gone after its lease."""
        self.left.add(self.backend.port)
        wait_until(lambda: self.right.counts() == {self.backend.address: 0}, "the server")
        self.hold(self.left, 3)
        wait_until(lambda: self.right.counts() == {self.backend.address: 3}, "them to be counted")
        self.left.process.kill()
        nothing = {self.backend.address: 0}
        wait_until(lambda: self.redis.counts() == nothing, "them to be given back", 4.0)
        self.assertEqual(nothing, self.right.counts())
        self.assertEqual("right", self.redis("ZRANGE", "upstream:nodes", "0", "-1"))

    def test_ended(self) -> None:
        """The counts of one that ends in order are gone with it, and its members stay."""
        self.left.add(self.backend.port)
        wait_until(lambda: self.right.counts() == {self.backend.address: 0}, "the server")
        self.hold(self.left, 3)
        wait_until(lambda: self.right.counts() == {self.backend.address: 3}, "them to be counted")
        self.left.process.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.left.http), "the end to begin")
        self.left.process.signal(signal.SIGTERM)
        self.assertEqual(0, self.left.process.wait())
        self.assertEqual({self.backend.address: 0}, self.right.counts())
        self.assertEqual(200, ask(self.right.http).status)

    def test_reset(self) -> None:
        """What was written into the ZSET by hand gives way to what the nodes hold."""
        self.left.add(self.backend.port)
        wait_until(lambda: self.right.counts() == {self.backend.address: 0}, "the server")
        self.hold(self.left, 2)
        wait_until(lambda: self.redis.counts() == {self.backend.address: 2}, "both")
        self.redis("ZADD", "upstream:servers:zset", "77", self.backend.address)
        answer = self.right.call("reset")
        self.assertEqual("All connection counts reset to zero", answer["message"])
        wait_until(lambda: self.redis.counts() == {self.backend.address: 2}, "what is held")
        self.backend.told("/release")
        wait_until(lambda: self.redis.counts() == {self.backend.address: 0}, "nothing")
