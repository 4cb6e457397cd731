"""
What is told of each server, as metrics and as the text that Prometheus reads.

One table of all that is told, since there may be ten thousand servers, and of each
some thirty numbers: they are written as lines at once, a few servers to a piece.
Knows what each number means to people; refuses to know who counts and who asks.
A server that was removed has no series any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from attrs import frozen
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from dynbalance.admin.families import FEW
from dynbalance.balancer.latency import BOUNDS, Times
from dynbalance.balancer.server import Server

CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Names of the indices of L{Server.responses}."""

PIECE = 16
"""Servers whose lines of one family are a piece."""

Sample: TypeAlias = "tuple[str, str, float]"
"""What follows the name, the value of the further label or nothing, and the number."""

Given: TypeAlias = "tuple[Metric, list[tuple[str, dict[str, str], float]]]"
"""A metric, and samples of it by names, labels and numbers."""


@frozen(slots=True)
class _Family:
    """
    @ivar kind: of metric.
    @ivar says: for people.
    @ivar samples: of a server.
    @ivar by: the name of a further label; empty without one.
    """

    name: str
    kind: Callable[..., Metric]
    says: str
    samples: Callable[[Server], Iterable[Sample]]
    by: str = ""

    def metric(self) -> Metric:
        """Without samples."""
        labels = ("upstream", "server", *([self.by] if self.by not in ("", "le") else []))
        return self.kind(f"dynbalance_server_{self.name}", self.says, labels=labels)


class Labelled:
    """
    A server with its labels as they are written: the names are in the order of the
    alphabet.

    @ivar pair: its own name and its upstream's.
    @ivar own: its own.
    @ivar theirs: its upstream's.
    """

    __slots__ = ("own", "pair", "server", "theirs", "upstream")

    def __init__(self, upstream: str, server: Server) -> None:
        self.server = server
        self.upstream = upstream
        self.own = f'server="{_escaped(server.key)}"'
        self.theirs = f'upstream="{_escaped(upstream)}"'
        self.pair = f"{self.own},{self.theirs}"


def as_samples(servers: Sequence[Labelled]) -> Iterator[Given]:
    """In pieces; those of one metric follow each other, and have the same object for it."""
    for family in _FAMILIES:
        metric = family.metric()
        for first in range(0, len(servers), PIECE):
            yield metric, list(_samples(family, metric.name, servers[first : first + PIECE]))


def _samples(
    family: _Family, name: str, servers: Iterable[Labelled]
) -> Iterator[tuple[str, dict[str, str], float]]:
    for each in servers:
        for suffix, value, number in family.samples(each.server):
            labels = {"upstream": each.upstream, "server": each.server.key}
            if value:
                labels[family.by] = value
            yield name + suffix, labels, number


def as_metrics(servers: Sequence[Labelled]) -> list[Metric]:
    """All in one go."""
    made: dict[str, Metric] = {}
    for metric, samples in as_samples(servers):
        made[metric.name] = metric
        for sample in samples:
            metric.add_sample(*sample)
    return list(made.values())


def as_lines(servers: Sequence[Labelled]) -> Iterator[bytes]:
    """The same as text, in pieces."""
    for family in _FAMILIES:
        metric = family.metric()
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        if servers:
            yield f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n".encode()
        for first in range(0, len(servers), PIECE):
            yield _text(family, metric.name, servers[first : first + PIECE]).encode()


def _text(family: _Family, name: str, servers: Iterable[Labelled]) -> str:
    by, samples = family.by, family.samples
    lines = []
    for each in servers:
        for suffix, value, number in samples(each.server):
            if not value:
                labels = each.pair
            elif by < "server":
                labels = f'{by}="{value}",{each.pair}'
            else:
                labels = f'{each.own},{by}="{value}",{each.theirs}'
            told = f"{number}.0" if number.__class__ is int else floatToGoString(number)
            lines.append(f"{name}{suffix}{{{labels}}} {told}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _one(read: Callable[[Server], float], suffix: str = "") -> Callable[[Server], Iterable[Sample]]:
    return lambda server: ((suffix, "", read(server)),)


def _timed(
    read: Callable[[Server], Times], bounds: Sequence[float]
) -> Callable[[Server], Iterable[Sample]]:
    """@param bounds: some of L{BOUNDS}."""
    marks = [(floatToGoString(bound), BOUNDS.index(bound)) for bound in bounds]

    def samples(server: Server) -> Iterable[Sample]:
        times = read(server)
        sums = list(accumulate(times.counts))
        total = sums[-1]
        told: list[Any] = [("_bucket", mark, sums[index]) for mark, index in marks]
        told += (("_bucket", "+Inf", total), ("_count", "", total), ("_sum", "", times.total))
        return told

    return samples


def _answers(server: Server) -> Iterable[Sample]:
    # A class that never came needs no series of its own.
    named = zip(CLASSES, server.responses, strict=True)
    return [("_total", name, number) for name, number in named if number]


_FAMILIES = (
    _Family(
        "state", GaugeMetricFamily, "1, with the server's state on this node as a label.",
        lambda server: (("", server.state.value, 1),), "state",
    ),
    _Family(
        "flips", CounterMetricFamily,
        "How often a server became ready (up), or ceased to be, and why.",
        lambda server: [("_total", state.value, n) for state, n in server.flips.items()], "state",
    ),
    _Family(
        "weight", GaugeMetricFamily, "The weight that was ordered.",
        _one(lambda server: server.weight),
    ),
    _Family(
        "max_connections", GaugeMetricFamily,
        "Connections over all nodes at most; 0: no limit.",
        _one(lambda server: server.max_conns),
    ),
    _Family(
        "connections", GaugeMetricFamily, "Connections to a server that this node holds.",
        _one(lambda server: server.held),
    ),
    _Family(
        "shared_connections", GaugeMetricFamily,
        "Connections to a server over all nodes, as far as this node knows.",
        _one(lambda server: server.load),
    ),
    _Family(
        "slow_start", GaugeMetricFamily,
        "The part of its weight that a server has reached, 0 to 1.",
        _one(lambda server: float(server.slow)),
    ),
    _Family(
        "picks", CounterMetricFamily, "How often a server was chosen.",
        _one(lambda server: server.picks, "_total"),
    ),
    _Family(
        "failures", CounterMetricFamily, "Attempts on a server that were judged failed.",
        _one(lambda server: server.failures, "_total"),
    ),
    _Family(
        "requests", CounterMetricFamily, "Answers of a server by the class of their status.",
        _answers, "code",
    ),
    _Family(
        "bytes", CounterMetricFamily, "Bytes from clients to a server (in) and back (out).",
        lambda server: (("_total", "in", server.bytes_in), ("_total", "out", server.bytes_out)),
        "direction",
    ),
    _Family(
        "response_seconds", HistogramMetricFamily,
        "Time from the choice of a server to the head of its answer.",
        _timed(lambda server: server.times, FEW), "le",
    ),
    _Family(
        "connect_seconds", HistogramMetricFamily,
        "Time that new connections to a server took, TLS included.",
        _timed(lambda server: server.connects, ()), "le",
    ),
)  # fmt: skip
