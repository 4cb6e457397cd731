"""
What a node does beside carrying traffic: take out servers whose heartbeats have
stopped, end drains that are over, ask servers how they are.

Knows how these go on by another configuration; refuses to know how each is
done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

from dynbalance.config import Config
from dynbalance.health.checks import checks_of
from dynbalance.health.drains import Drains
from dynbalance.health.heartbeat import HeartbeatCleanup
from dynbalance.health.rounds import Rounds
from dynbalance.health.watch import HealthChecks
from dynbalance.http.upstream import HttpUpstream
from dynbalance.store.contract import Store
from dynbalance.store.membership import Membership


@frozen(slots=True)
class _Checked:
    """
    The checks of an upstream.

    @ivar by: all that they go by; they stay as long as this does.
    """

    by: tuple[object, ...]
    checks: HealthChecks


class Duties:
    """
    @param random: a number in [0, 1).
    @param once: whether this process does what is done once for all workers.
    @param checks: whether it asks servers how they are.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        clock: Any,
        random: Callable[[], float],
        *,
        once: bool = True,
        checks: bool = True,
    ) -> None:
        self._once = once
        self._checks = checks
        self._store = store
        self._membership = membership
        self._clock = clock
        self._random = random
        self._rounds: list[Rounds] = []
        self._rounds_by: object = None
        self._checked: dict[str, _Checked] = {}
        self._running = False

    def __repr__(self) -> str:
        return f"<Duties: checks of {', '.join(self._checked) or 'nothing'}>"

    def follow(self, config: Config, upstreams: Mapping[str, HttpUpstream]) -> None:
        """
        Go on by a configuration: what it leaves as it was is not interrupted.

        @param upstreams: how each is reached by HTTP, by name.
        """
        rounds_by = (tuple(config.upstreams), config.heartbeat, config.store.sync_interval)
        if rounds_by != self._rounds_by:
            self._rounds_by = rounds_by
            self._stop_rounds()
            self._rounds = self._rounds_of(config)
            if self._running:
                self._start_rounds()
        before, self._checked = self._checked, {}
        for name, to in upstreams.items() if self._checks else ():
            self._check(name, to, before.pop(name, None))
        for gone in before.values():
            gone.checks.stop()

    def _check(self, name: str, to: HttpUpstream, before: _Checked | None) -> None:
        by = (to.upstream, to.reach, to.settings.health_check, to.settings.host)
        if before is not None and before.by == by:
            self._checked[name] = before
            return
        checks = checks_of(to, self._store, self._membership, self._clock, self._random)
        stopped = before.checks.stop() if before is not None else None
        if checks is None:
            return
        self._checked[name] = _Checked(by, checks)
        if self._running:
            if stopped is None:
                checks.start()
            else:
                # What is given up now must not be what was claimed anew.
                stopped.addCallback(lambda _: self._start_late(name, checks))

    def _start_late(self, name: str, checks: HealthChecks) -> None:
        if self._running and name in self._checked and self._checked[name].checks is checks:
            checks.start()

    def _rounds_of(self, config: Config) -> list[Rounds]:
        if not self._once:
            return []
        return [
            HeartbeatCleanup(
                self._store,
                self._membership,
                config.upstreams,
                config.heartbeat.ttl,
                config.heartbeat.cleanup_interval,
                self._clock,
            ),
            Drains(
                self._store,
                self._membership,
                config.upstreams,
                # Heard with one exchange, told with the next; and the store may be slow.
                max(1.0, 3 * config.store.sync_interval),
                self._clock,
            ),
        ]

    def _start_rounds(self) -> None:
        for rounds in self._rounds:
            rounds.start()

    def _stop_rounds(self) -> None:
        for rounds in self._rounds:
            rounds.stop()

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._start_rounds()
        for checked in self._checked.values():
            checked.checks.start()

    def stop(self) -> Deferred[Any]:
        """
        End.

        @return: fires when another node may go on with them; never fails.
        """
        self._running = False
        self._stop_rounds()
        return DeferredList([checked.checks.stop() for checked in self._checked.values()])
