"""
What Prometheus reads.

The balancer counts in plain integers on the way of each request; they are
read here when somebody asks, and nothing is kept twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dynbalance.admin.answers import Page
from dynbalance.admin.crew import Crew
from dynbalance.admin.families import MANY, Families
from dynbalance.admin.figures import Figures, figures
from dynbalance.admin.measured import Measured
from dynbalance.admin.serverfigures import Given
from dynbalance.slices import IN_ONE_GO, Slices

LONG = 256 * 1024
"""Bytes of a page that is not made one any more: to copy it would take milliseconds."""


class BalancerCollector(Collector):
    """
    The balancer's, the store's and the listeners' numbers, read at each scrape.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterable[Metric]:
        return self.told(figures(self._measured.balancer))

    def told(self, of_upstreams: Iterable[Metric]) -> Iterable[Metric]:
        """
        Those of the balancer with all others.

        @param of_upstreams: that were made already.
        """
        yield from self._listeners()
        yield from self._store()
        yield from of_upstreams
        yield from self._reactor()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are fixed, and to collect at registration is in vain."""
        return ()

    def _store(self) -> Iterable[Metric]:
        membership, to = self._measured.membership, Families("store", ())
        to.gauge(
            "available",
            "Whether the last exchange with the store went well (1) or not (0).",
            (),
            membership.contact.available,
        )
        to.gauge(
            "stale_seconds",
            "Time since the last exchange with the store while they fail, else 0.",
            (),
            membership.contact.stale_for,
        )
        to.gauge(
            "synced_ago_seconds",
            "Time since the last exchange with the store that went well.",
            (),
            membership.contact.synced_ago,
        )
        to.times(
            "exchange_seconds",
            "Time that exchanges of counts with the store took.",
            (),
            membership.contact.exchanges,
            MANY,
        )
        to.count_each(
            "failed_exchanges",
            "Exchanges that failed: the store did not answer (away), or not as it should (broken).",
            (),
            "cause",
            {contact.value: number for contact, number in membership.contact.failures.items()},
        )
        return to.made()

    def _listeners(self) -> Iterable[Metric]:
        to = Families("listener", ("kind", "listen"))
        for door in self._measured.doors():
            labels, counts = (door.kind, door.listen), door.listener
            to.gauge(
                "connections",
                "Connections of clients, those included that are still shaking hands.",
                labels,
                counts.active + door.waiting,
            )
            to.count("accepted", "Connections that were served.", labels, counts.accepted)
            to.count(
                "rejected",
                "Connections closed at once for max_connections.",
                labels,
                counts.rejected,
            )
            to.count(
                "failed_handshakes",
                "Connections closed because TLS came to nothing.",
                labels,
                door.failed_handshakes,
            )
            to.count(
                "broken_headers",
                "Connections closed because they did not begin with a PROXY header.",
                labels,
                door.broken_headers,
            )
            to.count("requests", "Requests of HTTP, bad ones aside.", labels, door.requests)
            to.count(
                "bad_requests",
                "Requests of HTTP that were answered with an error before any server was asked.",
                labels,
                door.bad_requests,
            )
            to.count(
                "unserved",
                "Connections of streams closed because no server took them.",
                labels,
                door.unserved,
            )
        return to.made()

    def _reactor(self) -> Iterable[Metric]:
        to = Families("reactor", ())
        lag, inventory = self._measured.lag, self._measured.inventory
        if lag is not None:
            to.times(
                "lag_seconds",
                "How late a timer was that should ring four times a second.",
                (),
                lag.times,
                MANY,
            )
        if inventory is not None:
            to.gauge("timers", "Calls that are to be made later.", (), inventory.timers)
            to.gauge(
                "descriptors",
                "Descriptors that are watched: connections, listeners and a few more.",
                (),
                inventory.descriptors,
            )
            to.gauge_each(
                "objects",
                "Objects by type; only where DYNBALANCE_INVARIANTS is set.",
                (),
                "type",
                inventory.objects(),
            )
        return to.made()


class Metrics:
    """The text that Prometheus reads, from a registry of our own."""

    def __init__(
        self, measured: Measured, crew: Crew | None = None, slices: Slices = IN_ONE_GO
    ) -> None:
        """
        @param crew: who serves, if it is not this process.
        @param slices: in which the text is written.
        """
        self._balancer = measured.balancer
        self._slices = slices
        self._crew = crew
        self._traffic = BalancerCollector(measured)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    async def traffic(self) -> tuple[Iterable[Metric], Iterable[Given]]:
        """What this process counts of its traffic; that of servers in pieces."""
        figures = await self._figures()
        return self._traffic.told(figures.of_upstreams()), figures.samples()

    async def _figures(self) -> Figures:
        figures = Figures(self._balancer)
        await self._slices.run(figures.look())
        return figures

    async def page(self) -> Page:
        """The text, as of when it was asked for."""
        if self._crew is None:
            figures = await self._figures()
            body = self._written(self._traffic.told(figures.of_upstreams()))
            parts: tuple[bytes, ...] = tuple(await self._slices.run(figures.lines()))
        else:
            body, parts = self._written(await self._crew.traffic(self._is_known)), ()
        if sum(map(len, parts)) < LONG:
            body, parts = b"".join((body, *parts)), ()
        kind = CONTENT_TYPE_LATEST.encode("ascii")
        return Page(content_type=kind, body=body, parts=parts)

    def _written(self, metrics: Iterable[Metric]) -> bytes:
        """With those of the process."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._process)
        registry.register(_Gathered(metrics))
        return generate_latest(registry)

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
