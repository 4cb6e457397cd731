"""
The admin API by curl: on its own listener, and on a traffic listener.
"""

from __future__ import annotations

import json
import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, run
from tests.endtoend.servers import Backend


class AdminCase(EndToEndCase):
    """
    @ivar base: URL of the API.
    """

    base: str

    def curl(self, path: str, *options: str) -> tuple[int, dict[str, Any]]:
        """
        @return: HTTP status and the answer, which must be in the envelope.
        """
        said = run(
            *("curl", "-sS", "--max-time", "10", "-w", "\n%{http_code} %{content_type}"),
            *(*options, self.base + path),
        )
        body, _, end = said.rpartition("\n")
        status, _, kind = end.partition(" ")
        self.assertEqual("application/json; charset=utf-8", kind)
        answer = json.loads(body)
        # What the heartbeat scripts look for.
        self.assertTrue(body.startswith(f'{{"code":{status},"message":"'), body)
        return int(status), answer

    def post(self, path: str, *fields: str) -> tuple[int, dict[str, Any]]:
        words = [word for field in fields for word in ("-d", field)]
        return self.curl(path, "-X", "POST", *words)


class NineEndpoints:
    """What users have been promised from the beginning."""

    def test_life_of_a_server(self: Any) -> None:
        """Status, add, toggle, refresh, reset, health, cleanup, remove; and a proxied request."""
        backend = self.backend
        host, port = f"host={LOOPBACK}", f"port={backend.port}"
        self.assertEqual(
            (200, {"code": 200, "message": "Success", "data": []}), self.curl("/upstream/status")
        )
        status, answer = self.post("/upstream/add", host, port, "weight=2", "max_conns=2000")
        self.assertEqual(
            {
                "code": 200,
                "message": "Server added successfully",
                "data": {
                    "addr": backend.address,
                    "host": LOOPBACK,
                    "port": backend.port,
                    "weight": 2,
                    "max_conns": 2000,
                    "enabled": True,
                },
            },
            answer,
        )
        self.assertEqual(b"backend", ask(self.daemon.http).body)

        _, answer = self.curl("/upstream/status")
        (shown,) = answer["data"]
        told = {
            "addr": backend.address,
            "host": LOOPBACK,
            "port": backend.port,
            "connections": 0,
            "weight": 2,
            "max_conns": 2000,
            "enabled": True,
            "is_active": True,
            "state": "up",
            "node_connections": 0,
            "slow_start": 1,
        }
        self.assertEqual(told, {name: shown[name] for name in told})
        for name in ("last_heartbeat", "created_at"):
            self.assertApproximates(time.time(), shown[name], 10)
        self.assertTrue(0 <= shown["time_since_heartbeat"] < 10)

        for action, enabled, traffic in (("disable", False, 502), ("enable", True, 200)):
            status, answer = self.post("/upstream/toggle", host, port, f"action={action}")
            self.assertEqual((200, f"Server {action}d successfully"), (status, answer["message"]))
            self.assertEqual({"addr": backend.address, "enabled": enabled}, answer["data"])
            self.assertEqual(traffic, ask(self.daemon.http).status)

        status, answer = self.post("/upstream/refresh", host, port)
        self.assertEqual((200, "Heartbeat refreshed successfully"), (status, answer["message"]))
        self.assertEqual(backend.address, answer["data"]["addr"])
        self.assertApproximates(time.time(), answer["data"]["heartbeat_time"], 10)

        (shown,) = self.curl("/upstream/status")[1]["data"]
        self.assertApproximates(time.time(), shown["updated_at"], 10)
        self.assertEqual(
            {
                "code": 200,
                "message": "All connection counts reset to zero",
                "data": {"servers_reset": 1},
            },
            self.post("/upstream/reset")[1],
        )
        _, answer = self.curl("/upstream/health")
        self.assertEqual(
            ("Upstream health status", "healthy"), (answer["message"], answer["status"])
        )
        told = {"total_servers": 1, "enabled_servers": 1, "active_servers": 1}
        told |= {"expired_servers": 0, "store": "ok", "stale_for": 0}
        self.assertEqual(told, answer["data"])
        for method in ("GET", "POST"):
            self.assertEqual(
                {
                    "code": 200,
                    "message": "Cleanup completed successfully",
                    "data": {"expired_count": 0, "disabled_count": 0},
                },
                self.curl("/upstream/cleanup", "-X", method)[1],
            )
        self.assertEqual(
            {
                "code": 200,
                "message": "Server removed successfully",
                "data": {"addr": backend.address},
            },
            self.post("/upstream/remove", host, port)[1],
        )
        self.assertEqual([], self.curl("/upstream/status")[1]["data"])

    def test_caller(self: Any) -> None:
        """Without a host, or with an empty one, the caller's address is meant."""
        for host in ((), ("host=",)):
            _, answer = self.post("/upstream/add", *host, f"port={self.backend.port}", "weight=1")
            self.assertEqual(self.backend.address, answer["data"]["addr"])
            self.post("/upstream/remove", *host, f"port={self.backend.port}")

    def test_json(self: Any) -> None:
        """Arguments may come as a JSON object."""
        body = json.dumps({"host": LOOPBACK, "port": self.backend.port, "weight": 3})
        kind = ("-H", "Content-Type: application/json")
        status, answer = self.curl("/upstream/add", *kind, "-d", body)
        self.assertEqual((200, 3), (status, answer["data"]["weight"]))

    def test_bad_input(self: Any) -> None:
        """What is wrong is named, and nothing is changed."""
        port = f"port={self.backend.port}"
        self.post("/upstream/add", port)
        before = self.curl("/upstream/status")[1]["data"]
        for path, fields, status, word in (
            ("add", (port,), 400, f"Server already exists: {self.backend.address}"),
            ("add", (), 400, "port"),
            ("add", ("port=70000",), 400, "port"),
            ("add", ("port=80", "weight=-1"), 400, "weight"),
            ("add", ("port=80", "max_conns=many"), 400, "max_conns"),
            ("add", ("port=80", "host=not a host"), 400, "host"),
            ("add", ("port=80", "wieght=1"), 400, "wieght"),
            ("add", ("port=80", "upstream=none"), 404, "none"),
            ("remove", ("port=80",), 404, f"Server not found: {LOOPBACK}:80"),
            ("refresh", ("port=80",), 404, f"Server not found: {LOOPBACK}:80"),
            ("toggle", ("port=80", "action=enable"), 404, f"Server not found: {LOOPBACK}:80"),
            ("toggle", (port, "action=explode"), 400, "action"),
        ):
            got, answer = self.post(f"/upstream/{path}", *fields)
            self.assertEqual((status, status), (got, answer["code"]), (path, fields))
            self.assertIn(word, answer["message"])
        after = self.curl("/upstream/status")[1]["data"]
        for shown in (*before, *after):
            shown.pop("time_since_heartbeat")
        self.assertEqual(before, after)

    def test_method(self: Any) -> None:
        """A method that an endpoint does not know gets 405, with those it does."""
        self.assertEqual(405, self.curl("/upstream/add")[0])
        self.assertEqual(405, self.post("/upstream/status")[0])
        headers = run("curl", "-sS", "-o", "/dev/null", "-D", "-", f"{self.base}/upstream/add")
        self.assertIn("allow: post", headers.lower().splitlines())

    def test_too_large(self: Any) -> None:
        """A body above a MiB gets 413."""
        status, _ = self.curl("/upstream/add", "-d", "host=" + "a" * 100_000, "-d", "port=1")
        self.assertEqual(400, status)
        path = f"{self.directory('body')}/body"
        with open(path, "w") as out:
            out.write("host=" + "a" * (10 << 20))
        for chunked in ((), ("-H", "Transfer-Encoding: chunked")):
            status, _ = self.curl("/upstream/add", "--data-binary", f"@{path}", *chunked)
            self.assertEqual(413, status)

    def test_foreign_page(self: Any) -> None:
        """A browser's order from somebody else's page is refused."""
        port = f"port={self.backend.port}"
        status, _ = self.curl(
            "/upstream/add", "-H", "Origin: http://evil.example", "-d", port
        )
        self.assertEqual(403, status)
        status, _ = self.curl("/upstream/add", "-H", f"Origin: {self.base}", "-d", port)
        self.assertEqual(200, status)


class OwnListenerTests(NineEndpoints, AdminCase):
    """The admin listener."""

    def setUp(self) -> None:
        self.daemon, self.backend = Daemon(self), Backend(self)
        self.base = self.daemon.url

    def test_pages(self) -> None:
        """The dashboard is HTML, liveness and readiness have their words."""
        page = ask(self.daemon.admin, "/")
        self.assertEqual("text/html; charset=utf-8", page.headers["content-type"])
        self.assertTrue(page.body.lower().startswith(b"<!doctype html>"))
        self.assertEqual((200, "OK"), self.outcome("/healthz"))
        self.assertEqual(503, self.outcome("/readyz")[0])
        self.daemon.add(self.backend.port)
        self.assertEqual((200, "Ready"), self.outcome("/readyz"))
        self.assertEqual(404, self.outcome("/nothing")[0])

    def outcome(self, path: str) -> tuple[int, str]:
        status, answer = self.curl(path)
        return status, answer["message"]

    def test_metrics(self) -> None:
        """Prometheus's own parser reads the metrics, and they count."""
        self.daemon.add(self.backend.port)
        for _ in range(7):
            ask(self.daemon.http)
        reply = ask(self.daemon.admin, "/metrics")
        self.assertTrue(reply.headers["content-type"].startswith("text/plain"))
        samples = {
            (sample.name, sample.labels.get("code", "")): sample.value
            for family in text_string_to_metric_families(reply.body.decode())
            for sample in family.samples
        }
        self.assertEqual(7, samples["dynbalance_server_requests_total", "2xx"])
        self.assertEqual(1, samples["dynbalance_store_available", ""])

    def test_not_on_the_traffic_listener(self) -> None:
        """Without mount_admin the paths belong to the servers."""
        self.daemon.add(self.backend.port)
        self.assertEqual(b"backend", ask(self.daemon.http, "/upstream/status").body)


class MountedTests(NineEndpoints, AdminCase):
    """With C{mount_admin}, as it was in the beginning."""

    def setUp(self) -> None:
        self.daemon, self.backend = Daemon(self, http={"mount_admin": True}), Backend(self)
        self.base = f"http://{LOOPBACK}:{self.daemon.http}"

    def test_everything_else_is_proxied(self) -> None:
        """Only what begins with /upstream/ is the API's."""
        self.daemon.add(self.backend.port)
        for target in ("/", "/upstream", "/upstreams/x", "/api/upstream/status", "/metrics"):
            self.assertEqual(b"backend", ask(self.daemon.http, target).body)
