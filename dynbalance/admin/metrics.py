"""
What Prometheus reads.

The balancer counts in plain integers on the way of each request; they are
read here when somebody asks, and nothing is kept twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dynbalance.admin.answers import Page
from dynbalance.admin.crew import Crew
from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.server import State
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.store.membership import Membership

_SERVER = ("upstream", "server")
_LISTENER = ("kind", "listen")
_CODES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Names of the indices of L{dynbalance.balancer.server.Server.responses}."""

_STATES = tuple(state for state in State if state is not State.REMOVED)


class Door(Protocol):
    """
    A listener, with what stands before it.

    @ivar kind: C{http} or C{stream}.
    @ivar listen: its endpoint.
    @ivar waiting: connections whose PROXY header or TLS is not done.
    @ivar broken_headers: see L{dynbalance.entrance.Entrance}.
    @ivar failed_handshakes: likewise.
    """

    kind: str
    listen: str

    @property
    def listener(self) -> Counts: ...

    @property
    def waiting(self) -> int: ...

    @property
    def broken_headers(self) -> int: ...

    @property
    def failed_handshakes(self) -> int: ...


class Counts(Protocol):
    """
    What a listener counts.

    @ivar accepted: connections so far.
    @ivar rejected: others, closed for C{max_connections}.
    """

    accepted: int
    rejected: int

    @property
    def active(self) -> int:
        """Connections now."""


def no_doors() -> Iterable[Door]:
    """There are no listeners."""
    return ()


class BalancerCollector(Collector):
    """
    The balancer's, the store's and the listeners' numbers, read at each scrape.
    """

    def __init__(
        self,
        balancer: Balancer,
        membership: Membership,
        doors: Callable[[], Iterable[Door]] = no_doors,
    ) -> None:
        """@param doors: the listeners there are now."""
        self._balancer = balancer
        self._membership = membership
        self._doors = doors

    def collect(self) -> Iterable[Metric]:
        yield from self._listeners()
        yield from self._store()
        yield from self._upstreams()
        yield from self._servers()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are fixed, and to collect at registration is in vain."""
        return ()

    def _store(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "dynbalance_store_available",
            "Whether the last exchange with the store went well (1) or not (0).",
            value=int(self._membership.available),
        )
        yield GaugeMetricFamily(
            "dynbalance_store_stale_seconds",
            "Time since the last exchange with the store while they fail, else 0.",
            value=self._membership.stale_for,
        )

    def _listeners(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily(
            "dynbalance_listener_connections",
            "Connections of clients, those included that are still shaking hands.",
            labels=_LISTENER,
        )
        accepted = CounterMetricFamily(
            "dynbalance_listener_accepted", "Connections that were served.", labels=_LISTENER
        )
        rejected = CounterMetricFamily(
            "dynbalance_listener_rejected",
            "Connections closed at once for max_connections.",
            labels=_LISTENER,
        )
        handshakes = CounterMetricFamily(
            "dynbalance_listener_failed_handshakes",
            "Connections closed because TLS came to nothing.",
            labels=_LISTENER,
        )
        headers = CounterMetricFamily(
            "dynbalance_listener_broken_headers",
            "Connections closed because they did not begin with a PROXY header.",
            labels=_LISTENER,
        )
        for door in self._doors():
            labels = (door.kind, door.listen)
            connections.add_metric(labels, door.listener.active + door.waiting)
            accepted.add_metric(labels, door.listener.accepted)
            rejected.add_metric(labels, door.listener.rejected)
            handshakes.add_metric(labels, door.failed_handshakes)
            headers.add_metric(labels, door.broken_headers)
        yield from (connections, accepted, rejected, handshakes, headers)

    def _upstreams(self) -> Iterable[Metric]:
        servers = GaugeMetricFamily(
            "dynbalance_upstream_servers",
            "Servers of an upstream by their state on this node.",
            labels=("upstream", "state"),
        )
        waiting = GaugeMetricFamily(
            "dynbalance_upstream_waiting",
            "Requests and streams that wait because all servers are full.",
            labels=("upstream",),
        )
        panic = GaugeMetricFamily(
            "dynbalance_upstream_panic",
            "Whether no server is good and those that were good last are used.",
            labels=("upstream",),
        )
        exact = GaugeMetricFamily(
            "dynbalance_upstream_strict",
            "Whether max_conns holds over all nodes now, where counting is strict.",
            labels=("upstream",),
        )
        for upstream in self._balancer:
            if isinstance(upstream, StrictUpstream):
                exact.add_metric((upstream.name,), upstream.exact)
            states = Counter(server.state for server in upstream.servers)
            for state in _STATES:
                servers.add_metric((upstream.name, state.value), states[state])
            waiting.add_metric((upstream.name,), upstream.waiting)
            panic.add_metric((upstream.name,), upstream.panicking)
        yield from (servers, waiting, panic, exact)

    def _servers(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily(
            "dynbalance_server_connections",
            "Connections to a server that this node holds.",
            labels=_SERVER,
        )
        shared = GaugeMetricFamily(
            "dynbalance_server_shared_connections",
            "Connections to a server over all nodes, as far as this node knows.",
            labels=_SERVER,
        )
        picks = CounterMetricFamily(
            "dynbalance_server_picks", "How often a server was chosen.", labels=_SERVER
        )
        failures = CounterMetricFamily(
            "dynbalance_server_failures",
            "Attempts on a server that were judged failed.",
            labels=_SERVER,
        )
        requests = CounterMetricFamily(
            "dynbalance_server_requests",
            "Answers of a server by the class of their status.",
            labels=(*_SERVER, "code"),
        )
        carried = CounterMetricFamily(
            "dynbalance_server_bytes",
            "Bytes from clients to a server (in) and back (out).",
            labels=(*_SERVER, "direction"),
        )
        slow = GaugeMetricFamily(
            "dynbalance_server_slow_start",
            "The part of its weight that a server has reached, 0 to 1.",
            labels=_SERVER,
        )
        for upstream in self._balancer:
            for server in upstream.servers:
                labels = (upstream.name, server.key)
                connections.add_metric(labels, server.held)
                shared.add_metric(labels, server.load)
                slow.add_metric(labels, server.slow)
                picks.add_metric(labels, server.picks)
                failures.add_metric(labels, server.failures)
                for code, count in zip(_CODES, server.responses, strict=True):
                    # A class that never came needs no series of its own.
                    if count:
                        requests.add_metric((*labels, code), count)
                carried.add_metric((*labels, "in"), server.bytes_in)
                carried.add_metric((*labels, "out"), server.bytes_out)
        yield from (connections, shared, slow, picks, failures, requests, carried)


class Metrics:
    """The text that Prometheus reads, from a registry of our own."""

    def __init__(
        self,
        balancer: Balancer,
        membership: Membership,
        doors: Callable[[], Iterable[Door]] = no_doors,
        crew: Crew | None = None,
    ) -> None:
        """@param crew: who serves, if it is not this process."""
        self._balancer = balancer
        self._crew = crew
        self._traffic = BalancerCollector(balancer, membership, doors)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    def traffic(self) -> Iterable[Metric]:
        """What this process counts of its traffic."""
        return self._traffic.collect()

    async def page(self) -> Page:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._process)
        if self._crew is None:
            registry.register(self._traffic)
        else:
            registry.register(_Gathered(await self._crew.traffic(self._is_known)))
        return Page(
            content_type=CONTENT_TYPE_LATEST.encode("ascii"), body=generate_latest(registry)
        )

    def _is_known(self, labels: Mapping[str, str]) -> bool:
        if "server" not in labels:
            return True
        upstream = self._balancer.upstreams.get(labels["upstream"])
        return upstream is not None and upstream.server(labels["server"]) is not None


class _Gathered(Collector):
    """Metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
