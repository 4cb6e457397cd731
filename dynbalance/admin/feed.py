"""
What happens to the servers of an upstream, told while it happens.

Everybody who listens to an upstream hears the same: lines of the history (who
ordered what, what was observed), states as this node sees them, the store's
comings and goings, and figures once a second.  Knows when to look and what is
news; refuses to know how an event is written (L{dynbalance.admin.events}) and
what carries it.

Nothing runs while nobody listens.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

from dynbalance.admin.answers import Refused
from dynbalance.admin.events import Listener, Watch
from dynbalance.admin.scene import Scene
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store.changes import Line

TICK = 0.5
"""Seconds from one look to the next."""

FIGURES = 2
"""Looks from one telling of figures to the next."""

SILENCE = 30
"""Looks after which something is said, so that nobody takes a listener for gone."""

LISTENERS = 100
"""Who may listen at once."""

LONGEST = 86400.0
"""Seconds for which the holder of what expires may listen at most."""

_PART = 500
"""Lines read at once."""

_MISSED = 2000
"""Lines that a listener who comes back may have missed."""


@frozen(slots=True)
class Stream:
    """
    An answer that goes on: whoever carries it attaches a listener.

    @ivar last: what the listener has heard; empty for nothing.
    @ivar lasts: seconds after which it ends; C{None} for no such end.
    """

    feed: Feed
    upstream: Upstream
    last: str
    lasts: float | None

    def attach(self, listener: Listener) -> None:
        """From now on it is told."""
        self.feed.attach(self.upstream, listener, self.last, self.lasts)

    def detach(self, listener: Listener) -> None:
        """It is not there any more."""
        self.feed.detach(self.upstream, listener)


class Feed:
    """The events of all upstreams of this node."""

    _log = Logger()

    def __init__(self, scene: Scene, clock: IReactorTime) -> None:
        self._scene = scene
        self._watches: dict[str, Watch] = {}
        self._ends: dict[Listener, IDelayedCall] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._clock = clock
        self._looks = 0
        self._available = True

    @property
    def listening(self) -> int:
        """How many listen."""
        return sum(len(watch.listeners) for watch in self._watches.values())

    def open(self, upstream: Upstream, last: str, lasts: float | None) -> Stream:
        """
        @param last: the id of the last event that was heard.
        @param lasts: seconds for which the listener may hear; C{None} for no end.
        @raise Refused: too many listen.
        """
        if self.listening >= LISTENERS:
            raise Refused(503, f"{LISTENERS} listen already")
        return Stream(self, upstream, last, lasts)

    def attach(
        self, upstream: Upstream, listener: Listener, last: str, lasts: float | None
    ) -> None:
        """See L{Stream.attach}."""
        watch = self._watches.get(upstream.name)
        if watch is None:
            watch = self._watches[upstream.name] = Watch(upstream)
        watch.listeners[listener] = False
        if lasts is not None:
            self._ends[listener] = self._clock.callLater(min(lasts, LONGEST), listener.end)
        if not self._loop.running:
            self._available = self._scene.membership.contact.available
            self._loop.start(TICK, now=False)
        joining = Deferred.fromCoroutine(self._join(watch, listener, last))
        joining.addErrback(lambda failure: self._log.failure("A listener cannot join", failure))

    def detach(self, upstream: Upstream, listener: Listener) -> None:
        """See L{Stream.detach}."""
        end = self._ends.pop(listener, None)
        if end is not None and end.active():
            end.cancel()
        watch = self._watches.get(upstream.name)
        if watch is None:
            return
        watch.listeners.pop(listener, None)
        if not watch.listeners:
            self._drop(watch)

    def _drop(self, watch: Watch) -> None:
        del self._watches[watch.upstream.name]
        if not self._watches and self._loop.running:
            self._loop.stop()

    def stop(self) -> None:
        """Nobody is told anything any more."""
        watches, self._watches = self._watches, {}
        if self._loop.running:
            self._loop.stop()
        for watch in watches.values():
            watch.end()

    def _is_there(self, upstream: Upstream) -> bool:
        """A reload may have taken it away, or put another one in its place."""
        return self._scene.balancer.upstreams.get(upstream.name) is upstream

    async def _join(self, watch: Watch, listener: Listener, last: str) -> None:
        """Tell it what it has missed and what there is, and from now on the rest."""
        missed: tuple[Line, ...] = ()
        whole = True
        if watch.is_new:
            lives = await self._scene.lives(watch.upstream)
            if watch.is_new:
                watch.see(lives, self._clock.seconds())
        try:
            if not watch.position:
                watch.position = await self._newest(watch.upstream)
            if last:
                missed, whole = await self._missed(watch, last)
        except StoreUnavailable:
            whole = False
        if listener in watch.listeners:
            available = self._scene.membership.contact.available
            listener.tell(watch.greeting(missed, whole or not last, available))
            watch.listeners[listener] = True

    async def _newest(self, upstream: Upstream) -> str:
        newest = await self._scene.store.history(upstream.name, 1)
        return newest.lines[0].id if newest.lines else "0-0"

    async def _missed(self, watch: Watch, last: str) -> tuple[tuple[Line, ...], bool]:
        """
        The lines after C{last} that all others were told.

        @return: them, and whether these are all.
        """
        if order_of(last) > order_of(watch.position):
            # Of a history that is not there any more.
            return (), False
        lines: list[Line] = []
        after = last
        while order_of(after) < order_of(watch.position):
            part = await self._scene.store.news(watch.upstream.name, _PART, after)
            if not lines and order_of(last) < order_of(part.oldest):
                return (), False
            lines += part.lines
            if len(lines) > _MISSED:
                return (), False
            if len(part.lines) < _PART:
                break
            after = lines[-1].id
        position = order_of(watch.position)
        return tuple(line for line in lines if order_of(line.id) <= position), True

    async def _look(self) -> None:
        self._looks += 1
        try:
            for watch in tuple(self._watches.values()):
                if self._is_there(watch.upstream):
                    await self._look_at(watch)
                else:
                    self._drop(watch)
                    watch.end()
        except Exception:  # noqa: BLE001 - the looking has to outlive every mistake
            self._log.failure("Looking for events failed; it is tried again")

    async def _look_at(self, watch: Watch) -> None:
        membership = self._scene.membership
        known = membership.known(watch.upstream.name)
        revision = known.revision if known is not None else 0
        if revision != watch.revision or not watch.position:
            try:
                await self._tell_lines(watch)
                watch.revision = revision
            except StoreUnavailable as error:
                self._log.debug("The history is told later: {error}", error=str(error))
        watch.tell_store(membership.contact.available)
        lives = await self._scene.lives(watch.upstream)
        # Where no worker answers, nothing is known, and not that nothing is there.
        if lives or not watch.upstream.servers:
            watch.see(lives, self._clock.seconds())
            if self._looks % FIGURES == 0:
                await self._tell_figures(watch)
        if self._looks % SILENCE == 0:
            watch.tell(b": \n\n")

    async def _tell_figures(self, watch: Watch) -> None:
        telling = watch.figures(self._clock.seconds())
        if telling is not None:
            servers = await self._scene.slices.run(telling.servers())
            watch.tell_figures(telling.whole(servers))

    async def _tell_lines(self, watch: Watch) -> None:
        if not watch.position:
            # Nobody knows what the listeners have missed while the store was away.
            watch.position = await self._newest(watch.upstream)
            watch.tell_reset()
        full = True
        while full:
            part = await self._scene.store.news(watch.upstream.name, _PART, watch.position)
            full = len(part.lines) == _PART
            watch.tell_lines(part.lines)


def order_of(id: str) -> tuple[int, int]:
    """By which lines are older and newer; of no id, that of the oldest."""
    milliseconds, _, number = id.partition("-")
    return int(milliseconds or 0), int(number or 0)
