"""
The ways to reach a shared store, and where it keeps what it is told.
"""

from __future__ import annotations

import json
import os

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.servers import Backend, Redis


class UrlTests(EndToEndCase):
    """Each kind of URL."""

    def assert_keeps(self, redis: Redis, url: str, *cli: str) -> None:
        """A server that the API adds is served, and found by redis-cli."""
        daemon, backend = Daemon(self, url), Backend(self)
        daemon.add(backend.port)
        self.assertEqual(b"backend", ask(daemon.http).body)
        said = redis(*cli, "HGET", "upstream:servers:meta", backend.address)
        self.assertEqual(backend.port, json.loads(said)["port"])

    def test_database(self) -> None:
        """A number behind the slash is the database."""
        redis = Redis(self)
        self.assert_keeps(redis, f"redis://{LOOPBACK}:{redis.port}/5", "-n", "5")

    def test_unix_socket(self) -> None:
        """A path is a socket's."""
        path = os.path.join(self.directory("socket"), "redis.sock")
        redis = Redis(self, "--unixsocket", path)
        self.assert_keeps(redis, f"unix://{path}?db=2", "-n", "2")

    def test_user(self) -> None:
        """A user with a password, of the server's access list."""
        redis = Redis(self, "--user", "balancer", "on", ">secret", "~*", "&*", "+@all")
        self.assert_keeps(redis, f"redis://balancer:secret@{LOOPBACK}:{redis.port}/0")

    def test_wrong_password(self) -> None:
        """A store that refuses us is one that is away, and why is said once."""
        redis = Redis(self)
        daemon = Daemon(self, f"redis://somebody:wrong@{LOOPBACK}:{redis.port}/0")
        reply = ask(daemon.admin, "/upstream/health")
        self.assertEqual(503, reply.status)
        self.assertIn("WRONGPASS", reply.json["message"])
        self.assertNotIn("wrong@", daemon.process.log())
        lost = [line for line in daemon.process.log().splitlines() if "Store lost" in line]
        self.assertEqual(1, len(lost), lost)


class LayoutTests(EndToEndCase):
    """The names of the keys."""

    def test_upstreams(self) -> None:
        """The prefix comes first; other upstreams than the default one have their name in it."""
        redis = Redis(self)
        daemon = Daemon(self, redis.url, keeping={"prefix": "{lb}"}, more="[upstreams.api]")
        backend = Backend(self)
        daemon.add(backend.port)
        daemon.add(backend.port, upstream="api", weight=2)
        for base in ("{lb}", "{lb}:api"):
            self.assertEqual(backend.address, redis("ZRANGE", f"{base}:servers:zset", "0", "-1"))
            self.assertEqual(backend.address, redis("HKEYS", f"{base}:heartbeat"))
        self.assertEqual(2, json.loads(redis("HVALS", "{lb}:api:servers:meta"))["weight"])
        wait_until(lambda: redis("ZRANGE", "{lb}:api:nodes", "0", "-1") == "dynbalance", "the node")
        for key in redis("KEYS", "*").splitlines():
            self.assertTrue(key.startswith("{lb}:"), key)
