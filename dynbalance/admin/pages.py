"""
The pages beside the API: the dashboard, metrics, liveness and readiness.

Knows what each says; refuses to know what is asked of the API.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from importlib import resources

from prometheus_client.metrics_core import Metric

from dynbalance.admin.answers import Answer, Json, Page
from dynbalance.admin.api import Endpoint
from dynbalance.admin.caller import Role
from dynbalance.admin.crew import Crew
from dynbalance.admin.metrics import Door, Metrics, no_doors
from dynbalance.admin.scene import Ask
from dynbalance.balancer.balancer import Balancer
from dynbalance.lag import Lag
from dynbalance.store.membership import Membership

_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


class Pages:
    """What the admin site serves outside C{/upstream/}."""

    def __init__(
        self,
        balancer: Balancer,
        membership: Membership,
        doors: Callable[[], Iterable[Door]] = no_doors,
        crew: Crew | None = None,
        lag: Lag | None = None,
    ) -> None:
        """
        @param doors: the listeners there are now.
        @param crew: who serves, if it is not this process.
        @param lag: of this process's reactor.
        """
        self._balancer = balancer
        self._crew = crew
        self._metrics = Metrics(balancer, membership, doors, crew, lag)
        self._dashboard = _dashboard()

    def endpoints(self) -> tuple[Endpoint, ...]:
        get = (b"GET",)
        read = Role.READ
        return (
            Endpoint(
                b"/",
                get,
                None,
                self.dashboard,
                "Show the dashboard",
                # It holds nothing of ours, and asks for what it shows.
                needs=None,
                produces="text/html",
            ),
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

    def traffic(self) -> Iterable[Metric]:
        """What this process counts of its traffic."""
        return self._metrics.traffic()

    async def dashboard(self, ask: Ask) -> Page:
        return self._dashboard

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


def _dashboard() -> Page:
    """The page, and what it may do."""
    body = resources.files(__package__).joinpath("dashboard.html").read_bytes()
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none';"
        f" form-action 'none'; frame-ancestors 'none'; script-src {_sources(b'script', body)};"
        f" style-src {_sources(b'style', body)}"
    )
    return Page(
        content_type=b"text/html; charset=utf-8",
        body=body,
        headers=((b"content-security-policy", policy.encode("ascii")),),
    )


def _sources(tag: bytes, body: bytes) -> str:
    """The hashes of what stands inline, so that nothing else runs."""
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"
        for name, text in _INLINE.findall(body)
        if name == tag
    )
