"""
From an upstream's table of the configuration to its health checks.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from dynbalance.balancer.server import Server
from dynbalance.health.judge import Finding
from dynbalance.health.probe import Approach, Probe
from dynbalance.health.questions import HttpQuestion, Question, TcpQuestion
from dynbalance.health.watch import HealthChecks
from dynbalance.http.upstream import HttpUpstream
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership


def checks_of(
    to: HttpUpstream,
    store: Store,
    membership: Membership,
    clock: IReactorTime,
    random: Callable[[], float],
) -> HealthChecks | None:
    """
    @param to: also of servers that are reached by streams only.
    @return: C{None} where the file asks for none.
    """
    settings = to.settings.health_check
    if settings is None:
        return None
    approach = Approach(
        hub=to.hub, names=to.names, clock=clock, timeout=settings.timeout, reach=to.reach
    )
    question: Question
    if settings.type == "tcp":
        question = TcpQuestion(settings.send, settings.expect)
    else:
        # A Host that holds variables has no value here.
        host = "" if "$" in to.settings.host else to.settings.host
        question = HttpQuestion(settings.uri, host, settings.status)

    def ask(server: Server, found: Callable[[Finding], None]) -> Probe:
        return Probe(approach, question, server.address, server.key, found)

    return HealthChecks(to.upstream, settings, store, membership, ask, clock, random)
