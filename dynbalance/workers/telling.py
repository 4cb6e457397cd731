"""
What a worker tells of its servers, put together in pieces, because it serves
meanwhile and there may be ten thousand of them.

Writes the JSON that L{dynbalance.workers.sums} and L{dynbalance.workers.lives} read;
refuses to know what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from json import JSONEncoder

from prometheus_client.metrics_core import Metric

from dynbalance.admin.crew import Live
from dynbalance.admin.serverfigures import Given
from dynbalance.balancer.server import Server
from dynbalance.workers.lives import lives_to_json
from dynbalance.workers.sums import families_of, to_json

_written = JSONEncoder(separators=(",", ":")).encode


def metrics_text(whole: Iterable[Metric], of_servers: Iterable[Given]) -> Iterator[str]:
    """
    As L{to_json} has it.

    @param whole: metrics that are made already.
    @param of_servers: the pieces of the others.
    """
    yield "["
    comma, last = "", None
    for told in to_json(families_of(whole)):
        yield f"{comma}{_written(told)}"
        comma = ","
    for metric, samples in of_servers:
        if metric is not last:
            yield "" if last is None else "]]"
            head = _written([metric.name, metric.documentation, metric.type])
            yield f"{comma}{head[:-1]},["
            comma, last, between = ",", metric, ""
        if samples:
            listed = [[name, list(labels.items()), number] for name, labels, number in samples]
            yield f"{between}{_written(listed)[1:-1]}"
            between = ","
    yield "]" if last is None else "]]]"


def lives_text(servers: Iterable[Server]) -> Iterator[str]:
    """As L{lives_to_json} has it."""
    yield "{"
    comma = ""
    for server in servers:
        yield f"{comma}{_written(lives_to_json({server.key: Live.of(server)}))[1:-1]}"
        comma = ","
    yield "}"
