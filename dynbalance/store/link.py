"""
One connection to a Redis server: commands and their answers.

Knows the Redis library, as the one module that does; refuses to know which server
it is, and what is to be made of an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import (  # type: ignore[import-untyped]
    ConnectionError as LostConnection,
)
from txredisapi import RedisError, RedisProtocol, ResponseError

from dynbalance.store.codec import Reply
from dynbalance.store.seeking import Refusal

__all__ = ["Link", "RedisError", "ResponseError", "ask", "connect"]


class Link(RedisProtocol):  # type: ignore[misc]
    """
    One connection.  The library's protocol would log in by itself and tell a
    factory of its own; here that is the store's matter.
    """

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._ended = False
        self._retired = False
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
        """Fires when the connection is gone, at once if it is."""
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

    def replyReceived(self, reply: object) -> None:
        super().replyReceived(reply)
        if self._retired and not self.replyQueue.waiting:
            self.abort()

    def retire(self) -> None:
        """End when what was asked already is answered."""
        self._retired = True
        if not self.replyQueue.waiting:
            self.abort()

    def abort(self) -> None:
        """End now; what was asked fails."""
        self.transport.abortConnection()


class _LinkFactory(Factory):
    """Makes one link, and no line in the log for each."""

    protocol = Link
    noisy = False


async def connect(endpoint: IStreamClientEndpoint) -> Link:
    """A connection on which nothing was said yet."""
    return cast(Link, await endpoint.connect(_LinkFactory()))


async def ask(
    endpoint: IStreamClientEndpoint, login: Sequence[str], words: Sequence[str]
) -> Reply | Refusal:
    """
    One command over a connection of its own.

    @param login: for C{AUTH}, where it is asked for.
    """
    link = await connect(endpoint)
    try:
        try:
            return await link.say(*words)
        except ResponseError as error:
            if not login or not str(error).startswith("NOAUTH"):
                return Refusal(str(error))
        await link.say("AUTH", *login)
        return await link.say(*words)
    except ResponseError as error:
        return Refusal(str(error))
    finally:
        link.abort()
