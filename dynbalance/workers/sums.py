"""
The metrics of several processes as those of one.

Counters are added up, and what a process had counted when it ended is kept:
a sum never goes backwards.  What is measured rather than counted is told for
each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from attrs import evolve, frozen
from prometheus_client.metrics_core import Metric

_COUNTED = ("counter", "histogram")

Labels = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they are shown."""

Key = tuple[str, Labels]
"""A sample's name and its labels."""


@frozen(slots=True)
class Family:
    """
    The samples of one metric.

    @ivar kind: C{counter}, C{gauge} or C{histogram}.
    """

    name: str
    documentation: str
    kind: str
    samples: Mapping[Key, float]


def families_of(metrics: Iterable[Metric]) -> tuple[Family, ...]:
    """What collectors gave."""
    return tuple(
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            {
                (sample.name, tuple(sample.labels.items())): float(sample.value)
                for sample in metric.samples
            },
        )
        for metric in metrics
    )


def to_json(families: Iterable[Family]) -> list[Any]:
    """As it is said over the wire."""
    return [
        [
            each.name,
            each.documentation,
            each.kind,
            [[name, labels, value] for (name, labels), value in each.samples.items()],
        ]
        for each in families
    ]


def from_json(data: list[Any]) -> tuple[Family, ...]:
    """The reverse of L{to_json}."""
    return tuple(
        Family(
            name,
            documentation,
            kind,
            {
                (sample, tuple((label, text) for label, text in labels)): value
                for sample, labels, value in samples
            },
        )
        for name, documentation, kind, samples in data
    )


class Sums:
    """The last word of each worker, and what those counted that are gone."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Family, ...]] = {}
        self._past: dict[str, Family] = {}

    def heard(self, worker: int, families: tuple[Family, ...]) -> None:
        """@param worker: its number."""
        self._last[worker] = families

    def gone(self, worker: int) -> None:
        """Its process has ended; what the next one counts begins at nothing."""
        for family in self._last.pop(worker, ()):
            if family.kind in _COUNTED:
                past = self._past.get(family.name)
                added = family if past is None else _sum(past, family)
                self._past[family.name] = added

    def forget(self, is_known: Callable[[Mapping[str, str]], bool]) -> None:
        """
        Keep nothing of the past of what is no more.

        @param is_known: tells it by a sample's labels.
        """
        for name, family in self._past.items():
            kept = {key: n for key, n in family.samples.items() if is_known(dict(key[1]))}
            self._past[name] = evolve(family, samples=kept)

    def metrics(self, answering: Collection[int]) -> list[Metric]:
        """
        @param answering: the workers whose last word is fresh; what the others
            measured then is not so now.
        """
        told = dict(self._past)
        for worker, families in sorted(self._last.items()):
            for heard in families:
                family = heard
                if heard.kind not in _COUNTED:
                    family = _marked(heard, worker if worker in answering else None)
                so_far = told.get(family.name)
                told[family.name] = family if so_far is None else _sum(so_far, family)
        return [_metric(family) for family in told.values()]


def _sum(left: Family, right: Family) -> Family:
    samples = dict(left.samples)
    for key, value in right.samples.items():
        samples[key] = samples.get(key, 0.0) + value
    return evolve(right, samples=samples)


def _marked(family: Family, worker: int | None) -> Family:
    """With the worker as a label; without samples for C{None}."""
    if worker is None:
        return evolve(family, samples={})
    mark = ("worker", str(worker))
    samples = {(name, (*labels, mark)): n for (name, labels), n in family.samples.items()}
    return evolve(family, samples=samples)


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.documentation, family.kind)
    for (name, labels), value in family.samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric
