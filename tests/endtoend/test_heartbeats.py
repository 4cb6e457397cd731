"""
Servers that keep themselves alive, and how the store says so.
"""

from __future__ import annotations

import json
import time

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, curl, wait_until
from tests.endtoend.servers import Backend, Redis


class HeartbeatTests(EndToEndCase):
    """A time to live of a second and a half."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.daemon = Daemon(
            self, self.redis.url, heartbeat={"ttl": 1.5, "cleanup_interval": 0.2}
        )
        self.backend = Backend(self)
        self.daemon.add(self.backend.port)

    def beat(self) -> object:
        return self.daemon.call("refresh", host=LOOPBACK, port=self.backend.port)

    def meta(self) -> dict[str, object]:
        """What the store has of the server."""
        meta = json.loads(self.redis("HGET", "upstream:servers:meta", self.backend.address))
        assert isinstance(meta, dict)
        return meta

    def test_expires_and_returns(self) -> None:
        """Silence takes a server out, its next heartbeat brings it back."""
        address = self.backend.address
        self.assertEqual(200, ask(self.daemon.http).status)
        wait_until(lambda: self.daemon.state(address) == "expired", "it to expire")
        shown = self.daemon.status()[address]
        self.assertEqual(
            (False, False, "heartbeat_timeout"),
            (shown["enabled"], shown["is_active"], shown["disabled_reason"]),
        )
        self.assertGreater(shown["time_since_heartbeat"], 1)
        self.assertEqual(502, ask(self.daemon.http).status)
        meta = self.meta()
        self.assertEqual((False, "heartbeat_timeout"), (meta["enabled"], meta["disabled_reason"]))
        health = curl(f"{self.daemon.url}/upstream/health")
        self.assertEqual("unhealthy", health["status"])
        self.assertEqual(
            (1, 0, 0),
            tuple(health["data"][f"{which}_servers"] for which in ("total", "enabled", "active")),
        )

        self.beat()
        self.assertEqual(200, ask(self.daemon.http).status)
        shown = self.daemon.status()[address]
        self.assertEqual((True, True), (shown["enabled"], shown["is_active"]))
        self.assertNotIn("disabled_reason", shown)
        self.assertIs(True, self.meta()["enabled"])

    def test_beats_keep_it(self) -> None:
        """Heartbeats in time keep a server for longer than its time to live."""
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            self.beat()
            self.assertEqual(200, ask(self.daemon.http).status)
            time.sleep(0.1)
        self.assertEqual("up", self.daemon.state(self.backend.address))

    def test_disabled_by_a_person(self) -> None:
        """Heartbeats do not bring back what a person took out."""
        address = self.backend.address
        self.daemon.call("toggle", host=LOOPBACK, port=self.backend.port, action="disable")
        self.beat()
        self.assertEqual("disabled", self.daemon.state(address))
        self.assertEqual(502, ask(self.daemon.http).status)
        # Nor after it was silent for too long as well.
        expired = "time_since_heartbeat"
        wait_until(lambda: self.daemon.status()[address][expired] > 2.0, "it to be silent")
        self.beat()
        self.assertEqual("disabled", self.daemon.state(address))
        self.daemon.call("toggle", host=LOOPBACK, port=self.backend.port, action="enable")
        self.assertEqual(200, ask(self.daemon.http).status)

    def test_without_heartbeat(self) -> None:
        """A server that was added with heartbeat=false stays."""
        steady = Backend(self, "steady")
        self.daemon.add(steady.port, heartbeat="false")
        address = self.backend.address
        wait_until(lambda: self.daemon.state(address) == "expired", "the other to expire")
        self.assertEqual("up", self.daemon.state(steady.address))
        self.assertEqual(b"steady", ask(self.daemon.http).body)

    def test_store(self) -> None:
        """The store's three keys are what they have always been, and the others lie beside."""
        address = self.backend.address
        before = time.time()
        self.assertEqual(address, self.redis("ZRANGE", "upstream:servers:zset", "0", "-1"))
        meta = self.meta()
        told = ("host", "port", "weight", "max_conns", "enabled")
        self.assertEqual(
            [LOOPBACK, self.backend.port, 1, 1000, True], [meta[name] for name in told]
        )
        self.beat()
        beat = float(self.redis("HGET", "upstream:heartbeat", address))
        self.assertTrue(abs(beat - before) < 5)
        wait_until(
            lambda: self.redis("ZRANGE", "upstream:nodes", "0", "-1") == "dynbalance", "the node"
        )
        self.assertGreater(int(self.redis("GET", "upstream:revision")), 0)
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        for key, gone in (("servers:meta", "HGET"), ("heartbeat", "HGET")):
            self.assertEqual("", self.redis(gone, f"upstream:{key}", address))
        self.assertEqual("", self.redis("ZSCORE", "upstream:servers:zset", address))

    def test_other_writer(self) -> None:
        """A server that the first scripts left in the store is one like any other."""
        self.daemon.process.stop()
        other = Backend(self, "other")
        meta = {
            "host": LOOPBACK,
            "port": other.port,
            "weight": 1,
            "max_conns": 100,
            "enabled": True,
            "created_at": int(time.time()),
        }
        self.redis("DEL", "upstream:servers:zset", "upstream:servers:meta", "upstream:heartbeat")
        self.redis("ZADD", "upstream:servers:zset", "0", other.address)
        self.redis("HSET", "upstream:servers:meta", other.address, json.dumps(meta))
        self.redis("HSET", "upstream:heartbeat", other.address, f"{time.time():.3f}")
        self.daemon.start()
        self.assertEqual(b"other", ask(self.daemon.http).body)
        self.assertEqual([other.address], list(self.daemon.status()))
