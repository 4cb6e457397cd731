"""
The half of an exchange that takes the server's answer: it is counted, looked at
where there is a reason to, and passed on or thrown away for another one.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from dynbalance.balancer.attempts import Cause, Sent
from dynbalance.balancer.latency import BOUNDS
from dynbalance.http.tunnel import Tunnel

if TYPE_CHECKING:
    from dynbalance.http.response import ResponseHead
    from dynbalance.http.tries import Tries


class Answering(Tunnel):
    """
    A part of L{Exchange <dynbalance.http.exchange.Exchange>}.

    @ivar _chosen: when the attempt under way began, in seconds.  That of a
        first one, which waited for nothing, is when the batch of events began
        that brought the request: no look at the clock is spent on it.
    """

    __slots__ = ("_chosen",)

    _chosen: float

    @property
    def _counted_tries(self) -> Tries:
        raise NotImplementedError

    def _may_retry(self, cause: Cause, sent: Sent, free: bool = False) -> bool:
        raise NotImplementedError

    def _try_again(self) -> None:
        raise NotImplementedError

    def informational(self, head: ResponseHead) -> None:
        """A 1xx; 100 ends here, since whoever asked for it had one from us."""
        if head.status != 100:
            self._front.informational(head)

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        lease, to = self._lease, self._to
        assert lease is not None
        server = lease.server
        server.responses[head.kind] += 1
        times, seconds = server.times, to.hub.now - self._chosen
        times.counts[bisect_left(BOUNDS, seconds)] += 1
        times.total += seconds
        server.bytes_out += len(data)
        if self.attempts:
            self.attempts[-1].header = to.deadlines.now()
            self.attempts[-1].status = head.status
        if to.looks:
            shown = self._look(head)
            if shown is None:
                return
            head = shown
        self._responding = True
        if server.fails:
            self._works(server)
        self._front.respond(head, length, data, at, last)

    def _look(self, head: ResponseHead) -> ResponseHead | None:
        """
        @return: what the client gets to see; C{None} when that is nothing,
            because another server is asked instead.
        """
        to, lease = self._to, self._lease
        assert lease is not None
        if to.upstream.wants_times:
            seconds = to.deadlines.now() - self._chosen
            to.upstream.answered(lease.server, seconds, head.status >= 500)
        if head.status in to.retried and self._discard(head.status):
            return None
        return head if to.sticky is None else to.sticky.marked(self.head, head, lease.server)

    def _discard(self, status: int) -> bool:
        """
        Ask another server instead of passing on an answer with this status.

        @return: whether that may be; if not, the answer is still here.
        """
        cause, connection, lease = Cause.of_status(status), self._connection, self._lease
        assert cause is not None and connection is not None and lease is not None
        if not self._may_retry(cause, Sent.SOMETHING):
            return False
        self._connection = None
        connection.abort()
        self._settle(cause.value)
        self._to.upstream.tally.failed[cause.value] += 1
        self._counted_tries.judge(lease.server, cause, f"it answered {status}")
        self._try_again()
        return True

    def response_body(self, data: bytes, last: bool) -> None:
        assert self._lease is not None
        self._lease.server.bytes_out += len(data)
        self._front.response_body(data, last)

    def passed(self, size: int) -> None:
        """So many bytes of the body went to the client beside this."""
        assert self._lease is not None
        self._lease.server.bytes_out += size
        self._front.passed(size)
