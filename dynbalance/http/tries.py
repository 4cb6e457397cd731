"""
What one request has left of attempts, and what its failures say of servers.

Made at a request's first failure, which most never have.  Knows the rules for
another attempt; refuses to know how one is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynbalance.balancer.attempts import Cause, Sent, is_blamed
from dynbalance.log import Logger

if TYPE_CHECKING:
    from dynbalance.balancer.server import Server
    from dynbalance.http.upstream import HttpUpstream


class Tries:
    """
    @ivar left: attempts, with the one under way.
    @ivar tried: the servers that were asked; none is asked twice.
    @ivar free: whether an attempt over a kept connection that turns out dead
        costs nothing: once.
    """

    __slots__ = ("_begun", "_to", "free", "left", "tried")

    _log = Logger()

    def __init__(self, to: HttpUpstream, begun: float) -> None:
        """@param begun: when the request looked for a server first."""
        self.tried: tuple[Server, ...] = ()
        self.free = True
        self._to = to
        self._begun = begun
        self.left = to.retries.first_tries(to.upstream.tries)

    def __repr__(self) -> str:
        return f"<Tries {self.left} left, {len(self.tried)} made>"

    def allow(
        self, cause: Cause, method: bytes, sent: Sent, replayable: bool, free: bool = False
    ) -> bool:
        """
        Count an attempt that failed.

        @param replayable: whether all that was read of the request's body is
            still here.
        @param free: it costs nothing, and no budget.
        @return: whether another one follows; that is counted, too.
        """
        to = self._to
        left = self.left
        if not free:
            left = self.left = to.retries.tries_after(left, cause, reused=False)
        allowed = to.retries.allows(
            cause,
            method=method,
            sent=sent,
            replayable=replayable,
            tries=max(1, left) if free else left,
            elapsed=to.deadlines.now() - self._begun,
        ) and (free or to.budget.allow_retry())
        if allowed:
            to.upstream.tally.retries["stale" if free else cause.value] += 1
        return allowed

    def judge(self, server: Server, cause: Cause, why: str) -> None:
        """
        An attempt failed, or its answer is discarded.

        @param why: for the log.
        """
        self.tried += (server,)
        upstream = self._to.upstream
        # An answer that is passed on is no failure, and does not come here.
        if not is_blamed(cause, retried=True):
            upstream.succeeded(server)
        elif upstream.failed(server):
            self._log.warn("{server} is taken out: {why}", server=server.key, why=why)
