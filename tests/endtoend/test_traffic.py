"""
Requests and how they spread over nginx servers that curl added.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
from collections import Counter
from datetime import datetime, timezone

from prometheus_client.parser import text_string_to_metric_families

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, curl, run, wait_until
from tests.endtoend.servers import Backend, Nginx, Redis

WEIGHTS = {"one": 1, "two": 2, "three": 1}
CLIENTS = 50
REQUESTS = 10_000


class SpreadTests(EndToEndCase):
    """Weights 1:2:1, many clients at once."""

    def begin(self, policy: str) -> None:
        """Start it all, and add the servers by curl."""
        self.redis = Redis(self)
        self.daemon = Daemon(self, self.redis.url, upstream={"policy": policy})
        self.servers = [Nginx(self, name) for name in WEIGHTS]
        for server in self.servers:
            answer = curl(
                f"{self.daemon.url}/upstream/add",
                *("-d", f"host={LOOPBACK}", "-d", f"port={server.port}"),
                *("-d", f"weight={WEIGHTS[server.name]}", "-d", "heartbeat=false"),
            )
            self.assertEqual("Server added successfully", answer["message"])

    def wrk(self) -> int:
        """
        Let wrk ask for two seconds.

        @return: how often it asked.
        """
        said = run("wrk", "-t1", f"-c{CLIENTS}", "-d2s", f"http://{LOOPBACK}:{self.daemon.http}/")
        self.assertNotIn("Non-2xx", said)
        self.assertNotIn("Socket errors", said)
        requests = re.search(r"(\d+) requests in", said)
        assert requests, said
        return int(requests[1])

    def assert_nothing_held(self) -> None:
        nothing = {server.address: 0 for server in self.servers}
        wait_until(lambda: self.daemon.counts() == nothing, "all counts to be 0 in the status")
        wait_until(lambda: self.redis.counts() == nothing, "all counts to be 0 in the store")

    def test_ten_thousand_requests(self) -> None:
        """In turns, ten thousand requests of 50 clients spread exactly by weight."""
        self.begin("round_robin")
        answers: Counter[str] = Counter()
        statuses: Counter[int] = Counter()

        def client() -> None:
            connection = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=30)
            mine: list[tuple[int, str]] = []
            try:
                for _ in range(REQUESTS // CLIENTS):
                    connection.request("GET", "/")
                    with connection.getresponse() as response:
                        response.read()
                        mine.append((response.status, response.headers["X-Server"]))
            finally:
                connection.close()
                statuses.update(status for status, _ in mine)
                answers.update(name for _, name in mine)

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual({200: REQUESTS}, dict(statuses))
        self.assertEqual({"one": 2500, "two": 5000, "three": 2500}, dict(answers))
        self.assert_nothing_held()

    def test_wrk(self) -> None:
        """
        By load, what wrk asks spreads by weight, and not one request fails;
        nginx's logs and the metrics agree on the counts.
        """
        self.begin("least_conn")
        ask(self.daemon.http)
        descriptors = self.daemon.process.descriptors
        before = descriptors()
        asked = 0
        for _ in range(10):
            asked += self.wrk()
            if asked > REQUESTS:
                break
        self.assertGreater(asked, REQUESTS)
        self.assert_nothing_held()
        # What is left are kept connections to the servers, 128 at most.
        wait_until(lambda: descriptors() <= before + 128, "the clients' sockets to be closed")
        served = Counter({server.name: server.served() for server in self.servers})
        for name, weight in WEIGHTS.items():
            share = served[name] / sum(served.values())
            # A server that is slower for a while gets less: that is the policy.
            self.assertApproximates(weight / 4, share, 0.1, str(served))
        # wrk leaves without waiting for its last answers.
        self.assertApproximates(asked, sum(served.values()), 10 * CLIENTS)
        families = text_string_to_metric_families(ask(self.daemon.admin, "/metrics").body.decode())
        counted = {
            sample.labels["server"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "dynbalance_server_requests_total"
        }
        for server in self.servers:
            self.assertApproximates(counted[server.address], server.served(), CLIENTS)

    def test_counts_while_held(self) -> None:
        """A request under way is counted in the status and in the store's ZSET."""
        self.redis = Redis(self)
        self.daemon = Daemon(self, self.redis.url)
        backend = Backend(self)
        self.daemon.add(backend.port)
        clients = [
            threading.Thread(target=ask, args=(self.daemon.http, "/held")) for _ in range(3)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: backend.told("/waiting") == 3, "three held requests")
        self.assertEqual({backend.address: 3}, self.daemon.counts())
        wait_until(lambda: self.redis.counts() == {backend.address: 3}, "them to be published")
        backend.told("/release")
        for client in clients:
            client.join(30)
        wait_until(lambda: self.redis.counts() == {backend.address: 0}, "them to be given back")


class ChurnTests(EndToEndCase):
    """A new connection for each request."""

    def test_nothing_is_left_behind(self) -> None:
        """After thousands of clients neither sockets nor memory have piled up."""
        backend, daemon = Backend(self), Daemon(self)
        daemon.add(backend.port)
        files = f"/proc/{daemon.process.pid}/fd"

        def churn() -> tuple[int, int]:
            url = f"http://{LOOPBACK}:{daemon.http}/echo"
            said = run("wrk", "-t1", "-c20", "-d1s", "-H", "Connection: close", url)
            self.assertNotIn("Non-2xx", said)
            wait_until(lambda: daemon.counts() == {backend.address: 0}, "the counts to be 0")
            return len(os.listdir(files)), daemon.process.memory()

        descriptors, memory = churn()
        for _ in range(2):
            churn()
        again, grown = churn()
        self.assertLess(again, descriptors + 25)
        self.assertLess(grown, memory + (4 << 20))


class ForwardedTests(EndToEndCase):
    """What a server gets to see, and what is written about it."""

    def setUp(self) -> None:
        self.backend = Backend(self)
        self.log = f"{self.directory('access')}/access.log"
        self.daemon = Daemon(
            self, http={"access_log": self.log}, upstream={"client_max_body_size": 1000}
        )
        self.daemon.add(self.backend.port)

    def test_fields(self) -> None:
        """The client's address and scheme are told; hop-by-hop fields are not."""
        head = ask(
            self.daemon.http,
            "/head",
            headers={
                "Host": "shop.example",
                "X-Forwarded-For": "192.0.2.7",
                "Connection": "X-Secret",
                "X-Secret": "for one hop",
                "X-Kept": "for all",
            },
        ).body.decode()
        for line in (
            "GET /head HTTP/1.1",
            "Host: shop.example",
            "X-Real-IP: 127.0.0.1",
            "X-Forwarded-For: 192.0.2.7, 127.0.0.1",
            "X-Forwarded-Proto: http",
            "X-Kept: for all",
        ):
            self.assertIn(line, head.split("\r\n"))
        self.assertNotIn("Secret", head)

    def test_no_server(self) -> None:
        """Without a usable server the client gets 502, and the daemon is not ready."""
        self.assertEqual(200, ask(self.daemon.admin, "/readyz").status)
        self.daemon.call("toggle", host=LOOPBACK, port=self.backend.port, action="disable")
        self.assertEqual(502, ask(self.daemon.http).status)
        self.assertEqual(503, ask(self.daemon.admin, "/readyz").status)
        self.assertEqual(200, ask(self.daemon.admin, "/healthz").status)

    def test_access_log(self) -> None:
        """Each request is a line of JSON that says who, what, when and by which server."""
        before = datetime.now(timezone.utc)
        named = {"X-Request-ID": "r-1"}
        self.assertEqual(200, ask(self.daemon.http, "/echo?a=1", "POST", b"four", named).status)
        self.assertEqual(404, ask(self.daemon.http, "/status/404").status)
        lines = wait_until(lambda: self._lines(2), "two lines in the access log")
        entry = json.loads(lines[0])
        moment = datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
        self.assertLess(abs((moment - before).total_seconds()), 10)
        (attempt,) = entry["attempts"]
        self.assertEqual(self.backend.address, attempt["server"])
        self.assertEqual(200, attempt["status"])
        for duration in (entry["duration"], attempt["header"], attempt["duration"]):
            self.assertTrue(0 <= duration < 10, entry)
        self.assertEqual("", attempt["cause"])
        self.assertGreater(entry["bytes_out"], 4)
        self.assertEqual("r-1", entry["request_id"])
        told = ("client", "method", "uri", "protocol", "status", "bytes_in", "upstream")
        self.assertEqual(
            [LOOPBACK, "POST", "/echo?a=1", "HTTP/1.1", 200, 4, "default"],
            [entry[name] for name in told],
        )
        self.assertEqual(f"{LOOPBACK}:{self.daemon.http}", entry["host"])
        self.assertIn(str(self.daemon.http), entry["listener"])
        self.assertEqual(404, json.loads(lines[1])["status"])

    def test_refused_requests(self) -> None:
        """What no server was asked for is written down as well."""
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        self.assertEqual(502, ask(self.daemon.http, "/nobody").status)
        self.assertEqual(413, ask(self.daemon.http, "/large", "POST", b"a" * 1001).status)
        lines = wait_until(lambda: self._lines(2), "two lines in the access log")
        for line, uri, status in zip(lines, ("/nobody", "/large"), (502, 413), strict=True):
            entry = json.loads(line)
            self.assertEqual([uri, status, []], [entry[x] for x in ("uri", "status", "attempts")])
            self.assertGreater(entry["bytes_out"], 0)

    def test_client_left(self) -> None:
        """A client that does not wait for its answer is written down with 499."""
        with socket.create_connection((LOOPBACK, self.daemon.http)) as client:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda: self.backend.told("/waiting") == 1, "the held request")
        (line,) = wait_until(lambda: self._lines(1), "a line in the access log")
        self.assertEqual(499, json.loads(line)["status"])

    def _lines(self, number: int) -> list[str]:
        with open(self.log) as log:
            lines = log.readlines()
        return lines if len(lines) == number else []
