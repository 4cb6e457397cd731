"""
What Prometheus gets of a daemon that works: checked by its own tools, and beside
what the documentation, the alerts and the dashboard say.
"""

from __future__ import annotations

import json
import re
import sys

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
