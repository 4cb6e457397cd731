"""
What Prometheus gets of a daemon that works: checked by its own tools, and beside
what the documentation, the alerts and the dashboard say.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading

from prometheus_client.parser import text_string_to_metric_families

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import (
    LOOPBACK,
    ROOT,
    EndToEndCase,
    accepts,
    ask,
    free_port,
    run,
    wait_until,
)
from tests.endtoend.servers import Backend

MANY = 1500
"""Servers that a scrape cannot tell in one slice."""

_NAME = re.compile(r"\bdynbalance_[a-z0-9_]+\b")
_REFERENCE = """
import sys
sys.path.insert(0, sys.argv[1])
import tables
print(tables.metric_pages())
"""
_WORKER = "dynbalance_worker_"
_SUFFIXES = ("_bucket", "_sum", "_count")


class ScrapeTests(EndToEndCase):
    """One daemon, of which much has been asked."""

    def setUp(self) -> None:
        self.backend = Backend(self)
        dead = free_port()
        self.daemon = Daemon(
            self,
            servers=f'[{{ address = "{self.backend.address}" }}]',
            upstream={"policy": "round_robin"},
            more=f"""
[upstreams.broken]
policy = "round_robin"
servers = [{{ address = "{LOOPBACK}:{dead}" }}, {{ address = "{self.backend.address}" }}]
[upstreams.strict]
counting = "strict"
""",
            routes='[{ path = "/broken", upstream = "broken" }]',
        )

    def scrape(self) -> str:
        return ask(self.daemon.admin, "/metrics").body.decode()

    def test_all(self) -> None:
        """
        promtool has nothing against the metrics; requests, failures and retries
        are told; each metric is documented, and no other is; and the alerts and
        the dashboard ask for none that is not there.
        """
        for _ in range(3):
            self.assertEqual(200, ask(self.daemon.http).status)
        self.assertEqual(200, ask(self.daemon.http, "/broken").status)
        self.assertTrue(accepts(self.daemon.stream))
        text = wait_until(self.whole, "the stream to be served and the reactor to be timed")
        run("promtool", "check", "metrics", stdin=text)
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

        def of(name: str, **labels: str) -> float:
            return samples[f"dynbalance_{name}", tuple(sorted(labels.items()))]

        self.assertEqual(3, of("upstream_responses_total", upstream="default", code="2xx"))
        self.assertEqual(3, of("upstream_response_seconds_count", upstream="default"))
        self.assertEqual(1, of("upstream_retries_total", upstream="broken", cause="error"))
        self.assertEqual(1, of("upstream_failed_attempts_total", upstream="broken", cause="error"))
        self.assertGreater(of("store_exchange_seconds_count"), 0)
        self.assertGreater(of("reactor_lag_seconds_count"), 0)
        here = {name for name in names_in(text) if not name.endswith(_SUFFIXES)}
        told = names_in(run(sys.executable, "-c", _REFERENCE, str(ROOT / "docs")))
        self.assertEqual(sorted(here), sorted(told))
        samples_here = here | {name + end for name in here for end in _SUFFIXES}
        files = ("docs/metrics.rst", "etc/prometheus/alerts.yml", "etc/grafana/dynbalance.json")
        for file in files:
            asked = {name for name in names_in((ROOT / file).read_text()) if _WORKER not in name}
            self.assertEqual(set(), asked - samples_here, file)

    def whole(self) -> str:
        """A scrape that has everything, or nothing so far."""
        text = self.scrape()
        served = 'dynbalance_upstream_attempts_total{upstream="default"} 4.0\n'
        timed = "dynbalance_reactor_lag_seconds_count 0" not in text
        return text if timed and served in text else ""


class RulesTests(EndToEndCase):
    """The files for Prometheus and Grafana."""

    def test_alerts(self) -> None:
        """promtool takes the rules, and each alert is raised when it should be, and only then."""
        rules = ROOT / "etc" / "prometheus" / "alerts.yml"
        run("promtool", "check", "rules", str(rules))
        cases = ROOT / "tests" / "endtoend" / "alerts_test.yml"
        run("promtool", "test", "rules", str(cases))
        names = re.findall(r"alert: (\w+)", rules.read_text())
        tested = set(re.findall(r"alertname: (\w+)", cases.read_text()))
        self.assertEqual(sorted(names), sorted(tested))

    def test_dashboard(self) -> None:
        """The dashboard is what Grafana imports: panels with queries, each with a title."""
        board = json.loads((ROOT / "etc" / "grafana" / "dynbalance.json").read_text())
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 10)
        for panel in panels:
            self.assertTrue(panel["title"])
            self.assertTrue(panel["targets"])
            for target in panel["targets"]:
                self.assertIn("dynbalance_", target["expr"])
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))


def names_in(text: str) -> set[str]:
    """The metrics that a text names."""
    return set(_NAME.findall(text))


class ChurnTests(EndToEndCase):
    """A daemon with many servers, of which some come and go all the time."""

    def setUp(self) -> None:
        self.daemon = Daemon(self)
        self.names = [f"127.0.{n >> 8}.{n & 255}:9" for n in range(1, MANY + 1)]
        servers = [{"addr": name} for name in self.names]
        document = {"format": "dynbalance-1", "upstreams": {"default": {"servers": servers}}}
        kind = {"Content-Type": "application/json"}
        body = json.dumps({"data": document}).encode()
        answer = ask(self.daemon.admin, "/upstream/import", "POST", body, kind)
        self.assertEqual(200, answer.status, answer.body[:500])
        self.over = False
        self.done: list[int] = []

    def churn(self) -> None:
        """Until it is over, the last of the servers leaves and comes, and so does another."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        host, _, port = self.names[-1].partition(":")
        for _ in range(1000):
            other = "127.1.0.1"
            orders = ("remove", host), ("add", other), ("add", host), ("remove", other)
            for path, name in orders:
                body = f"host={name}&port={port}".encode()
                answer = ask(self.daemon.admin, f"/upstream/{path}", "POST", body, kind)
                self.done.append(answer.status)
            if self.over:
                return

    def test_scrapes(self) -> None:
        """
        Each page is one that Prometheus takes: it has each series once, and all
        servers that were there all the time; orders are carried out meanwhile.
        """
        churning = threading.Thread(target=self.churn, daemon=True)
        churning.start()
        stay = set(self.names[:-1])
        text = ""
        for _ in range(5):
            before = len(self.done)
            text = ask(self.daemon.admin, "/metrics").body.decode()
            wait_until(lambda last=before: len(self.done) > last, "orders to be carried out")
            lines = [line for line in text.splitlines() if line[0] != "#"]
            series = {line.rpartition(" ")[0] for line in lines}
            self.assertEqual(len(lines), len(series))
            for name in ("weight", "picks_total", "response_seconds_count"):
                start = f'dynbalance_server_{name}{{server="'
                ours = (each for each in series if each.startswith(start))
                told = {each[len(start) :].partition('"')[0] for each in ours}
                self.assertLessEqual(stay, told)
                self.assertLessEqual(told - stay, {self.names[-1], "127.1.0.1:9"})
        self.over = True
        churning.join(30)
        self.assertFalse(churning.is_alive())
        self.assertEqual({200}, set(self.done))
        run("promtool", "check", "metrics", stdin=text)

    def test_clients(self) -> None:
        """
        A long page has its length; it may be asked for again over the same connection,
        and who leaves amid it leaves nothing behind.
        """
        for _ in range(3):
            with socket.create_connection((LOOPBACK, self.daemon.admin), 30) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(client.recv(1000).startswith(b"HTTP/1.1 200 OK"))
        connection = http.client.HTTPConnection(LOOPBACK, self.daemon.admin, timeout=30)
        self.addCleanup(connection.close)
        for method in ("GET", "HEAD", "GET"):
            connection.request(method, "/metrics")
            with connection.getresponse() as response:
                length, body = int(response.headers["Content-Length"]), response.read()
            self.assertGreater(length, 1_000_000)
            self.assertEqual(len(body), 0 if method == "HEAD" else length)
            self.assertEqual(body[-1:], b"" if method == "HEAD" else b"\n")
