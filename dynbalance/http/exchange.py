"""
One request and its response: choose, connect, send, relay, and try again where
that is safe.

An exchange knows nothing of the client's protocol; it speaks to a L{Front}.
It owns the lease: whatever happens, the slot on the server is given back once.
Nothing here waits for a Deferred: each step is called by the one before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause, Sent, failure_status
from dynbalance.balancer.place import Place
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.tally import CLIENT_GONE
from dynbalance.http.answering import Answering
from dynbalance.http.connection import ServerConnection
from dynbalance.http.front import Attempt
from dynbalance.http.requestbody import RequestBody
from dynbalance.http.tries import Tries
from dynbalance.log import Logger
from dynbalance.net.dial import Target

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from dynbalance.balancer.lease import Lease
    from dynbalance.http.front import Front
    from dynbalance.http.request import RequestHead
    from dynbalance.http.upstream import HttpUpstream


class Exchange(Answering):
    """
    @param front: the client's side.
    @param to: the upstream.
    @param head: the request.
    @param first: what is sent to a server first: request line and all fields
        with the empty line.
    @ivar no_body: the response to this request never has a body.
    @ivar sent_all: the whole request was handed to the connection.
    @ivar attempts: what was tried, when somebody set it to a list.
    @ivar key: what the upstream's policy goes by, where it wants one.
    """

    __slots__ = (
        "_again", "_begun", "_choosing", "_over", "_tries", "_waits_for", "key", "no_body",
    )

    _log = Logger()

    def __init__(self, front: Front, to: HttpUpstream, head: RequestHead, first: bytes) -> None:
        self.head = head
        self.no_body = head.method == b"HEAD"
        self.sent_all = False
        self.attempts: list[Attempt] | None = None
        self.key = b""
        self._front = front
        self._to = to
        self._first = first
        self._body: RequestBody | None = None
        if head.length:
            self._body = RequestBody(head.length < 0, to.settings.body_buffer)
        self._request_paused = False
        self._lease: Lease | None = None
        self._connection: ServerConnection | None = None
        # An address, a place in the line, a hook, or its turn.
        self._waits_for: Deferred[Any] | IDelayedCall | Place | None = None
        # From the first failure on.
        self._tries: Tries | None = None
        self._begun = self._chosen = to.hub.now
        to.budget.requests += 1
        self._choosing = False
        self._again = False
        self._responding = False
        self._over = False

    def __repr__(self) -> str:
        return f"<Exchange {self.head.method.decode()} on {self._connection}>"

    @property
    def max_body(self) -> int:
        """Bytes that the request's body may have; 0 for no limit."""
        return self._to.settings.client_max_body_size

    def ends(self) -> tuple[Any, Any]:
        """Where the client's connection comes from, and where it came to."""
        return self._front.ends()

    @property
    def upstream_name(self) -> str:
        return self._to.upstream.name

    # From the front

    def start(self) -> None:
        """
        Find a server and send what there is.

        Attempts that fail while this runs are followed by the next round of
        the loop, not by a call from within a call.
        """
        self._choosing = True
        self._attempt()
        while self._again:
            self._again = False
            self._attempt()
        self._choosing = False

    def client_gone(self) -> None:
        """The client left; nobody waits for the answer."""
        if not self._responding:
            self._to.upstream.tally.unanswered[CLIENT_GONE] += 1
        self._settle("client gone")
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._finish()

    def pause_response(self) -> None:
        """The client takes no more for now."""
        if self._connection is not None:
            self._connection.hold_back()

    def resume_response(self) -> None:
        if self._connection is not None:
            self._connection.read_on()

    # Choosing and connecting

    def _attempt(self) -> None:
        to, tries = self._to, self._tries
        # What was waited for is here already.
        lease = self._lease
        if lease is None:
            tried = () if tries is None else tries.tried
            if to.sticky is not None:
                lease = to.sticky.lease(to.upstream, self.head, tried)
            lease = self._lease = lease or to.upstream.choose(tried, self.key)
            if lease is None:
                self._wait_in_line()
                return
        if to.looks or tries is not None:
            self._chosen = to.deadlines.now()
        server = lease.server
        if self.attempts is not None:
            self.attempts.append(Attempt(server.key, to.deadlines.now()))
        # Where one kept connection was dead, the others may be, too.
        if tries is None or tries.free:
            idle = to.idle.get(server)
            if idle:
                connection = idle.pop()
                del to.oldest[connection]
                self.connected(connection)
                return
        target = to.names.target(server.address)
        if isinstance(target, Target):
            self._dial(target)
        else:
            self._waits_for = target
            target.addCallbacks(self._resolved, self._unresolved)

    def _wait_in_line(self) -> None:
        """No server can take the request now; perhaps one can later."""
        to = self._to
        upstream, patience = to.upstream, to.settings.queue_timeout
        tried = () if self._tries is None else self._tries.tried
        if isinstance(upstream, StrictUpstream):
            first = None if to.sticky is None else to.sticky.server(upstream, self.head)
            place = self._waits_for = Place(upstream, to.deadlines, self)
            place.ask(upstream, patience, tried, self.key, first)
            return
        if to.settings.queue:
            place = Place(upstream, to.deadlines, self)
            if place.take(patience, tried, self.key):
                self._waits_for = place
                return
        self.waited_in_vain()

    def slot_granted(self, lease: Lease) -> None:
        self._waits_for = None
        self._lease = lease
        self._chosen = self._to.deadlines.now()
        self.start()

    def waited_in_vain(self) -> None:
        self._waits_for = None
        upstream = self._to.upstream
        why = upstream.why_none(() if self._tries is None else self._tries.tried)
        self._log.error("{upstream}: {why}", upstream=upstream.name, why=why)
        self._answer(failure_status(Cause.NO_SERVER))

    def _resolved(self, target: Target) -> None:
        self._waits_for = None
        self._dial(target)

    def _unresolved(self, failure: Failure) -> None:
        self._waits_for = None
        if not self._over:
            self._attempt_failed(Cause.ERROR, f"name lookup failed: {failure.value}", Sent.NOTHING)

    def _dial(self, target: Target) -> None:
        assert self._lease is not None
        connection = ServerConnection(self._to, self._lease.server, self)
        self._connection = connection
        connection.dial(target, self._to.settings.connect_timeout)

    def connected(self, connection: ServerConnection) -> None:
        """C{connection} stands: send the request over it."""
        self._connection = connection
        if self.attempts:
            self.attempts[-1].connected = self._to.deadlines.now()
        if self._body is None:
            self.sent_all = True
            connection.begin(self, self._first, self._to.settings.read_timeout)
        else:
            self._begin_with_body(connection)

    def _begin_with_body(self, connection: ServerConnection) -> None:
        body = self._body
        assert body is not None
        if not body.complete:
            self._front.request_wanted()
        connection.begin(self, self._first + body.so_far(), self._to.settings.read_timeout)
        body.flows()
        self._sent()
        if self._request_paused and not connection.choked:
            self.resume_request()

    # From the server's connection

    def ended(self) -> None:
        """The server's part is over."""
        self._connection = None
        lease = self._lease
        if lease is not None:
            self._lease = None
            lease.release()
            if self.attempts:
                self._note_end("")
        if not self._over:
            self._over = True
            self._front.ended()

    def failed(self, connection: ServerConnection, cause: Cause, why: str) -> None:
        """The connection broke; C{connection} is closed."""
        self._connection = None
        stale = connection.requests > 1 and not connection.answered and cause is Cause.ERROR
        self._attempt_failed(
            cause, why, Sent.SOMETHING if connection.requests else Sent.NOTHING, stale
        )

    # Failing

    def _attempt_failed(self, cause: Cause, why: str, sent: Sent, stale: bool = False) -> None:
        lease = self._lease
        assert lease is not None
        server = lease.server
        tally = self._to.upstream.tally
        self._settle(cause.value)
        if self._responding:
            tally.failed[cause.value] += 1
            self._log.error("{server}: {why}", server=server.key, why=why)
            self._front.abort()
            self._finish()
            return
        tries = self._counted_tries
        # A kept connection that the server had closed meanwhile tells nothing
        # of the server: one more try is free.
        free = stale and tries.free
        may_retry = self._may_retry(cause, sent, free)
        if free:
            tries.free = False
        else:
            tally.failed[cause.value] += 1
        if not free and cause is not Cause.NO_MEANS:
            if self._to.upstream.wants_times:
                seconds = self._to.deadlines.now() - self._chosen
                self._to.upstream.answered(server, seconds, True)
            tries.judge(server, cause, why)
        if may_retry:
            self._try_again()
            return
        self._log.error(
            "{server}: {why}, {method} {target}",
            server=server.key,
            why=why,
            method=self.head.method.decode("latin-1"),
            target=self.head.target.decode("latin-1"),
        )
        self._answer(failure_status(cause))

    @property
    def _counted_tries(self) -> Tries:
        if self._tries is None:
            self._tries = Tries(self._to, self._begun)
        return self._tries

    def _may_retry(self, cause: Cause, sent: Sent, free: bool = False) -> bool:
        replayable = self._body is None or self._body.is_replayable
        return self._counted_tries.allow(cause, self.head.method, sent, replayable, free)

    def _try_again(self) -> None:
        self.sent_all = False
        if self._choosing:
            self._again = True
        else:
            self.start()

    # The end

    def _answer(self, status: int) -> None:
        self._to.upstream.tally.unanswered[status] += 1
        self._front.answer(status)
        self._finish()

    def _settle(self, cause: str) -> None:
        """Give the slot back, if one is held."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
            if self.attempts:
                self._note_end(cause)

    def _note_end(self, cause: str) -> None:
        assert self.attempts
        self.attempts[-1].ended = self._to.deadlines.now()
        self.attempts[-1].cause = cause

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        if self._waits_for is not None:
            self._waits_for.cancel()
        self._front.ended()
