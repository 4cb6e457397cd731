"""
The shared store is gone for a while, in each of the ways in which it can be.
"""

from __future__ import annotations

import signal

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import (
    LOOPBACK,
    EndToEndCase,
    Reply,
    accepts,
    ask,
    wait_until,
)
from tests.endtoend.servers import Backend, Redis

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class StoreCase(EndToEndCase):
    """What is asked of a daemon whose store comes and goes."""

    redis: Redis
    daemon: Daemon
    backend: Backend

    def order(self, path: str, fields: str) -> Reply:
        return ask(self.daemon.admin, f"/upstream/{path}", "POST", fields.encode(), FORM)

    def health(self) -> Reply:
        return ask(self.daemon.admin, "/upstream/health")

    def until_away(self) -> None:
        wait_until(lambda: self.health().status == 503, "the daemon to miss the store")

    def until_back(self) -> None:
        wait_until(lambda: self.health().status == 200, "the daemon to find the store")

    def until_metric(self, line: str) -> None:
        wait_until(
            lambda: f"{line}\n" in ask(self.daemon.admin, "/metrics").body.decode(), line
        )

    def assert_serves(self) -> None:
        self.assertEqual([200] * 20, [ask(self.daemon.http).status for _ in range(20)])


class AwayTests(StoreCase):
    """Lost while the daemon runs."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.daemon = Daemon(
            self,
            self.redis.url,
            keeping={"timeout": 0.5, "lease": 2.0},
            heartbeat={"ttl": 2.0, "cleanup_interval": 0.2},
        )
        self.backend = Backend(self)
        self.daemon.add(self.backend.port, heartbeat="false")

    def assert_well(self) -> None:
        """It is as before, and orders are taken again."""
        self.until_back()
        data = self.health().json["data"]
        self.assertEqual(("ok", 0, 1), (data["store"], data["stale_for"], data["total_servers"]))
        self.assertEqual("up", self.daemon.state(self.backend.address))
        self.assert_serves()
        wait_until(lambda: self.redis.counts() == {self.backend.address: 0}, "the counts")
        self.daemon.call("toggle", host=LOOPBACK, port=self.backend.port, action="disable")
        self.assertEqual(502, ask(self.daemon.http).status)
        self.until_metric("dynbalance_store_available 1.0")

    def test_scripts_flushed(self) -> None:
        """A store that has forgotten the scripts is told them again, unnoticed."""
        self.redis("SCRIPT", "FLUSH")
        self.assertEqual(200, self.health().status)
        self.assert_well()

    def test_connections_cut(self) -> None:
        """A store that closes the connection is reached anew."""
        self.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.assert_well()

    def test_removed(self) -> None:
        """Who takes the last server out by the API or by hand wants none."""
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        self.assertEqual({}, self.daemon.status())
        self.daemon.add(self.backend.port)
        self.redis("DEL", "upstream:servers:meta")
        wait_until(lambda: self.daemon.status() == {}, "no servers")
        wait_until(
            lambda: self.redis("EXISTS", "upstream:servers:zset", "upstream:heartbeat") == "0",
            "nothing left of them",
        )
        self.assertEqual(502, ask(self.daemon.http).status)
        self.assertIn(f"by hand: {self.backend.address} removed", self.daemon.process.log())

    def test_clocks_stand_still(self) -> None:
        """Nobody expires for heartbeats that found the store away."""
        beating = Backend(self, "beating")
        self.daemon.add(beating.port)
        self.redis.process.pause()
        self.until_away()
        wait_until(lambda: self.health().json["data"]["stale_for"] > 2.5, "longer than the ttl")
        self.redis.process.resume()
        self.until_back()
        self.assertEqual("up", self.daemon.state(beating.address))
        self.assertEqual(200, self.order("refresh", f"port={beating.port}").status)
        self.assertEqual("up", self.daemon.state(beating.address))

    def test_ends(self) -> None:
        """The daemon ends in order without it."""
        self.redis.process.pause()
        self.until_away()
        self.assertEqual(0, self.daemon.process.stop())


class LateStoreTests(StoreCase):
    """Away when the daemon starts."""

    def test_starts_without(self) -> None:
        """The daemon starts, has nobody to serve by, and recovers by itself."""
        self.redis = Redis(self)
        self.redis.process.kill()
        self.daemon = Daemon(self, self.redis.url)
        self.backend = Backend(self)
        self.assertEqual(502, ask(self.daemon.http).status)
        self.assertEqual(503, ask(self.daemon.admin, "/readyz").status)
        self.assertEqual(200, ask(self.daemon.admin, "/healthz").status)
        self.assertEqual(503, self.order("add", f"port={self.backend.port}").status)
        self.redis.start()
        self.until_back()
        self.daemon.add(self.backend.port)
        self.assert_serves()
        self.assertEqual(200, ask(self.daemon.admin, "/readyz").status)

    def test_hangs(self) -> None:
        """A store that accepts and says nothing delays the start for a while only."""
        self.redis = Redis(self)
        self.redis.process.pause()
        self.daemon = Daemon(self, self.redis.url)
        self.assertEqual(502, ask(self.daemon.http).status)
        self.redis.process.resume()
        self.until_back()

    def test_ended_while_it_starts(self) -> None:
        """The order to end is heard while the store is waited for."""
        self.redis = Redis(self)
        self.redis.process.pause()
        self.daemon = Daemon(self, self.redis.url, wait=False)
        # The admin API answers before the others serve.
        self.daemon.process.until(lambda: accepts(self.daemon.admin), "listens")
        self.assertEqual(200, ask(self.daemon.admin, "/healthz").status)
        self.assertNotIn("serves as", self.daemon.process.log())
        self.daemon.process.signal(signal.SIGTERM)
        self.assertEqual(0, self.daemon.process.wait())
