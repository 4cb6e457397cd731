"""
The store in Redis or Valkey: one connection, one script a call.

Knows the connection: reaching it, deadlines, what its failures mean.  Refuses
to know the layout (C{keys}), the values (C{codec}) and the rules (the scripts).

A call never waits for a connection.  One that misses its deadline takes the
connection with it, because a late answer would be taken for the next call's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from txredisapi import (  # type: ignore[import-untyped]
    ConnectionError as LostConnection,
)
from txredisapi import RedisError, RedisProtocol, ResponseError

from dynbalance.errors import ServerExists, ServerNotFound, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.store import codec, scripts
from dynbalance.store.codec import Reply
from dynbalance.store.contract import (
    ENDLESS,
    Drain,
    Drained,
    Expiry,
    Intent,
    Report,
    ServerOrder,
    ServerRecord,
    Snapshot,
    SyncAnswer,
)
from dynbalance.store.endpoints import CONNECT_TIMEOUT
from dynbalance.store.keys import upstream_keys

FIRST_DELAY, LAST_DELAY = 0.05, 1.0
"""Seconds between two attempts to connect: doubled each time, up to the last."""

_T = TypeVar("_T")


class _Link(RedisProtocol):  # type: ignore[misc]
    """
    One connection.  The library's protocol would log in by itself and tell a
    factory of its own; here that is the store's matter.
    """

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._ended = False
        self._waiting: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        self.connected = 1

    def connectionLost(self, why: Failure) -> None:
        self.connected = 0
        self._ended = True
        while self.replyQueue.waiting:
            self.replyReceived(
                LostConnection(f"the connection to the store was lost: {why.getErrorMessage()}")
            )
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def when_ended(self) -> Deferred[None]:
        if self._ended:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def say(self, *words: str) -> Deferred[Reply]:
        """One command, its answer or a L{RedisError}."""
        answer: Deferred[Reply] = self.execute_command(
            *(word.encode("utf-8", "surrogateescape") for word in words)
        )
        return answer

    def abort(self) -> None:
        self.transport.abortConnection()


class _LinkFactory(Factory):
    """Makes one link, and no line in the log for each."""

    protocol = _Link
    noisy = False


class _NoAnswer(StoreUnavailable):
    """A deadline was missed."""


class RedisStore:
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
        username: str = "",
        password: str = "",
        db: int = 0,
    ) -> None:
        """
        @param timeout: seconds for one call.
        @param username: of the server's access list; empty for its default user.
        @param password: empty to not log in.
        """
        self._endpoint = endpoint
        self._clock = clock
        self._prefix = prefix
        self._timeout = timeout
        self._login = [word for word in (username, password) if word] if password else []
        self._db = db
        self._scripts = scripts.load()
        self._link: _Link | None = None
        self._links: set[_Link] = set()
        self._seeking: Deferred[None] = succeed(None)
        self._reached: list[Deferred[None]] = []
        self._tried: list[Deferred[None]] = []
        self._available = False
        self._closed = False
        self._why = "the store was not reached yet"
        self._broken: dict[str, dict[str, str]] = {}

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

    async def _connect(self) -> _Link | None:
        link = cast(_Link, await self._endpoint.connect(_LinkFactory()))
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
        self._link = link
        self._available = True
        return link

    def _refused(self, failure: Failure) -> None:
        self._lost(f"the store is not reached: {failure.getErrorMessage()}")

    def _lost(self, why: str) -> None:
        self._link = None
        self._available = False
        self._why = why

    # The calls.

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        def read(reply: Reply) -> Snapshot:
            known, broken = codec.snapshot(reply)
            self._report_broken(upstream, broken)
            return known

        return self._on(upstream, "snapshot", (), read)

    def add(self, upstream: str, order: ServerOrder, by: str) -> Deferred[ServerRecord]:
        def read(reply: Reply) -> ServerRecord:
            if reply is None:
                raise ServerExists(order.address)
            return codec.server(order.address, reply)

        return self._on(upstream, "add", (order.address, codec.order_text(order), by), read)

    def remove(self, upstream: str, address: str, by: str) -> Deferred[None]:
        def read(reply: Reply) -> None:
            if reply is None:
                raise ServerNotFound(address)

        return self._on(upstream, "remove", (address, by), read)

    def set_intent(
        self, upstream: str, address: str, intent: Intent, by: str, drain: Drain = ENDLESS
    ) -> Deferred[ServerRecord]:
        args = (address, intent.value, by, repr(drain.seconds), drain.then.value)
        return self._on(upstream, "intent", args, _server_reader(address))

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        return self._on(upstream, "drained", (repr(settle),), codec.drained)

    def beat(self, upstream: str, address: str, reenable: bool) -> Deferred[ServerRecord]:
        args = (address, "1" if reenable else "0")
        return self._on(upstream, "beat", args, _server_reader(address))

    def expire(self, upstream: str, ttl: float) -> Deferred[Expiry]:
        return self._on(upstream, "expire", (repr(ttl),), codec.expiry)

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        keys, args = codec.sync_call(self._prefix, node, lease, reports)
        return self._call("sync", keys, args, lambda reply: codec.sync_answers(reports, reply))

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        keys, args = codec.leave_call(self._prefix, node, upstreams)
        return self._call("leave", keys, args, lambda reply: None)

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        return self._on(
            upstream,
            "probe",
            (node, repr(lease), *addresses),
            lambda reply: frozenset(map(codec.text, reply)),
        )

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        return self._on(
            upstream, "verdict", (node, address, codec.found_text(cause, node)), bool
        )

    def recount(self, upstream: str) -> Deferred[int]:
        return self._on(upstream, "recount", (), int)

    def _on(
        self, upstream: str, name: str, args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        return self._call(name, upstream_keys(self._prefix, upstream), args, read)

    def _call(
        self, name: str, keys: Sequence[str], args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        """
        Run a script.

        @param read: makes the answer of the reply, or raises what it means.
        """
        link = self._link
        if link is None:
            return fail(StoreUnavailable(self._why))

        def give_up(failure: Failure) -> Failure:
            if failure.check(_NoAnswer):
                link.abort()
                if self._link is link:
                    self._lost(failure.getErrorMessage())
            return failure

        async def call() -> _T:
            try:
                reply = await self._run(link, name, keys, args)
            except RedisError as error:
                self._available = False
                raise StoreUnavailable(str(error)) from None
            self._available = True
            try:
                return read(reply)
            except (ValueError, TypeError) as error:
                raise StoreUnavailable(
                    f"the store's answer to {name} makes no sense: {error}"
                ) from error

        answer = Deferred.fromCoroutine(call())
        answer.addTimeout(self._timeout, self._clock, _late(name))
        return answer.addErrback(give_up)

    async def _run(self, link: _Link, name: str, keys: Sequence[str], args: Sequence[str]) -> Reply:
        script = self._scripts[name]
        rest = (str(len(keys)), *keys, *args)
        try:
            return await link.say("EVALSHA", script.sha, *rest)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        # New to this server, or its scripts were flushed; EVAL makes it remember.
        return await link.say("EVAL", script.text, *rest)

    def _report_broken(self, upstream: str, broken: dict[str, str]) -> None:
        if broken == self._broken.get(upstream, {}):
            return
        self._broken[upstream] = broken
        for address, why in broken.items():
            self._log.error(
                "What the store has as server {address} of upstream {upstream} is left out: {why}",
                address=address,
                upstream=upstream,
                why=why,
            )


def _server_reader(address: str) -> Callable[[Reply], ServerRecord]:
    def read(reply: Reply) -> ServerRecord:
        if reply is None:
            raise ServerNotFound(address)
        return codec.server(address, reply)

    return read


def _late(what: str) -> Callable[[object, float], NoReturn]:
    def late(result: object, seconds: float) -> NoReturn:
        raise _NoAnswer(f"the store gave no answer to {what} within {seconds:g} s")

    return late


def _fire(waiting: list[Deferred[None]]) -> None:
    while waiting:
        waiting.pop().callback(None)
