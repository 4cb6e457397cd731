"""
Keeping this node's memory and the shared store in agreement.

One exchange every sync interval carries what this node holds and brings what
the others hold; a changed revision brings the servers themselves.  Knows when
to talk, what to say and what an outage means; refuses to know how the store
is reached and how a server is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.upstream import Applied, Upstream
from dynbalance.errors import StoreError, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store.contract import Snapshot, Store
from dynbalance.store.reports import Report, SyncAnswer

FIRST_ROUND = 5.0
"""Seconds that a start waits for the first exchange at most."""

LEAVE = 2.0
"""Seconds that the end waits for the store at most."""


class Contact(Enum):
    """How the last exchange went, so that only a change is logged."""

    UNTRIED = "untried"
    FINE = "fine"
    AWAY = "away"
    BROKEN = "broken"


class View:
    """
    What this node knows of one upstream in the store.

    @ivar checked: whether what health checks have found counts here.
    @ivar snapshot: the last one applied; C{None} before the first.
    @ivar seen: the C{seq} of the last answer whose totals were applied.
    @ivar full: whether the next report has to tell everything.
    @ivar stale: whether the servers have to be loaded again whatever the
        revision says: after an outage the store may be another one.
    """

    __slots__ = ("_refused", "checked", "full", "seen", "snapshot", "stale", "upstream")

    def __init__(self, upstream: Upstream, checked: bool) -> None:
        self.upstream = upstream
        self.checked = checked
        self.snapshot: Snapshot | None = None
        self.seen = 0
        self.full = True
        self.stale = True
        self._refused: set[str] = set()

    def restart(self) -> None:
        """Forget what was agreed: nobody knows what the store still has."""
        self.seen = 0
        self.full = True
        self.stale = True

    def report(self) -> Report:
        """What this node has to tell."""
        return Report(held=self.upstream.report(self.full), full=self.full, seen=self.seen)

    def hear(self, report: Report, answer: SyncAnswer) -> None:
        """Take over the counts of an answer to C{report}."""
        if answer.lapsed:
            # The totals are without our own numbers: of no use until the
            # store has taken these.
            self.full, self.seen = True, 0
            return
        self.upstream.acknowledge(report.held)
        self.upstream.apply_totals(answer.totals, answer.complete)
        self.full, self.seen = False, answer.seq

    def is_behind(self, revision: int) -> bool:
        """Whether the servers have to be loaded."""
        return self.stale or self.snapshot is None or self.snapshot.revision != revision

    def apply(self, snapshot: Snapshot) -> Applied:
        """
        Bring the live servers in line, if anything changed.

        @return: what changed; C{refused} holds only what is news.
        """
        applied = Applied()
        if self.is_behind(snapshot.revision):
            applied = self.upstream.apply(snapshot)
            if self.checked:
                self._hear_checks(snapshot.unhealthy)
            self.stale = False
        self.snapshot = snapshot
        news = tuple(line for line in applied.refused if line not in self._refused)
        self._refused.update(news)
        return evolve(applied, refused=news)

    def _hear_checks(self, unhealthy: Mapping[str, str]) -> None:
        for server in self.upstream.servers:
            cause = unhealthy.get(server.key, "")
            if cause or server.checked_down:
                self.upstream.set_checked(server.key, bool(cause), cause)


class Membership:
    """
    The exchange of all upstreams' servers and counts with the store.

    @ivar node: this node's name in the store.
    """

    _log = Logger()

    def __init__(
        self,
        balancer: Balancer,
        store: Store,
        node: str,
        lease: float,
        sync_interval: float,
        clock: IReactorTime,
        checked: Collection[str] = (),
    ) -> None:
        """
        @param checked: the upstreams that have health checks.
        @param lease: seconds of silence after which this node counts as dead.
        @param sync_interval: seconds from one exchange to the next; a slow
            answer delays the next one, there are never two at once.
        """
        self.node = node
        self._balancer = balancer
        self._store = store
        self._lease = lease
        self._interval = sync_interval
        self._clock = clock
        self._views = {
            upstream.name: View(upstream, upstream.name in checked) for upstream in balancer
        }
        self._contact = Contact.UNTRIED
        self._since = clock.seconds()
        self._last = clock.seconds()
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None

    @property
    def available(self) -> bool:
        """Whether the last exchange went well."""
        return self._contact is Contact.FINE

    @property
    def available_for(self) -> float:
        """Seconds since when every exchange went well; 0 while they fail."""
        return self._clock.seconds() - self._since if self.available else 0.0

    @property
    def stale_for(self) -> float:
        """Seconds since the last good exchange; 0 while they go well."""
        return 0.0 if self.available else self._clock.seconds() - self._last

    def known(self, upstream: str) -> Snapshot | None:
        """The last snapshot of an upstream, or C{None} if there never was one."""
        return self._views[upstream].snapshot

    def start(self) -> Deferred[None]:
        """
        Begin.

        @return: fires when the first exchange ended, well or not, or after
            L{FIRST_ROUND} seconds; never fails.
        """
        self._last = self._since = self._clock.seconds()
        self._loop.start(self._interval)
        return self._until_idle(FIRST_ROUND)

    def stop(self) -> Deferred[None]:
        """
        End, and give back what this node holds.

        @return: fires when the store knows, or after about L{LEAVE} seconds
            for each of the running exchange and the farewell; never fails.
        """
        return Deferred.fromCoroutine(self._stop())

    def refresh(self, upstream: str) -> Deferred[Snapshot]:
        """
        Load the servers of an upstream now and apply them.

        @return: the snapshot; fails with L{StoreUnavailable
            <dynbalance.errors.StoreUnavailable>}.
        """
        return Deferred.fromCoroutine(self._load(self._views[upstream]))

    async def _load(self, view: View) -> Snapshot:
        snapshot = await self._store.snapshot(view.upstream.name)
        for line in view.apply(snapshot).refused:
            self._log.error(
                "Upstream {upstream} has a server that cannot be used: {problem}",
                upstream=view.upstream.name,
                problem=line,
            )
        return snapshot

    def _begin_round(self) -> Deferred[None]:
        self._running = Deferred.fromCoroutine(self._round())
        return self._running

    def _until_idle(self, bound: float) -> Deferred[None]:
        """Fires when no exchange is under way, or after C{bound} seconds."""
        idle: Deferred[None] = Deferred()
        if self._running is None or self._running.called:
            idle.callback(None)
            return idle
        late = self._clock.callLater(bound, idle.callback, None)

        def finish(result: None) -> None:
            if late.active():
                late.cancel()
                idle.callback(None)

        self._running.addCallback(finish)
        return idle

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        await self._until_idle(LEAVE)
        try:
            leaving = self._store.leave(self.node, list(self._views))
            await leaving.addTimeout(LEAVE, self._clock)
        except (StoreError, TimeoutError, CancelledError):
            self._log.warn(
                "The store did not hear that node {node} leaves; its counts are given back"
                " when its lease of {lease} s ends",
                node=self.node,
                lease=self._lease,
            )

    async def _round(self) -> None:
        """One exchange; a failure of any kind is noted and survived."""
        try:
            for upstream in self._balancer:
                upstream.tick()
            await self._exchange()
        except StoreUnavailable as error:
            if self._lost(Contact.AWAY):
                self._log.warn(
                    "Store lost: {error}; traffic goes on from memory", error=str(error)
                )
        except Exception:  # noqa: BLE001 - the exchange has to outlive every mistake
            if self._lost(Contact.BROKEN):
                self._log.failure("The exchange with the store failed; it is tried again")
        else:
            self._found()

    async def _exchange(self) -> None:
        views = self._views
        reports = {name: view.report() for name, view in views.items()}
        answers = await self._store.sync(self.node, self._lease, reports)
        # All counts before any servers: loading them may fail.
        for name, answer in answers.items():
            views[name].hear(reports[name], answer)
        for name, answer in answers.items():
            if views[name].is_behind(answer.revision):
                await self._load(views[name])

    def _lost(self, contact: Contact) -> bool:
        """@return: whether it is news."""
        for view in self._views.values():
            view.restart()
        news, self._contact = self._contact is not contact, contact
        return news

    def _found(self) -> None:
        now = self._clock.seconds()
        if self._contact is not Contact.FINE:
            if self._contact is not Contact.UNTRIED:
                self._log.info("Store found again after {away:.1f} s", away=now - self._last)
            self._contact = Contact.FINE
            self._since = now
        self._last = now
