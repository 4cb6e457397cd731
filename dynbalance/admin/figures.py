"""
What the upstreams count, as metrics.

Knows what each number means to people; refuses to know who counts and who asks,
and what is told of each server (L{dynbalance.admin.serverfigures}).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric

from dynbalance.admin.families import MANY, Families
from dynbalance.admin.serverfigures import (
    CLASSES,
    Given,
    Labelled,
    as_lines,
    as_metrics,
    as_samples,
)
from dynbalance.balancer.server import State
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.tally import Carried
from dynbalance.balancer.upstream import Upstream

_STATES = tuple(state for state in State if state is not State.REMOVED)


class _Seen:
    """
    One upstream at one time.

    @ivar servers: that it had, when L{look} is at its end.
    @ivar states: how many of them were in each.
    @ivar carried: what they had done, and those that were gone.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.servers: list[Labelled] = []
        self._here = list(upstream.servers)
        self.states: Counter[State] = Counter()
        self.carried, self._adding = upstream.tally.adding()

    def look(self) -> Iterator[None]:
        """In pieces."""
        for server in self._here:
            self.states[server.state] += 1
            self.servers.append(Labelled(self.upstream.name, server))
            yield
        yield from self._adding


class Figures:
    """
    Those of upstreams and of their servers at one time: a server that comes or
    leaves while they are told changes nothing of them.
    """

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self._seen = [_Seen(upstream) for upstream in upstreams]

    def look(self) -> Iterator[None]:
        """Find out what there is, in pieces; to be done before anything is told."""
        for seen in self._seen:
            yield from seen.look()

    def of_upstreams(self) -> list[Metric]:
        """Without those of servers."""
        whole = Families("upstream", ("upstream",))
        for seen in self._seen:
            _state(seen, whole)
            _flow(seen, whole)
            _line(seen.upstream, whole)
        return whole.made()

    def of_servers(self) -> list[Metric]:
        """Without those of upstreams."""
        return as_metrics(self._servers())

    def samples(self) -> Iterator[Given]:
        """The same in pieces."""
        return as_samples(self._servers())

    def lines(self) -> Iterator[bytes]:
        """Those of servers as Prometheus reads them, in pieces."""
        return as_lines(self._servers())

    def _servers(self) -> list[Labelled]:
        return [each for seen in self._seen for each in seen.servers]


def figures(upstreams: Iterable[Upstream]) -> list[Metric]:
    """Those of upstreams and of their servers, in one go."""
    whole = Figures(upstreams)
    for _ in whole.look():
        pass
    return [*whole.of_upstreams(), *whole.of_servers()]


def _state(seen: _Seen, to: Families) -> None:
    upstream = seen.upstream
    labels = (upstream.name,)
    to.gauge_each(
        "servers",
        "Servers of an upstream by their state on this node.",
        labels,
        "state",
        {state.value: seen.states[state] for state in _STATES},
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


def _flow(seen: _Seen, to: Families) -> None:
    upstream, carried = seen.upstream, seen.carried
    labels, tally = (upstream.name,), upstream.tally
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


def _by_class(responses: list[int]) -> dict[str, int]:
    # A class that never came needs no series of its own.
    return {name: n for name, n in zip(CLASSES, responses, strict=True) if n}


def _by_direction(carried: Carried) -> dict[str, int]:
    return {"in": carried.bytes_in, "out": carried.bytes_out}
