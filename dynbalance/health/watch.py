"""
The health checks of one upstream: who is asked when, and by which node.

Of all nodes that share a store one asks each server: it claims the server's
checks in the store, renews that in time, and publishes what it concludes; the
others hear of it like of any change of membership.  While the store is away
each node asks for itself, and believes itself.

Knows claims, intervals and conclusions; refuses to know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.config import HealthCheckConfig
from dynbalance.errors import StoreUnavailable
from dynbalance.health.judge import Finding, Judge
from dynbalance.log import Logger
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership

AT_ONCE = 64
"""Checks of one upstream at the same time."""

SHORTEST = 0.25
"""Seconds between two renewals of the claims, at least."""


class Check(Protocol):
    """One check under way."""

    def start(self) -> None:
        """Begin."""

    def cancel(self) -> None:
        """End it, silently."""


class HealthChecks:
    """
    @param ask: makes a check of a server; what it finds is told to the
        callable.
    @param random: a number in [0, 1).
    """

    _log = Logger()

    def __init__(
        self,
        upstream: Upstream,
        settings: HealthCheckConfig,
        store: Store,
        membership: Membership,
        ask: Callable[[Server, Callable[[Finding], None]], Check],
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self.upstream = upstream
        self.settings = settings
        self.store = store
        self.membership = membership
        self.ask = ask
        self.clock = clock
        self.random = random
        self.slots = DeferredSemaphore(AT_ONCE)
        self._period = max(SHORTEST, settings.interval / 2)
        # Long enough for one renewal to be missed.
        self._lease = max(settings.interval + settings.timeout, 3 * SHORTEST)
        self._watched: dict[str, _Watch] = {}
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = clock

    def __repr__(self) -> str:
        return f"<HealthChecks of {self.upstream.name}: {len(self._watched)} servers are ours>"

    def start(self) -> None:
        """Begin."""
        self._loop.start(self._period)

    def stop(self) -> Deferred[None]:
        """
        End.

        @return: fires when another node may take over; never fails.
        """
        if self._loop.running:
            self._loop.stop()
        ours = list(self._watched)
        self._watch(frozenset())
        return Deferred.fromCoroutine(self._give_up(ours))

    async def _give_up(self, ours: list[str]) -> None:
        try:
            if ours:
                await self.store.claim_checks(self.upstream.name, self.membership.node, ours, 0.0)
        except StoreUnavailable:
            # The claims end by themselves.
            return

    def _begin_round(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._round())

    async def _round(self) -> None:
        """Find out which servers are ours to check."""
        keys = frozenset(server.key for server in self.upstream.servers if not server.down)
        try:
            ours = await self.store.claim_checks(
                self.upstream.name, self.membership.node, keys, self._lease
            )
        except StoreUnavailable:
            ours = keys
        except Exception:  # noqa: BLE001 - a LoopingCall ends with the first failure
            self._log.failure("The claims of health checks failed; they are renewed again")
            return
        if self._loop.running:
            self._watch(ours)

    def _watch(self, ours: frozenset[str]) -> None:
        # A server that was removed and added again is another one.
        here = {key: self.upstream.server(key) for key in ours}
        for key in [key for key, w in self._watched.items() if here.get(key) is not w.server]:
            self._watched.pop(key).stop()
        for key, server in here.items():
            if server is not None and key not in self._watched:
                self._watched[key] = _Watch(self, server)

    async def conclude(self, server: Server, judge: Judge, cause: str) -> bool:
        """
        Make what the judge says true on all nodes, or at least here.

        @param cause: why it is down; empty if it is not.
        @return: whether there is nothing left to be told; never fails.
        """
        name, key = self.upstream.name, server.key
        news = server.checked_down is not bool(cause)
        told = True
        try:
            if not await self.store.conclude_check(name, self.membership.node, key, cause):
                # Another node checks it by now; this one will hear so.
                judge.down = server.checked_down
                return True
            await self.membership.refresh(name)
        except StoreUnavailable:
            self.upstream.set_checked(key, bool(cause), cause)
            told = False
        except Exception:  # noqa: BLE001 - the next check says it again
            self._log.failure("What a health check has concluded could not be published")
            return False
        if news:
            say = self._log.warn if cause else self._log.info
            say(
                "Server {server} of upstream {upstream} is {where}: its health check {found}",
                server=key,
                upstream=name,
                where="out" if cause else "back",
                found=f"fails: {cause}" if cause else "passes",
            )
        return told


class _Watch:
    """
    The checks of one server by this node, one after the other.

    @ivar server: that one.
    """

    def __init__(self, checks: HealthChecks, server: Server) -> None:
        settings = checks.settings
        self.server = server
        self._checks = checks
        # Whoever checked it before has concluded something.
        self._judge = Judge(settings.passes, settings.fails, server.checked_down)
        self._check: Check | None = None
        self._stopped = False
        self._concluding = False
        self._told = True
        self._cause = ""
        self._begun = 0.0
        first = settings.interval * settings.jitter * checks.random()
        self._next = checks.clock.callLater(first, self._begin)

    def stop(self) -> None:
        self._stopped = True
        if self._next.active():
            self._next.cancel()
        if self._check is not None:
            check, self._check = self._check, None
            check.cancel()
            self._checks.slots.release()

    def _begin(self) -> None:
        self._checks.slots.acquire().addCallback(self._ask)

    def _ask(self, slots: DeferredSemaphore) -> None:
        if self._stopped:
            slots.release()
            return
        self._begun = self._checks.clock.seconds()
        self._check = self._checks.ask(self.server, self._hear)
        self._check.start()

    def _hear(self, finding: Finding) -> None:
        checks, server = self._checks, self.server
        self._check = None
        wait = checks.settings.interval
        wait *= 1 + checks.settings.jitter * (2 * checks.random() - 1)
        wait -= checks.clock.seconds() - self._begun
        self._next = checks.clock.callLater(max(wait, 0.0), self._begin)
        checks.slots.release()
        self._judge.hear(finding)
        self._cause = finding.cause or self._cause
        # Also what others have undone.
        news = self._judge.down is not server.checked_down or not self._told
        if news and not self._concluding:
            cause = self._cause if self._judge.down else ""
            self._concluding = True
            concluded = Deferred.fromCoroutine(checks.conclude(server, self._judge, cause))
            concluded.addCallback(self._concluded)

    def _concluded(self, told: bool) -> None:
        self._concluding = False
        self._told = told
