"""
Redis's own protocol through the TCP listener.
"""

from __future__ import annotations

import socket
import subprocess

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, program, run, wait_until
from tests.endtoend.servers import Redis

COMMANDS = 10_000


class RedisProtocolTests(EndToEndCase):
    """redis-cli on one side, redis-server on the other."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.daemon = Daemon(self, upstream={"retry_budget": 0.0})
        self.daemon.add(self.redis.port)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.redis.port}"

    def cli(self, *words: str, stdin: str | None = None) -> str:
        """redis-cli through dynbalance."""
        command = ("redis-cli", "-h", LOOPBACK, "-p", str(self.daemon.stream), *words)
        return run(*command, stdin=stdin).strip()

    def test_commands(self) -> None:
        """Questions are answered, and values come back as they were."""
        self.assertEqual("PONG", self.cli("PING"))
        value = "x" * 3_000_000
        self.assertEqual("OK", self.cli("-x", "SET", "large", stdin=value))
        self.assertEqual(value, self.cli("GET", "large"))
        self.assertEqual("3000000", self.redis("STRLEN", "large"))

    def test_pipeline(self) -> None:
        """Ten thousand commands in one go."""
        commands = "".join(f"SET key:{i} value:{i}\r\n" for i in range(COMMANDS))
        said = self.cli("--pipe", stdin=commands)
        self.assertIn(f"errors: 0, replies: {COMMANDS}", said)
        self.assertEqual(str(COMMANDS), self.redis("DBSIZE"))
        self.assertEqual("value:9999", self.redis("GET", "key:9999"))

    def test_subscription(self) -> None:
        """A server that speaks first is heard at once, and the connection is counted."""
        command = [program("redis-cli"), "-h", LOOPBACK, "-p", str(self.daemon.stream)]
        listening = subprocess.Popen(
            [*command, "SUBSCRIBE", "news"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(listening.wait, 10)
        self.addCleanup(listening.kill)
        assert listening.stdout
        self.addCleanup(listening.stdout.close)
        wait_until(lambda: self.redis("PUBSUB", "NUMSUB", "news").endswith("1"), "a subscriber")
        self.assertEqual({self.address: 1}, self.daemon.counts())
        self.assertEqual("1", self.cli("PUBLISH", "news", "hello"))
        heard = [listening.stdout.readline().strip() for _ in range(6)]
        self.assertEqual(["subscribe", "news", "1", "message", "news", "hello"], heard)
        listening.kill()
        wait_until(lambda: self.daemon.counts() == {self.address: 0}, "the count to be 0")

    def test_half_closed(self) -> None:
        """A client that has said all it has to say still gets its answers."""
        with socket.create_connection((LOOPBACK, self.daemon.stream), 10) as client:
            client.sendall(b"PING\r\n" * 3)
            client.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda: client.recv(4096), b""))
        self.assertEqual(b"+PONG\r\n" * 3, said)

    def test_next_server(self) -> None:
        """A server that does not accept is passed over; with none, the client is closed."""
        self.daemon.add(1, max_fails=0)
        for _ in range(10):
            self.assertEqual("PONG", self.cli("PING"))
        self.redis.process.kill()
        with socket.create_connection((LOOPBACK, self.daemon.stream), 10) as client:
            self.assertEqual(b"", client.recv(1))
