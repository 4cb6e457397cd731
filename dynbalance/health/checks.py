"""
From an upstream's table of the configuration to its health checks.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.config import HealthCheckConfig
from dynbalance.health.judge import Finding
from dynbalance.health.probe import Probe, Way
from dynbalance.health.questions import HttpQuestion, Question, TcpQuestion
from dynbalance.health.watch import HealthChecks
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership


def checks_of(
    upstream: Upstream,
    settings: HealthCheckConfig,
    host: str,
    way: Way,
    store: Store,
    membership: Membership,
    clock: IReactorTime,
    random: Callable[[], float],
) -> HealthChecks:
    """
    @param host: the Host field that the upstream's servers get; one that holds
        variables has no value here.
    """
    question: Question
    if settings.type == "tcp":
        question = TcpQuestion(settings.send, settings.expect)
    else:
        question = HttpQuestion(settings.uri, "" if "$" in host else host, settings.status)

    def ask(server: Server, found: Callable[[Finding], None]) -> Probe:
        return Probe(way, question, server.address, server.key, found)

    return HealthChecks(upstream, settings, store, membership, ask, clock, random)
