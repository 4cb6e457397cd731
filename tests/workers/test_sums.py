"""
Tests for L{dynbalance.workers.sums}.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from twisted.trial.unittest import TestCase

from dynbalance.workers.sums import Family, Sums, families_of, from_json, to_json


def told(picks: dict[str, float], held: float = 0) -> tuple[Family, ...]:
    """What a worker says, as it arrives."""
    counter = CounterMetricFamily("picks", "Choices.", labels=("upstream", "server"))
    for server, count in picks.items():
        counter.add_metric(("u", server), count)
    gauge = GaugeMetricFamily("held", "Held.", labels=("upstream",))
    gauge.add_metric(("u",), held)
    took = HistogramMetricFamily("took", "Seconds.", labels=("upstream",))
    total = sum(picks.values())
    took.add_metric(("u",), [("1.0", total), ("+Inf", 2 * total)], total / 2)
    return from_json(json.loads(json.dumps(to_json(families_of([counter, gauge, took])))))


def samples(metrics: list[Metric]) -> dict[tuple[str, str], float]:
    """Name and labels -> value."""
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
    }


class SumsTests(TestCase):
    """L{Sums}."""

    def setUp(self) -> None:
        self.sums = Sums()

    def shown(self, answering: Collection[int] = (1, 2)) -> dict[tuple[str, str], float]:
        return samples(self.sums.metrics(answering))

    def picks(self, server: str = "a") -> float:
        return self.shown()["picks_total", f"upstream=u,server={server}"]

    def test_counters(self) -> None:
        """What is counted is added up, server by server."""
        self.sums.heard(1, told({"a": 3, "b": 1}))
        self.sums.heard(2, told({"a": 4, "c": 1}))
        self.assertEqual([7, 1, 1], [self.picks(server) for server in "abc"])

    def test_newest(self) -> None:
        """The last word of a worker takes the place of the one before."""
        self.sums.heard(1, told({"a": 3}))
        self.sums.heard(1, told({"a": 5}))
        self.assertEqual(5, self.picks())

    def test_gauges(self) -> None:
        """What is measured is shown for each, if it is fresh."""
        self.sums.heard(1, told({}, held=3))
        self.sums.heard(2, told({}, held=4))
        shown = self.shown()
        self.assertEqual(3, shown["held", "upstream=u,worker=1"])
        self.assertEqual(4, shown["held", "upstream=u,worker=2"])
        shown = self.shown(answering=[2])
        self.assertNotIn(("held", "upstream=u,worker=1"), shown)
        self.assertIn(("held", "upstream=u,worker=2"), shown)

    def test_histograms(self) -> None:
        """All of a histogram's samples are added up."""
        self.sums.heard(1, told({"a": 3}))
        self.sums.heard(2, told({"a": 5}))
        shown = self.shown()
        self.assertEqual(8, shown["took_bucket", "upstream=u,le=1.0"])
        self.assertEqual(16, shown["took_bucket", "upstream=u,le=+Inf"])
        self.assertEqual(4, shown["took_sum", "upstream=u"])
        self.assertEqual(16, shown["took_count", "upstream=u"])

    def test_gone(self) -> None:
        """What one that ended had counted stays, also when nobody is left."""
        self.sums.heard(1, told({"a": 3}, held=9))
        self.sums.gone(1)
        self.sums.gone(2)
        self.assertEqual(3, self.picks())
        self.assertNotIn(("held", "upstream=u,worker=1"), self.shown())
        self.sums.heard(1, told({"a": 1, "b": 1}))
        self.assertEqual([4, 1], [self.picks(server) for server in "ab"])
        self.sums.gone(1)
        self.assertEqual([4, 1], [self.picks(server) for server in "ab"])

    def test_forget(self) -> None:
        """The past of what is no more is not kept for ever."""
        self.sums.heard(1, told({"a": 3, "b": 1}))
        self.sums.gone(1)
        self.sums.forget(lambda labels: labels.get("server") != "b")
        self.assertEqual(3, self.picks())
        self.assertNotIn(("picks_total", "upstream=u,server=b"), self.shown())

    @given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(-1, 50))))
    def test_never_backwards(self, story: list[tuple[int, int]]) -> None:
        """However workers count (by a step) and end (-1), no sum falls."""
        sums, counts, before = Sums(), {1: 0, 2: 0, 3: 0}, 0.0
        for worker, step in story:
            if step < 0:
                sums.gone(worker)
                counts[worker] = 0
            else:
                counts[worker] += step
                sums.heard(worker, told({"a": counts[worker]}))
            now = samples(sums.metrics(())).get(("picks_total", "upstream=u,server=a"), 0.0)
            self.assertGreaterEqual(now, before)
            before = now
        self.assertEqual(sum(step for _, step in story if step > 0), before)
