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
from dynbalance.http.connection import ServerConnection
from dynbalance.http.front import Attempt
from dynbalance.http.requestbody import RequestBody
from dynbalance.log import Logger
from dynbalance.net.dial import Target

if TYPE_CHECKING:
    from dynbalance.balancer.lease import Lease
    from dynbalance.balancer.server import Server
    from dynbalance.http.front import Front
    from dynbalance.http.request import RequestHead
    from dynbalance.http.response import ResponseHead
    from dynbalance.http.upstream import HttpUpstream


class Exchange:
    """
    @param front: the client's side.
    @param to: the upstream.
    @param head: the request.
    @param first: what is sent to a server first: request line and all fields
        with the empty line.
    @ivar no_body: the response to this request never has a body.
    @ivar sent_all: the whole request was handed to the connection.
    @ivar attempts: what was tried, when somebody set it to a list.
    """

    __slots__ = (
        "_again", "_body", "_choosing", "_connection", "_first", "_free_try", "_front",
        "_lease", "_over", "_request_paused", "_responding", "_resolving", "_to",
        "_tries", "_tried", "_begun", "attempts", "head", "no_body", "sent_all",
    )

    _log = Logger()

    def __init__(self, front: Front, to: HttpUpstream, head: RequestHead, first: bytes) -> None:
        self.head = head
        self.no_body = head.method == b"HEAD"
        self.sent_all = False
        self.attempts: list[Attempt] | None = None
        self._front = front
        self._to = to
        self._first = first
        self._body: RequestBody | None = None
        if head.length:
            self._body = RequestBody(head.length < 0, to.settings.body_buffer)
        self._request_paused = False
        self._lease: Lease | None = None
        self._connection: ServerConnection | None = None
        self._resolving: Deferred[Any] | None = None
        self._tried: tuple[Server, ...] = ()
        # Those left; looked up at the first failure, which most never have.
        self._tries = -1
        self._begun = to.hub.now
        self._free_try = True
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

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""
        assert self._body is not None
        self._send(self._body.add(data))

    def body_ended(self) -> None:
        """That was all of the request's body."""
        assert self._body is not None
        last = self._body.end()
        if last:
            self._send(last)
        elif self._connection is not None and self._connection.requests:
            self._sent()

    def client_gone(self) -> None:
        """The client left; nobody waits for the answer."""
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
        to = self._to
        lease = to.upstream.choose(self._tried)
        if lease is None:
            why = to.upstream.why_none(self._tried)
            self._log.error("{upstream}: {why}", upstream=to.upstream.name, why=why)
            self._answer(failure_status(Cause.NO_SERVER))
            return
        self._lease = lease
        server = lease.server
        if self.attempts is not None:
            self.attempts.append(Attempt(server.key, to.deadlines.now()))
        # Where one kept connection was dead, the others may be, too.
        if self._free_try:
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
            self._resolving = target
            target.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, target: Target) -> None:
        self._resolving = None
        self._dial(target)

    def _unresolved(self, failure: Failure) -> None:
        self._resolving = None
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

    # Sending

    def _send(self, data: bytes) -> None:
        body, connection = self._body, self._connection
        assert body is not None
        if connection is None or connection.requests == 0 or connection.exchange is not self:
            if body.is_long and not self._request_paused:
                self.pause_request()
            return
        body.flows()
        connection.server.bytes_in += len(data)
        connection.transport.write(data)
        self._sent()

    def _sent(self) -> None:
        """So much of the request was handed over: whose move is it?"""
        connection = self._connection
        assert connection is not None
        if self._body is None or self._body.complete:
            self.sent_all = True
            connection.wait(self._to.settings.read_timeout)
        elif not self._request_paused:
            connection.wait_no_longer()

    def pause_request(self) -> None:
        """The server takes no more for now."""
        self._request_paused = True
        self._front.pause_request()

    def resume_request(self) -> None:
        self._request_paused = False
        if self._connection is not None:
            self._sent()
        self._front.resume_request()

    # From the server's connection

    def informational(self, head: ResponseHead) -> None:
        """A 1xx; 100 ends here, since whoever asked for it had one from us."""
        if head.status != 100:
            self._front.informational(head)

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        self._responding = True
        assert self._lease is not None
        server = self._lease.server
        server.responses[head.status // 100 if head.status < 600 else 0] += 1
        server.bytes_out += len(data)
        if server.fails:
            self._to.upstream.succeeded(server)
        if self.attempts:
            self.attempts[-1].header = self._to.deadlines.now()
            self.attempts[-1].status = head.status
        self._front.respond(head, length, data, at, last)

    def response_body(self, data: bytes, last: bool) -> None:
        assert self._lease is not None
        self._lease.server.bytes_out += len(data)
        self._front.response_body(data, last)

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
        self._settle(cause.value)
        if self._responding:
            self._log.error("{server}: {why}", server=server.key, why=why)
            self._front.abort()
            self._finish()
            return
        if stale and self._free_try:
            # A kept connection that the server had closed meanwhile tells
            # nothing of the server: one more try is free.
            self._free_try = False
        else:
            if self._tries < 0:
                self._tries = self._to.retries.first_tries(self._to.upstream.tries)
            self._tries = self._to.retries.tries_after(self._tries, cause, reused=False)
            self._tried += (server,)
            if self._to.upstream.failed(server):
                self._log.warn("{server} is taken out: {why}", server=server.key, why=why)
        if self._to.retries.allows(
            cause,
            method=self.head.method,
            sent=sent,
            replayable=self._body is None or self._body.is_replayable,
            tries=self._tries if self._tries >= 0 else 1,
            elapsed=self._to.deadlines.now() - self._begun,
        ):
            self.sent_all = False
            if self._choosing:
                self._again = True
            else:
                self.start()
            return
        self._log.error(
            "{server}: {why}, {method} {target}",
            server=server.key,
            why=why,
            method=self.head.method.decode("latin-1"),
            target=self.head.target.decode("latin-1"),
        )
        self._answer(failure_status(cause))

    # The tunnel after 101

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        self._responding = True
        connection = self._connection
        assert connection is not None and self._lease is not None
        self._lease.server.responses[1] += 1
        if self._lease.server.fails:
            self._to.upstream.succeeded(self._lease.server)
        if self.attempts:
            self.attempts[-1].status = head.status
        connection.wait(self._to.settings.read_timeout)
        self._front.switch(head, rest)

    def tunnel_from_server(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.wait(self._to.settings.read_timeout)
        self._front.tunnel_data(data)

    def tunnel_from_client(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None:
            connection.wait(self._to.settings.read_timeout)
            connection.transport.write(data)

    def tunnel_lost(self) -> None:
        """The server closed the tunnel."""
        self._connection = None
        self._settle("")
        self._front.tunnel_closed()
        self._finish()

    def client_closed_tunnel(self) -> None:
        """The client closed it; what it sent before is still delivered."""
        connection, self._connection = self._connection, None
        self._settle("")
        if connection is not None:
            connection.close()
        self._finish()

    # The end

    def _answer(self, status: int) -> None:
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
        if self._resolving is not None:
            self._resolving.cancel()
        self._front.ended()
