"""
One connection to a server, by HTTP/1.1: it is dialed, takes one request after
the other, and ends.  L{dynbalance.http.responsereader} reads what comes back.

What an answer or a failure means is the exchange's affair; where a connection
waits between two requests is L{dynbalance.http.upstream}'s.
"""

from __future__ import annotations

import socket
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause
from dynbalance.http.bulk import send_beside
from dynbalance.http.phase import BODY, CLOSED, DIALING, HEAD, IDLE, TUNNEL
from dynbalance.http.response import UNTIL_CLOSE
from dynbalance.http.responsereader import ResponseReader
from dynbalance.net.dial import Dial, Target, transport_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynbalance.balancer.server import Server
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.bulk import Bulk
    from dynbalance.net.tlsdial import TlsDial
    from dynbalance.net.tlstransport import TlsTransport
    from dynbalance.net.transport import ServerTransport


class ServerConnection(ResponseReader):
    """
    One connection to one server.

    @ivar upstream: with the settings for the request that is on it.
    @ivar requests: sent on it so far.
    @ivar choked: the server takes no more of the request for now.
    """

    def __init__(self, upstream: HttpUpstream, server: Server, exchange: Exchange) -> None:
        super().__init__(upstream, exchange)
        self._deadlines = upstream.deadlines
        self.server = server
        self.requests = 0
        self.choked = False
        self.deadline = inf
        self.due = inf
        self.born = 0.0
        self._dial: Dial | TlsDial | None = None
        self._upload: Bulk | None = None
        self._target: Target | None = None
        # What waited for the server at the last look, and whether what comes
        # from it is left in the kernel.
        self._unsent = 0
        self._held_back = False

    def __repr__(self) -> str:
        phase = self.phase.value
        return f"<ServerConnection to {self.server.key} {phase} requests={self.requests}>"

    # Dialing

    def dial(self, target: Target, timeout: float) -> None:
        """@param timeout: seconds until it is given up."""
        upstream = self.upstream
        self._target = target
        self.born = upstream.deadlines.now()
        upstream.deadlines.set(self, timeout)
        if upstream.reach.tls is None:
            self._dial = Dial(upstream.hub, self)
        else:
            assert self.exchange is not None
            greeting = upstream.reach.greeting(self.exchange.ends())
            address = self.server.address
            self._dial = upstream.reach.tls_dial(upstream.hub, self, address, greeting)
        self._dial.start(target)

    def dialed(self, skt: socket.socket) -> None:
        assert self._target is not None and self.exchange is not None
        transport_for(self.upstream.hub, skt, self._target, self)
        if self.upstream.reach.proxy_protocol:
            self.transport.write(self.upstream.reach.greeting(self.exchange.ends()))
        self._begin()

    def secured(self, transport: TlsTransport) -> None:
        transport.attach(self)
        self._begin()

    def _begin(self) -> None:
        assert self.exchange is not None
        self._dial = None
        self.server.connects.note(self.upstream.deadlines.now() - self.born)
        # It pauses whoever sends when the server takes no more.
        self.transport.registerProducer(self, True)
        self.exchange.connected(self)

    def dial_failed(self, reason: ConnectError) -> None:
        self._dial = None
        self._fail(Cause.of_error(reason.osError), f"connect failed: {reason}")

    # Sending

    def begin(self, exchange: Exchange, data: bytes, timeout: float) -> None:
        """
        Send the head of a request, and what there is of its body.

        @param timeout: seconds until the response begins.
        """
        self.exchange = exchange
        self.phase = HEAD
        self.requests += 1
        self.server.bytes_in += len(data)
        self.answered = False
        # Here and where a request ends: as Deadlines.set, without the call.
        deadlines = self._deadlines
        self.deadline = deadline = deadlines.now() + timeout
        if deadline < self.due:
            deadlines.watch(self)
        self.transport.write(data)

    def send_beside(
        self,
        source: ServerTransport | TlsTransport,
        size: int,
        moved: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        """
        Take the next C{size} bytes of the request's body past the protocols, if
        that may be; see L{dynbalance.http.bulk.send_beside}.
        """

        def all_moved(silent: bool) -> None:
            self._upload = None
            done()

        pipes = self.upstream.pipes
        self._upload = send_beside(source, self.transport, size, pipes, moved, all_moved)

    def wait(self, timeout: float) -> None:
        """The server has C{timeout} seconds for its next move."""
        self.upstream.deadlines.set(self, timeout)

    def wait_no_longer(self) -> None:
        """It is not the server's move."""
        self.deadline = inf

    def sending(self) -> None:
        """It was given so much that it has to take some before it gets more."""
        self.choked = True
        self._unsent = self.transport.queued
        self.wait(self.upstream.settings.send_timeout)

    def pauseProducing(self) -> None:
        self.choked = True
        if self.exchange is not None:
            self.sending()
            self.exchange.pause_request()

    def resumeProducing(self) -> None:
        self.choked = False
        if self.exchange is not None:
            self.exchange.resume_request()

    def stopProducing(self) -> None:
        """The transport is going; C{connectionLost} follows."""

    # Back-pressure

    def hold_back(self) -> None:
        """Read no more of the response for now; it is not the server's move."""
        if self.phase is not DIALING and not self._held_back:
            self._held_back = True
            self.deadline = inf
            self.transport.pauseProducing()

    def read_on(self) -> None:
        """The end of L{hold_back}."""
        if self._held_back:
            self._held_back = False
            self.wait(self.upstream.settings.read_timeout)
            self.transport.resumeProducing()

    # The end

    def _end(self, reusable: bool) -> None:
        """The response was read to its end."""
        exchange, self.exchange = self.exchange, None
        if exchange is None or self.phase is CLOSED:
            return
        self.phase = IDLE
        if self._held_back:
            # For the sake of the client, which is not ours any more.
            self.read_on()
        if reusable and exchange.sent_all and self.transport.clear:
            self.upstream.keep(self)
        else:
            self.close()
        exchange.ended()

    def close(self) -> None:
        """Close after what is queued; nobody hears of it."""
        self._leave()
        if self._dial is not None:
            self._dial.cancel()
        elif self.transport is not None:
            self._unsent = self.transport.queued
            if self._unsent:
                self.wait(self.upstream.settings.send_timeout)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; nobody hears of it."""
        self._leave()
        if self._dial is not None:
            self._dial.cancel()
        elif self.transport is not None:
            self.transport.abortConnection()

    def _leave(self) -> None:
        for bulk in (self._bulk, self._upload):
            if bulk is not None:
                bulk.drop()
        self._upload = None
        self.exchange = None
        self.phase = CLOSED
        self.upstream.forget(self)
        self.upstream.deadlines.forget(self)

    def _fail(self, cause: Cause, why: str) -> None:
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            exchange.failed(self, cause, why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        exchange, phase = self.exchange, self.phase
        clean = reason.check(ConnectionDone) is not None
        until_close = self._remaining == UNTIL_CLOSE and self._decoder is None
        self._leave()
        if exchange is None:
            return
        if phase is TUNNEL:
            exchange.tunnel_lost()
        elif phase is BODY and until_close and clean:
            exchange.response_body(b"", last=True)
            exchange.ended()
        else:
            exchange.failed(self, Cause.ERROR, "the server closed the connection")

    def deadline_passed(self) -> None:
        if (self.choked or self.phase is CLOSED) and self.transport.queued < self._unsent:
            # It takes the request slowly, but it takes it.
            self._unsent = self.transport.queued
            self.wait(self.upstream.settings.send_timeout)
        elif self.phase is IDLE:
            self.close()
        elif self.phase is CLOSED:
            self.transport.abortConnection()
        elif self.phase is TUNNEL:
            exchange = self.exchange
            self.abort()
            if exchange is not None:
                exchange.tunnel_lost()
        else:
            self._fail(Cause.TIMEOUT, f"timed out while {self.phase.value}")
