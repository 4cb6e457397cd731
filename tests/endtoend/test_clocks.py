"""
Wall clocks that are set, or differ, while everything goes on.
"""

from __future__ import annotations

import socket
import time

import jwt

from tests.endtoend.beats import Beats
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.oracle import Oracle, Recorder
from tests.endtoend.servers import Redis
from tests.endtoend.wallclock import WallClock

HOUR = 3600
TTL = 5.0
KEY = "a key of at least thirty-two bytes"


class ClockTests(EndToEndCase):
    """An hour later, an hour earlier."""

    def nobody_fails(self, oracle: Oracle) -> None:
        """Every request was answered, and rightly."""
        oracle.stop()
        verdict = oracle.verdict()
        self.assertEqual(([], 0), (verdict.violations, verdict.failed()), str(verdict))

    def alive(self, redis: Redis) -> list[str]:
        """The nodes whose leases are not found to be over."""
        return redis("ZRANGE", "upstream:nodes", "0", "-1").split()

    def test_store(self) -> None:
        """
        Two nodes whose clocks are ten minutes apart, and a store whose clock is set: no
        server expires that lives, no lease ends, no request fails.  After that a server
        that falls silent is out, and a node that dies is forgotten, as soon as ever.
        """
        clock = WallClock(self)
        redis = Redis(self, environment=clock.environment)
        one, two = nodes = [
            Daemon(
                self,
                redis.url,
                name,
                keeping={"lease": 3.0},
                heartbeat={"ttl": TTL, "cleanup_interval": 0.2},
                environment=WallClock(self, step).environment,
            )
            for name, step in (("one", 0), ("two", -600))
        ]
        servers = [Recorder(self, name) for name in ("a", "b")]
        for server in servers:
            one.add(server.port)
        wait_until(lambda: len(two.status()) == 2, "the servers")
        lives = Beats(self, one.admin, [servers[0].port], 0.2)
        dies = Beats(self, two.admin, [servers[1].port], 0.2)
        oracle = Oracle(self, [node.http for node in nodes], servers, clients=3)
        held = socket.create_connection((LOOPBACK, two.stream), 10)
        self.addCleanup(held.close)
        for step in (HOUR, 0, -HOUR, 0):
            clock.set(step)
            oracle.more(50)
            for node in nodes:
                self.assertEqual(0, node.call("cleanup")["data"]["expired_count"])
                self.assertEqual({"up"}, {each["state"] for each in node.status().values()})
            self.assertEqual(["one", "two"], sorted(self.alive(redis)))
            wait_until(lambda: sum(redis.counts().values()) >= 1, "the stream to be counted")
        self.nobody_fails(oracle)
        for node in nodes:
            self.assertEqual([], node.process.lines_with("no heartbeat"))
        clock.set(-HOUR)
        wait_until(lambda: dies.answers[200] > 0, "heartbeats")
        dies.end()
        two.process.kill()
        wait_until(lambda: self.alive(redis) == ["one"], "the end of two")
        wait_until(lambda: sum(redis.counts().values()) == 0, "its counts to be given back")
        one.process.until(
            lambda: f"{servers[1].address} of upstream default is out" in one.process.log(),
            "finds the silent server",
        )
        self.assertEqual("up", one.state(servers[0].address))
        self.assertEqual({200}, set(lives.answers))

    def test_node(self) -> None:
        """A node whose own clock is set: no request fails, and signed tokens go by it."""
        clock = WallClock(self)
        servers = [Recorder(self, name) for name in ("a", "b")]
        listed = ", ".join(f'{{ address = "{server.address}" }}' for server in servers)
        daemon = Daemon(
            self,
            environment=clock.environment,
            servers=f"[{listed}]",
            more=f'jwt = {{ algorithms = ["HS256"], key = "{KEY}" }}',
        )
        claims = {"sub": "ops", "role": "admin", "exp": int(time.time()) + 600}
        bearer = {"Authorization": f"Bearer {jwt.encode(claims, KEY, 'HS256')}"}
        oracle = Oracle(self, [daemon.http], servers, clients=3)
        for step, status in ((0, 200), (HOUR, 401), (-HOUR, 200), (0, 200)):
            clock.set(step)
            oracle.more(100)
            answer = ask(daemon.admin, "/upstream/status", headers=bearer)
            self.assertEqual(status, answer.status, answer.body)
        self.nobody_fails(oracle)
