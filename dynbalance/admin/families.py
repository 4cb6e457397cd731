"""
Metrics that are made in one go from what somebody has counted already.

Knows Prometheus' kinds and how a histogram is told; refuses to know what is
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from dynbalance.balancer.latency import Times, up_to

MANY = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds: the bounds of a histogram of which there are few."""

FEW = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Seconds: those of a histogram that each server has."""


class Families:
    """
    Those of one subject: they begin with the same word and have the same first
    labels.
    """

    def __init__(self, subject: str, labels: Sequence[str]) -> None:
        """
        @param subject: the word behind C{dynbalance_} in the names.
        @param labels: names, of which each sample has values.
        """
        self._subject = subject
        self._labels = tuple(labels)
        self._families: dict[str, Metric] = {}

    def _family(self, kind: Any, name: str, says: str, labels: tuple[str, ...]) -> Any:
        family = self._families.get(name)
        if family is None:
            full = f"dynbalance_{self._subject}_{name}"
            family = self._families[name] = kind(full, says, labels=(*self._labels, *labels))
        return family

    def count(self, name: str, says: str, labels: Sequence[str], number: float) -> None:
        """
        @param says: for people.
        @param labels: values.
        """
        self._family(CounterMetricFamily, name, says, ()).add_metric(labels, number)

    def count_each(
        self, name: str, says: str, labels: Sequence[str], by: str, numbers: Mapping[Any, int]
    ) -> None:
        """@param by: the name of one more label, whose values C{numbers} has as keys."""
        family = self._family(CounterMetricFamily, name, says, (by,))
        for value, number in numbers.items():
            family.add_metric((*labels, str(value)), number)

    def gauge(self, name: str, says: str, labels: Sequence[str], number: float) -> None:
        """What goes up and down."""
        self._family(GaugeMetricFamily, name, says, ()).add_metric(labels, number)

    def gauge_each(
        self, name: str, says: str, labels: Sequence[str], by: str, numbers: Mapping[Any, float]
    ) -> None:
        """As L{count_each}."""
        family = self._family(GaugeMetricFamily, name, says, (by,))
        for value, number in numbers.items():
            family.add_metric((*labels, str(value)), number)

    def times(
        self, name: str, says: str, labels: Sequence[str], times: Times, bounds: Sequence[float]
    ) -> None:
        """@param bounds: some of L{dynbalance.balancer.latency.BOUNDS}."""
        buckets = [(floatToGoString(bound), n) for bound, n in up_to(times.counts, bounds)]
        buckets.append(("+Inf", sum(times.counts)))
        family = self._family(HistogramMetricFamily, name, says, ())
        family.add_metric(labels, buckets, times.total)

    def made(self) -> list[Metric]:
        """All of them."""
        return list(self._families.values())
