"""
Several daemons with one store: what becomes of the counts of a node that is
killed or sleeps, and what the store is asked under load.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, run, wait_until
from tests.endtoend.servers import Backend, Nginx, Redis

LEASE = 2.0


class LeaseTests(EndToEndCase):
    """Two nodes, each with two requests that a backend holds."""

    def setUp(self) -> None:
        self.redis, self.backend = Redis(self), Backend(self)
        self.first, self.second = (
            Daemon(self, self.redis.url, name, keeping={"lease": LEASE})
            for name in ("first", "second")
        )
        self.first.add(self.backend.port, heartbeat="false")
        wait_until(self.second.status, "the server on both nodes")
        for daemon in (self.first, self.second):
            for _ in range(2):
                client = socket.create_connection((LOOPBACK, daemon.http), 10.0)
                self.addCleanup(client.close)
                client.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        self.addCleanup(lambda: self.backend.told("/release"))
        self.until_count(4)

    def until_count(self, count: int) -> None:
        wait_until(
            lambda: self.redis.counts() == {self.backend.address: count}, f"a count of {count}"
        )

    def known(self, daemon: Daemon) -> int:
        return daemon.counts()[self.backend.address]

    def test_killed(self) -> None:
        """What a killed node held is given back within the lease; nothing of it stays."""
        self.second.process.signal(signal.SIGKILL)
        killed = time.monotonic()
        self.second.process.wait()
        self.until_count(2)
        self.assertLess(time.monotonic() - killed, LEASE + 2.0)
        wait_until(lambda: self.known(self.first) == 2, "the other node to know")
        self.assertEqual("", self.redis("KEYS", "*node:second*"))

    def test_sleeps(self) -> None:
        """A node that slept longer than its lease comes back with what it holds."""
        self.second.process.pause()
        self.until_count(2)
        wait_until(lambda: self.known(self.first) == 2, "the other node to know")
        self.second.process.resume()
        self.until_count(4)
        wait_until(lambda: self.known(self.first) == 4, "the other node to know")
        self.backend.told("/release")
        self.until_count(0)


class CommandTests(EndToEndCase):
    """What the store's own statistics say."""

    def calls(self, redis: Redis) -> int:
        """Scripts that were called; what they do inside is counted apart from that."""
        stats = dict(
            line.strip().split(":", 1)
            for line in redis("INFO", "commandstats").splitlines()
            if ":" in line
        )
        found = stats.get("cmdstat_evalsha", "calls=0")
        return int(found.partition("calls=")[2].partition(",")[0])

    def during(self, redis: Redis, load: Callable[[], int]) -> tuple[int, int, float]:
        """@return: requests, scripts called, seconds."""
        before, begun = self.calls(redis), time.monotonic()
        requests = load()
        return requests, self.calls(redis) - before, time.monotonic() - begun

    def wrk(self, port: int) -> int:
        said = run("wrk", "-t1", "-c20", "-d2s", f"http://127.0.0.1:{port}/")
        self.assertNotIn("Non-2xx", said)
        [line] = [line for line in said.splitlines() if "requests in" in line]
        return int(line.split()[0])

    def begin(self, counting: str) -> tuple[Redis, Daemon]:
        redis, server = Redis(self), Nginx(self, "server")
        daemon = Daemon(self, redis.url, upstream={"counting": counting})
        daemon.add(server.port, heartbeat="false")
        self.assertEqual(200, ask(daemon.http).status)
        return redis, daemon

    def test_fast(self) -> None:
        """No call for a request: as many as there are intervals, and no other command."""
        redis, daemon = self.begin("fast")
        requests, calls, seconds = self.during(redis, lambda: self.wrk(daemon.http))
        self.assertGreater(requests, 1000)
        # One exchange an interval, and a few rounds of other things.
        self.assertLess(calls, 10 * seconds + 10)
        self.assertIn(":calls=", redis("INFO", "commandstats"))

    def test_strict(self) -> None:
        """Far fewer calls than requests: a place that ran empty is used again."""
        redis, daemon = self.begin("strict")
        requests, calls, _ = self.during(redis, lambda: self.wrk(daemon.http))
        self.assertGreater(requests, 1000)
        self.assertLess(calls, requests / 5)
