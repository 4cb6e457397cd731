"""
Where the store is now, asked of those who know: Redis Sentinels, or the nodes of
a Redis Cluster.

An endpoint like others: each connection begins with the question, so that after
a failover the store is found where it went.  Knows whom to ask, in which order,
and what the answers mean; refuses to know the protocol, which comes in.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from dynbalance.errors import StoreUnavailable
from dynbalance.store.codec import Reply
from dynbalance.store.serverjson import text

PEER_TIMEOUT = 1.0
"""Seconds for one answer; meanwhile nobody else is asked."""

Place = tuple[str, int]
"""Host and port."""


@frozen(slots=True)
class Refusal:
    """
    An error for an answer.

    @ivar text: as the server wrote it.
    """

    text: str


class Question(Protocol):
    """What is asked."""

    @property
    def words(self) -> Sequence[str]:
        """The command."""

    def read(self, reply: Reply | Refusal, asked: Place) -> Place:
        """
        @raise StoreUnavailable: the answer does not say where the store is.
        """


@frozen(slots=True)
class WhereIsTheMaster:
    """
    For Sentinels (redis.io, "Sentinel client spec").

    @ivar name: that they know the master by.
    """

    name: str

    @property
    def words(self) -> Sequence[str]:
        return ("SENTINEL", "get-master-addr-by-name", self.name)

    def read(self, reply: Reply | Refusal, asked: Place) -> Place:
        if isinstance(reply, Refusal):
            raise StoreUnavailable(reply.text)
        if reply is None:
            raise StoreUnavailable(f"it knows no master {self.name!r}")
        try:
            host, port = reply
            return text(host), int(port)
        except (ValueError, TypeError):
            raise StoreUnavailable("it is no Sentinel") from None


@frozen(slots=True)
class WhoHasTheKey:
    """
    For the nodes of a cluster: whoever has not got the key says who has.

    @ivar key: one of those that all hash to one slot.
    """

    key: str

    @property
    def words(self) -> Sequence[str]:
        return ("GET", self.key)

    def read(self, reply: Reply | Refusal, asked: Place) -> Place:
        if not isinstance(reply, Refusal) or reply.text.startswith("WRONGTYPE"):
            return asked
        place = redirection(reply.text, asked[0])
        if place is None:
            raise StoreUnavailable(reply.text)
        return place


def redirection(error: str, asked: str) -> Place | None:
    """
    @param error: of a command, C{MOVED SLOT HOST:PORT} or C{ASK SLOT HOST:PORT}.
    @param asked: the host that said it, for it leaves out its own.
    @return: C{None} for any other error.
    """
    found = re.fullmatch(r"(?:MOVED|ASK) \d+ (.*):(\d+)", error)
    return None if found is None else (found[1] or asked, int(found[2]))


@implementer(IStreamClientEndpoint)
class SeekingEndpoint:
    """
    Reaches the store at the place that somebody named.

    @ivar place: where it was last; C{None} before.
    """

    def __init__(
        self,
        peers: Iterable[Place],
        question: Question,
        to: Callable[[str, int], IStreamClientEndpoint],
        ask: Callable[[IStreamClientEndpoint, Sequence[str]], Deferred[Reply | Refusal]],
        clock: IReactorTime,
    ) -> None:
        """
        @param peers: whom to ask.
        @param to: how a place is reached.
        @param ask: one command over a connection of its own.
        """
        self.place: Place | None = None
        self._known = tuple(peers)
        # Whoever is asked goes to the end, and who answered to the front: an
        # attempt that is given up in between goes on with the next one.
        self._peers = deque(self._known)
        self._question = question
        self._to = to
        self._ask = ask
        self._clock = clock

    def connect(self, factory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        self.place = await self._find()
        return await self._to(*self.place).connect(factory)

    async def _find(self) -> Place:
        said = []
        for _ in range(len(self._peers)):
            peer = self._peers[0]
            self._peers.rotate(-1)
            asking = self._ask(self._to(*peer), self._question.words)
            try:
                reply = await asking.addTimeout(PEER_TIMEOUT, self._clock)
                place = self._question.read(reply, peer)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one is asked
                said.append(f"{peer[0]}:{peer[1]}: {error or type(error).__name__}")
            else:
                self._peers.rotate(1)
                return place
        raise StoreUnavailable("nobody tells where it is: " + "; ".join(said))
