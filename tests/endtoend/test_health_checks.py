"""
Servers that are asked whether they are well: by one node of all, believed by all.
"""

from __future__ import annotations

import json
import os
import time

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.servers import Nginx, Redis

INTERVAL = 0.5


def health_check(**settings: str | float) -> str:
    """TOML of the upstream's table."""
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    return "".join(["[upstreams.default.health_check]\n", *lines])


class HttpCheckTests(EndToEndCase):
    """A real nginx whose /health is a file that comes and goes."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.files = self.directory("files")
        self.nginx = Nginx(self, "a", files=self.files)
        self.well()

    def well(self) -> None:
        with open(os.path.join(self.files, "health"), "w") as out:
            out.write("ok")

    def ill(self) -> None:
        os.remove(os.path.join(self.files, "health"))

    def node(self, name: str, **settings: str | float) -> Daemon:
        checks = {"uri": "/files/health", "interval": INTERVAL, "timeout": 0.5, **settings}
        return Daemon(self, self.redis.url, name, more=health_check(**checks))

    def until_answered(self, node: Daemon, status: int) -> None:
        wait_until(lambda: ask(node.http).status == status, f"{node.name} to answer {status}")

    def until_out(self, node: Daemon) -> None:
        out = f"{node.name} to have it out"
        wait_until(lambda: node.state(self.nginx.address) == "unhealthy", out)

    def checked(self) -> int:
        """How often the server was asked so far."""
        with open(os.path.join(self.nginx.directory, "access.log")) as log:
            return sum("dynbalance-health-check" in line for line in log)

    def test_out_and_back(self) -> None:
        """A server that says 404 to the check is out on all nodes until it says 200 again."""
        one, two = self.node("one"), self.node("two")
        one.add(self.nginx.port, heartbeat="false")
        address = self.nginx.address
        for node in (one, two):
            self.until_answered(node, 200)
        self.ill()
        for node in (one, two):
            self.until_out(node)
            shown = node.status()[address]
            self.assertEqual("its health check fails: status 404", shown["why"])
            # What was ordered and what heartbeats say is another matter.
            self.assertTrue(shown["enabled"])
            self.assertNotIn("disabled_reason", shown)
            self.assertEqual(502, ask(node.http).status)
        found = json.loads(self.redis("HGET", "upstream:unhealthy", address))
        self.assertEqual("status 404", found["cause"])
        self.well()
        for node in (one, two):
            self.until_answered(node, 200)
        self.assertEqual("", self.redis("HGET", "upstream:unhealthy", address))

    def test_one_prober(self) -> None:
        """Two nodes ask as often as one; when the one that asks is killed, the other does."""
        one, two = self.node("one"), self.node("two")
        one.add(self.nginx.port, heartbeat="false")
        wait_until(lambda: self.checked() > 0, "the first check")
        before, since = self.checked(), time.monotonic()
        wait_until(lambda: self.checked() >= before + 6, "six checks")
        each = (time.monotonic() - since) / (self.checked() - before)
        # Two that ask would halve it.
        self.assertGreater(each, 0.7 * INTERVAL)

        claim = self.redis("HGET", "upstream:probers", self.nginx.address)
        nodes = {"one": one, "two": two}
        first = nodes.pop(claim.split(" ")[1])
        (other,) = nodes.values()
        first.process.kill()
        before = self.checked()
        wait_until(lambda: self.checked() >= before + 2, "the other to go on")
        self.ill()
        self.until_out(other)

    def test_file_server(self) -> None:
        """The configuration file's servers are asked, too, by one node of all."""
        settings = {"uri": "/files/health", "interval": INTERVAL, "fails": 2}
        servers = f'[{{ address = "{self.nginx.address}" }}]'
        nodes = [
            Daemon(self, self.redis.url, name, servers=servers, more=health_check(**settings))
            for name in ("one", "two")
        ]
        self.assertEqual(200, ask(nodes[0].http).status)
        self.ill()
        for node in nodes:
            self.until_out(node)
        self.well()
        for node in nodes:
            self.until_answered(node, 200)

    def test_store_away(self) -> None:
        """While the store is away each node asks for itself."""
        one, two = self.node("one"), self.node("two")
        one.add(self.nginx.port, heartbeat="false")
        for node in (one, two):
            self.until_answered(node, 200)
        self.redis.process.kill()
        self.ill()
        for node in (one, two):
            self.until_answered(node, 502)
        self.redis.start()
        self.well()
        for node in (one, two):
            self.until_answered(node, 200)


class TcpCheckTests(EndToEndCase):
    """Redis behind the balancer, asked by PING."""

    def test_ping(self) -> None:
        """A Redis that hangs does not answer PING in time, and is out until it does."""
        cache = Redis(self)
        daemon = Daemon(
            self,
            more=health_check(
                type="tcp", send="PING\r\n", expect="+PONG", interval=0.3, timeout=0.3
            ),
        )
        daemon.add(cache.port, heartbeat="false")
        address = f"{LOOPBACK}:{cache.port}"
        self.assertEqual("up", daemon.state(address))
        cache.process.pause()
        wait_until(lambda: daemon.state(address) == "unhealthy", "it to be out")
        why = str(daemon.status()[address]["why"])
        self.assertEqual("its health check fails: timed out after 0.3 s", why)
        cache.process.resume()
        wait_until(lambda: daemon.state(address) == "up", "it to be back")
