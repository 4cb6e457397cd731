"""
What the upstreams and their servers count, as metrics.

Knows what each number means to people; refuses to know who counts and who asks.
A server that was removed has no series any more; the upstream's go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from dynbalance.admin.families import FEW, MANY, Families
from dynbalance.balancer.server import Server, State
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.tally import Carried
from dynbalance.balancer.upstream import Upstream

_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Names of the indices of L{Server.responses}."""

_STATES = tuple(state for state in State if state is not State.REMOVED)


def figures(upstreams: Iterable[Upstream]) -> list[Metric]:
    """Those of upstreams and of their servers."""
    whole = Families("upstream", ("upstream",))
    each = Families("server", ("upstream", "server"))
    for upstream in upstreams:
        _state(upstream, whole)
        _flow(upstream, whole)
        _line(upstream, whole)
        for server in upstream.servers:
            labels = (upstream.name, server.key)
            _standing(server, labels, each)
            _work(server, labels, each)
    return [*whole.made(), *each.made()]


def _state(upstream: Upstream, to: Families) -> None:
    labels = (upstream.name,)
    states = Counter(server.state for server in upstream.servers)
    to.gauge_each(
        "servers",
        "Servers of an upstream by their state on this node.",
        labels,
        "state",
        {state.value: states[state] for state in _STATES},
    )
    to.gauge(
        "panic",
        "Whether no server is good and those that were good last are used.",
        labels,
        upstream.panicking,
    )
    if isinstance(upstream, StrictUpstream):
        to.gauge(
            "strict",
            "Whether max_conns holds over all nodes now, where counting is strict.",
            labels,
            upstream.exact,
        )


def _flow(upstream: Upstream, to: Families) -> None:
    labels, tally, carried = (upstream.name,), upstream.tally, upstream.tally.carried
    to.count(
        "requests",
        "Requests and connections for which a server was looked for.",
        labels,
        upstream.budget.total,
    )
    to.count("attempts", "How often a server was chosen.", labels, carried.picks)
    to.count_each(
        "failed_attempts",
        "Attempts that failed, by what next_upstream calls their cause.",
        labels,
        "cause",
        tally.failed,
    )
    to.count_each(
        "retries",
        "Attempts that followed another one, by that one's cause; stale: a kept connection"
        " was dead.",
        labels,
        "cause",
        tally.retries,
    )
    to.count(
        "refused_retries",
        "Retries that retry_budget did not allow.",
        labels,
        upstream.budget.refused,
    )
    to.count_each(
        "responses", "Answers of servers by the class of their status.",
        labels, "code", _by_class(carried.responses),
    )  # fmt: skip
    to.count_each(
        "unanswered",
        "Requests and connections that got no server's answer, by the status that the client"
        " got or would have got; 499: the client had left.",
        labels,
        "code",
        tally.unanswered,
    )
    to.count_each(
        "bytes", "Bytes from clients to servers (in) and back (out).",
        labels, "direction", _by_direction(carried),
    )  # fmt: skip
    to.times(
        "response_seconds",
        "Time from the choice of a server to the head of its answer.",
        labels,
        carried.times,
        MANY,
    )
    to.times(
        "connect_seconds",
        "Time that new connections to servers took, TLS included.",
        labels,
        carried.connects,
        MANY,
    )


def _line(upstream: Upstream, to: Families) -> None:
    labels, tally = (upstream.name,), upstream.tally
    to.gauge(
        "waiting",
        "Requests and streams that wait because all servers are full.",
        labels,
        upstream.waiting,
    )
    to.times(
        "wait_seconds",
        "Time that who waited for a slot waited for it; where counting is strict, everybody does.",
        labels,
        tally.waits,
        MANY,
    )
    to.count("waits_in_vain", "Waits that ended without a slot.", labels, tally.vain)
    to.count(
        "queue_full",
        "Those who could not even wait, because the queue was full.",
        labels,
        tally.turned_away,
    )


def _standing(server: Server, labels: tuple[str, str], to: Families) -> None:
    to.gauge_each(
        "state", "1, with the server's state on this node as a label.",
        labels, "state", {server.state.value: 1},
    )  # fmt: skip
    to.count_each(
        "flips",
        "How often a server became ready (up), or ceased to be, and why.",
        labels,
        "state",
        {state.value: number for state, number in server.flips.items()},
    )
    to.gauge("weight", "The weight that was ordered.", labels, server.weight)
    to.gauge(
        "max_connections", "Connections over all nodes at most; 0: no limit.",
        labels, server.max_conns,
    )  # fmt: skip
    to.gauge("connections", "Connections to a server that this node holds.", labels, server.held)
    to.gauge(
        "shared_connections",
        "Connections to a server over all nodes, as far as this node knows.",
        labels,
        server.load,
    )
    to.gauge(
        "slow_start", "The part of its weight that a server has reached, 0 to 1.",
        labels, server.slow,
    )  # fmt: skip


def _work(server: Server, labels: tuple[str, str], to: Families) -> None:
    to.count("picks", "How often a server was chosen.", labels, server.picks)
    to.count(
        "failures", "Attempts on a server that were judged failed.", labels, server.failures
    )
    to.count_each(
        "requests", "Answers of a server by the class of their status.",
        labels, "code", _by_class(server.responses),
    )  # fmt: skip
    to.count_each(
        "bytes", "Bytes from clients to a server (in) and back (out).",
        labels, "direction", _by_direction(server),
    )  # fmt: skip
    to.times(
        "response_seconds",
        "Time from the choice of a server to the head of its answer.",
        labels,
        server.times,
        FEW,
    )
    to.times(
        "connect_seconds",
        "Time that new connections to a server took, TLS included.",
        labels,
        server.connects,
        (),
    )


def _by_class(responses: list[int]) -> dict[str, int]:
    # A class that never came needs no series of its own.
    return {name: n for name, n in zip(_CLASSES, responses, strict=True) if n}


def _by_direction(carried: Server | Carried) -> dict[str, int]:
    return {"in": carried.bytes_in, "out": carried.bytes_out}
