"""
Keeping this node's memory and the shared store in agreement.

One exchange every sync interval carries what this node holds and brings what
the others hold; a changed revision brings the servers themselves.  Knows when
to talk, what to say and what an outage means; refuses to know how the store
is reached and how a server is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import StoreError, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store.asking import Asking, Numbers
from dynbalance.store.contact import Contact, Finding
from dynbalance.store.contract import Snapshot, Store
from dynbalance.store.reports import Mended, SyncAnswer
from dynbalance.store.view import View
from dynbalance.together import Together

FIRST_ROUND = 5.0
"""Seconds that a start waits for the first exchange at most."""

LEAVE = 2.0
"""Seconds that the end waits for the store at most."""

TOLD = 10
"""Servers that one line of the log names at most."""


def _unheard() -> None:
    """For a membership whose news nobody wants."""


class Membership:
    """
    The exchange of all upstreams' servers and counts with the store.

    @ivar node: this node's name in the store.
    @ivar contact: how the exchanges go.
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
        noted: Callable[[], None] = _unheard,
    ) -> None:
        """
        @param checked: the upstreams that have health checks.
        @param noted: is called when L{known} says something new.
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
        self._numbers = Numbers()
        # Snapshots are read in slices: one of an upstream must not overtake another.
        self._loads = Together(self._load)
        self._views: dict[str, View] = {}
        self.follow(checked)
        self._noted = noted
        self.contact = Contact(clock)
        self._origin = ""
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it exchanges."""
        return self._loop.running

    def known(self, upstream: str) -> Snapshot | None:
        """The last snapshot of an upstream, or C{None} if there never was one."""
        view = self._views.get(upstream)
        return None if view is None else view.snapshot

    def all_known(self) -> dict[str, Snapshot]:
        """The last snapshots by upstream, or what an earlier process knew last."""
        known = {name: view.snapshot or view.remembered for name, view in self._views.items()}
        return {name: snapshot for name, snapshot in known.items() if snapshot is not None}

    def remember(self, snapshots: Mapping[str, Snapshot], origin: str) -> None:
        """
        Hear, before the start, what an earlier process knew.  It is used while
        the store is away, and given back if the store has lost it.

        @param origin: where it is from and how old it is, for the log.
        """
        self._origin = origin
        for name, view in self._views.items():
            view.remembered = snapshots.get(name)

    async def look(self, upstream: str) -> Snapshot | None:
        """What the store says of an upstream now or, when it is away, said last."""
        view = self._views.get(upstream)
        if view is not None and view.snapshot is not None:
            return view.snapshot
        try:
            snapshot: Snapshot = await self._store.snapshot(upstream)
        except StoreUnavailable:
            return None
        return snapshot

    def follow(self, checked: Collection[str]) -> None:
        """
        The balancer has other upstreams.  Those that it has retired are kept
        in agreement until nothing is left of them.

        @param checked: the upstreams that have health checks.
        """
        for upstream in self._balancer:
            view = self._views.get(upstream.name)
            if view is None:
                self._views[upstream.name] = self._view(upstream, upstream.name in checked)
            else:
                view.check(upstream.name in checked)

    def _view(self, upstream: Upstream, checked: bool) -> View:
        view = View(upstream, checked)
        if isinstance(upstream, StrictUpstream):
            view.asking = Asking(
                upstream,
                self._store,
                self.node,
                self._lease,
                self._numbers,
                self._clock,
                view.restart,
            )
        return view

    async def _forget_retired(self) -> None:
        for name in list(self._balancer.retired):
            if self._views[name].is_empty:
                await self._store.leave(self.node, [name])
                # It may have come back meanwhile.
                if self._balancer.retired.pop(name, None) is not None:
                    del self._views[name]

    def start(self) -> Deferred[None]:
        """
        Begin.

        @return: fires when the first exchange ended, well or not, or after
            L{FIRST_ROUND} seconds; never fails.
        """
        self.contact.begin()
        self._loop.start(self._interval)
        return self._until_idle(FIRST_ROUND).addCallback(lambda _: self._recall())

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
        return self._loads.ask(self._views[upstream])

    async def _load(self, view: View) -> Snapshot:
        name = view.upstream.name
        snapshot = await self._store.snapshot(name)
        lost = view.lost_by(snapshot)
        if lost is not None:
            await self._restore(name, lost)
            snapshot = await self._store.snapshot(name)
        news = view.is_behind(snapshot.revision, snapshot.era)
        self._apply(view, snapshot)
        if news:
            self._noted()
        return snapshot

    def _apply(self, view: View, snapshot: Snapshot) -> None:
        for line in view.apply(snapshot).refused:
            self._log.error(
                "Upstream {upstream} has a server that cannot be used: {problem}",
                upstream=view.upstream.name,
                problem=line,
            )

    async def _restore(self, upstream: str, lost: Snapshot) -> None:
        count = await self._store.restore(upstream, lost, self.node)
        if count is not None:
            self._log.warn(
                "The store had lost upstream {upstream}: {count} servers were given back"
                " as of revision {revision}",
                upstream=upstream,
                count=count,
                revision=lost.revision,
            )

    def _recall(self) -> None:
        """Without the store, go by what an earlier process knew."""
        for name, view in self._views.items():
            if view.remembered is None or view.snapshot is not None:
                continue
            self._log.warn(
                "The store is away: upstream {upstream} has the {count} servers of {origin}",
                count=len(view.remembered.servers),
                upstream=name,
                origin=self._origin,
            )
            self._apply(view, view.remembered)
            view.restart()

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
        if not self._loop.running:
            # It has left before; by now the name may be another process's.
            return
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
            if self._lost(Finding.AWAY, str(error)):
                self._log.warn(
                    "Store lost: {error}; traffic goes on from memory", error=str(error)
                )
        except Exception:  # noqa: BLE001 - the exchange has to outlive every mistake
            if self._lost(Finding.BROKEN, "the exchange with the store failed"):
                self._log.failure("The exchange with the store failed; it is tried again")
        else:
            away = self.contact.found()
            if away is not None:
                self._log.info("Store found again after {away:.1f} s", away=away)

    async def _exchange(self) -> None:
        answers = await self._tell()
        if any(answer.late for answer in answers.values()):
            # The store has heard larger numbers, of a call that overtook this
            # one or of a process that had this node's name before.
            answers = await self._tell()
        views = self._views
        for name, answer in answers.items():
            self._tell_mended(name, answer.mended)
            if views[name].is_behind(answer.revision, answer.era):
                await self._loads.ask(views[name])
        if self._balancer.retired:
            await self._forget_retired()

    async def _tell(self) -> Mapping[str, SyncAnswer]:
        views, number, sent = self._views, self._numbers.next(), self._clock.seconds()
        reports = {name: view.report(number) for name, view in views.items()}
        answers = await self._store.sync(self.node, self._lease, reports)
        self.contact.exchanges.note(self._clock.seconds() - sent)
        # All counts before any servers: loading them may fail.
        for name, answer in answers.items():
            self._numbers.reach(answer.last)
            views[name].hear(reports[name], answer, sent)
        return answers

    def _tell_mended(self, upstream: str, mended: Mapping[str, Mended]) -> None:
        if not mended:
            return
        whole = Mended.CHANGED in mended.values()
        told = [f"{address} {what.value}" for address, what in mended.items() if address]
        self._log.warn(
            "The store's keys of upstream {upstream} were changed by hand: {what}",
            upstream=upstream,
            what="whole servers" if whole else _some(told),
        )

    def _lost(self, finding: Finding, why: str) -> bool:
        """@return: whether it is news."""
        self._recall()
        for view in self._views.values():
            view.restart()
            if view.asking is not None:
                view.asking.lost(why)
        return self.contact.lost(finding, why)


def _some(told: list[str]) -> str:
    more = len(told) - TOLD
    return ", ".join(told[:TOLD]) + (f" and {more} more" if more > 0 else "")
