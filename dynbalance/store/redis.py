"""
The store in Redis or Valkey: one connection, one script a call.

Knows how to have a connection, deadlines, and what failures mean.  Refuses to
know how it is spoken on (C{link}), the calls (C{calls}), the layout (C{keys}), the
values (C{codec}) and the rules (the scripts).

A call never waits for a connection.  One that misses its deadline takes the
connection with it, because a late answer would be taken for the next call's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from dynbalance.errors import StaleRevision, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.slices import Slices
from dynbalance.store import scripts
from dynbalance.store.calls import Calls, senseless
from dynbalance.store.codec import Reply
from dynbalance.store.endpoints import CONNECT_TIMEOUT
from dynbalance.store.link import Link, RedisError, ResponseError, connect
from dynbalance.store.seeking import Place, SeekingEndpoint, redirection

FIRST_DELAY, LAST_DELAY = 0.05, 1.0
"""Seconds between two attempts to connect: doubled each time, up to the last."""

FEW, FOR_EACH = 1000, 0.0002
"""Words of a call beyond which each gives it so many seconds more."""

_T = TypeVar("_T")


class _NoAnswer(StoreUnavailable):
    """A deadline was missed."""


class RedisStore(Calls):
    """
    A L{Store <dynbalance.store.contract.Store>} in Redis 6.2 or later.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        *,
        prefix: str = "upstream",
        timeout: float = 1.0,
        login: Sequence[str] = (),
        db: int = 0,
        elsewhere: Callable[[str, int], IStreamClientEndpoint] | None = None,
    ) -> None:
        """
        @param endpoint: leads to the server; a L{SeekingEndpoint} leads to the
            right one of several, each time anew.
        @param timeout: seconds for one call.
        @param login: for C{AUTH}: a password, or a user of the server's access
            list and a password; empty to not log in.
        @param elsewhere: how other nodes of a cluster are reached.
        """
        super().__init__(prefix, Slices(clock))
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self._clock = clock
        self._timeout = timeout
        self._login = login
        self._db = db
        self._scripts = scripts.load()
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._seeking: Deferred[None] = succeed(None)
        self._reached: list[Deferred[None]] = []
        self._tried: list[Deferred[None]] = []
        self._available = False
        self._burden = 0.0
        # The keys are at another node, which is not reached yet.
        self._moving = False
        self._closed = False
        self._why = "the store was not reached yet"

    def __repr__(self) -> str:
        return f"<RedisStore {self._prefix!r} {'ready' if self._link else self._why}>"

    # The connection.

    @property
    def available(self) -> bool:
        return self._available

    def open(self) -> Deferred[None]:
        tried: Deferred[None] = Deferred()
        self._tried.append(tried)
        self._seeking = Deferred.fromCoroutine(self._seek())
        # Ended by close, and by nothing else.
        self._seeking.addErrback(lambda failure: failure.trap(CancelledError) and None)
        return tried

    def when_reached(self) -> Deferred[None]:
        """Fires when the store is there, at once if it is; or when it is closed."""
        if self._link is not None:
            return succeed(None)
        reached: Deferred[None] = Deferred(self._reached.remove)
        self._reached.append(reached)
        return reached

    def close(self) -> Deferred[None]:
        self._closed = True
        self._seeking.cancel()
        self._lost("the store was closed")
        _fire(self._tried)
        _fire(self._reached)
        ends = [link.when_ended() for link in self._links]
        for link in self._links:
            link.abort()
        return gatherResults(ends).addCallback(lambda _: None)

    async def _seek(self) -> None:
        """Hold one connection, again and again."""
        failures = 0
        # Whoever is told of a contact may close the store before it returns.
        while not self._closed:
            attempt = Deferred.fromCoroutine(self._connect())
            attempt.addTimeout(max(CONNECT_TIMEOUT, self._timeout), self._clock, _late("contact"))
            link = await attempt.addErrback(self._refused)
            _fire(self._tried)
            if link is None:
                failures += 1
            else:
                failures = 0
                _fire(self._reached)
                await link.when_ended()
                if self._link is link:
                    self._lost("the connection to the store was lost")
            if not self._closed:
                delay = min(LAST_DELAY, FIRST_DELAY * 2 ** min(max(failures - 1, 0), 10))
                await deferLater(self._clock, delay)

    async def _connect(self) -> Link | None:
        link = await self._enter(self._endpoint)
        self._link = link
        self._available = True
        self._moving = False
        return link

    async def _enter(self, endpoint: IStreamClientEndpoint) -> Link:
        """Connect and log in."""
        link = await connect(endpoint)
        self._links.add(link)
        link.when_ended().addCallback(lambda _: self._links.discard(link))
        try:
            if self._login:
                await link.say("AUTH", *self._login)
            if self._db:
                await link.say("SELECT", str(self._db))
            # Tells whether it lets us in, and whether it has loaded its data.
            await link.say("PING")
        except BaseException:
            link.abort()
            raise
        return link

    def _refused(self, failure: Failure) -> None:
        self._moving = False
        self._lost(f"the store is not reached: {failure.getErrorMessage()}")

    def _drop(self, link: Link, why: str) -> None:
        """Give a connection up; another one is sought."""
        link.abort()
        if self._link is link:
            self._lost(why)

    def _lost(self, why: str) -> None:
        self._link = None
        self._available = False
        self._why = why

    # The calls.

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        """
        Run a script.

        @param read: makes the answer of the reply, or raises what it means.
        """
        link = self._link
        if link is None and not self._moving:
            return fail(StoreUnavailable(self._why))

        def give_up(failure: Failure) -> Failure:
            if link is not None and failure.check(_NoAnswer):
                self._drop(link, failure.getErrorMessage())
            return failure

        async def call() -> _T:
            nonlocal link
            if link is None:
                link = await self._follow()
            try:
                reply = await self._run(link, name, keys, args)
            except RedisError as error:
                reply = await self._otherwise(link, error, name, keys, args)
            self._available = True
            try:
                return read(reply)
            except (ValueError, TypeError) as error:
                raise senseless(name, error) from error

        # What is asked behind a large order waits for that, too.
        burden = max(0, len(args) - FEW) * FOR_EACH
        self._burden += burden
        patience = self._timeout + self._burden

        def done(result: _T | Failure) -> _T | Failure:
            self._burden -= burden
            return result

        answer = Deferred.fromCoroutine(call())
        answer.addTimeout(patience, self._clock, _late(name))
        answer.addBoth(done)
        return answer.addErrback(give_up)

    async def _otherwise(
        self, link: Link, error: RedisError, name: str, keys: Sequence[str], args: Sequence[str]
    ) -> Reply:
        """
        What becomes of a call that was answered with an error.

        @raise StaleRevision: of an order for another revision.
        @raise StoreUnavailable: for whatever is not meant for us.
        """
        said = str(error)
        kind, _, rest = said.partition(" ")
        if kind == "STALE":
            raise StaleRevision(int(rest)) from None
        try:
            if self._elsewhere is not None and kind in ("MOVED", "ASK"):
                # It was not carried out, so it may be said again, to another.
                if kind == "ASK":
                    return await self._ask_there(said, name, keys, args)
                if self._link is link:
                    self._lost(said)
                    self._moving = True
                    link.retire()
                return await self._run(await self._follow(), name, keys, args)
        except RedisError as again:
            said = str(again)
        if "READONLY" in said and isinstance(self._endpoint, SeekingEndpoint):
            # It was the master once.
            self._drop(link, said)
        self._available = False
        raise StoreUnavailable(said) from None

    async def _follow(self) -> Link:
        """The connection to where the keys are now."""
        await self.when_reached()
        if self._link is None:
            raise StoreUnavailable(self._why)
        return self._link

    async def _ask_there(
        self, error: str, name: str, keys: Sequence[str], args: Sequence[str]
    ) -> Reply:
        """The slot is being moved, and these keys are at its new place already."""
        assert self._elsewhere is not None and isinstance(self._endpoint, SeekingEndpoint)
        asked: Place = self._endpoint.place or ("", 0)
        place = redirection(error, asked[0])
        if place is None:
            raise StoreUnavailable(error)
        link = await self._enter(self._elsewhere(*place))
        try:
            await link.say("ASKING")
            return await link.say("EVAL", *self._call(self._scripts[name].text, keys, args))
        finally:
            link.abort()

    async def _run(self, link: Link, name: str, keys: Sequence[str], args: Sequence[str]) -> Reply:
        script = self._scripts[name]
        try:
            return await link.say("EVALSHA", *self._call(script.sha, keys, args))
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        # New to this server, or its scripts were flushed; EVAL makes it remember.
        return await link.say("EVAL", *self._call(script.text, keys, args))

    def _call(self, script: str, keys: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
        return script, str(len(keys)), *keys, *args


def _late(what: str) -> Callable[[object, float], NoReturn]:
    def late(result: object, seconds: float) -> NoReturn:
        raise _NoAnswer(f"the store gave no answer to {what} within {seconds:g} s")

    return late


def _fire(waiting: list[Deferred[None]]) -> None:
    while waiting:
        waiting.pop().callback(None)
