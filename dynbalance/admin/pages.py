"""
The pages beside the API: metrics, liveness and readiness, and the way to the dashboard.

Knows what each says; refuses to know what is asked of the API.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from dynbalance.admin import dashboard
from dynbalance.admin.answers import Answer, Json, Page
from dynbalance.admin.api import Endpoint
from dynbalance.admin.caller import Role
from dynbalance.admin.crew import Crew
from dynbalance.admin.metrics import Metrics
from dynbalance.admin.scene import Ask
from dynbalance.admin.serverfigures import Given
from dynbalance.balancer.balancer import Balancer


class Pages:
    """What the admin site serves outside C{/upstream/}."""

    def __init__(self, balancer: Balancer, metrics: Metrics, crew: Crew | None = None) -> None:
        """@param crew: who serves, if it is not this process."""
        self._balancer = balancer
        self._metrics = metrics
        self._crew = crew

    def endpoints(self) -> tuple[Endpoint, ...]:
        get = (b"GET",)
        read = Role.READ
        return (
            *dashboard.endpoints(),
            Endpoint(
                b"/metrics",
                get,
                None,
                self.metrics,
                "Tell Prometheus",
                needs=read,
                produces="text/plain",
            ),
            Endpoint(
                b"/healthz", get, None, self.healthz, "Answer while the process lives", needs=None
            ),
            Endpoint(
                b"/readyz",
                get,
                None,
                self.readyz,
                "Say whether there is a server",
                needs=read,
                may_fail=True,
            ),
        )

    async def traffic(self) -> tuple[Iterable[Metric], Iterable[Given]]:
        """See L{Metrics.traffic}."""
        return await self._metrics.traffic()

    async def metrics(self, ask: Ask) -> Page:
        return await self._metrics.page()

    async def healthz(self, ask: Ask) -> Answer:
        """Alive: who can answer is."""
        return Answer("OK")

    async def readyz(self, ask: Ask) -> Answer:
        """Ready while at least one upstream has a server that may be chosen."""
        usable = {upstream.name: upstream.usable for upstream in self._balancer}
        why = {
            upstream.name: upstream.why_none()
            for upstream in self._balancer
            if not usable[upstream.name]
        }
        data: Json = {"usable_servers": usable, "why": why}
        if self._crew is not None and not self._crew.serving:
            return Answer("No worker serves", data, status=503)
        if any(usable.values()):
            return Answer("Ready", data)
        return Answer("No upstream has a usable server", data, status=503)
