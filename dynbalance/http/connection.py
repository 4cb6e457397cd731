"""
One connection to a server, by HTTP/1.1: it writes a request, reads the
response, and knows which of the two is under way.

What an answer or a failure means is the exchange's affair; where a connection
waits between two requests is L{dynbalance.http.upstream}'s.
"""

from __future__ import annotations

import socket
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause
from dynbalance.http.bulk import LEAST, pass_beside
from dynbalance.http.chunked import ChunkedDecoder
from dynbalance.http.fields import BadMessage, tokens
from dynbalance.http.phase import Phase
from dynbalance.http.response import CHUNKED, MAX_HEAD, UNTIL_CLOSE, ResponseHead, parse_response
from dynbalance.net.dial import Dial, Target, transport_for
from dynbalance.net.transport import RECEIVE

if TYPE_CHECKING:
    from dynbalance.balancer.server import Server
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.bulk import Bulk
    from dynbalance.net.tlsdial import TlsDial
    from dynbalance.net.tlstransport import TlsTransport
    from dynbalance.net.transport import ClientTransport

class ServerConnection(Protocol):
    """
    One connection to one server.

    @ivar upstream: with the settings for the request that is on it.
    @ivar exchange: whose request is on it; C{None} while it is idle.
    @ivar requests: sent on it so far.
    @ivar answered: bytes of a response to the current request have come.
    @ivar choked: the server takes no more of the request for now.
    """

    transport: ClientTransport | TlsTransport

    def __init__(self, upstream: HttpUpstream, server: Server, exchange: Exchange) -> None:
        self.upstream = upstream
        self._deadlines = upstream.deadlines
        self.server = server
        self.exchange: Exchange | None = exchange
        self.phase = Phase.DIALING
        self.requests = 0
        self.answered = False
        self.choked = False
        self.deadline = inf
        self.bucket = 0
        self.born = 0.0
        self._dial: Dial | TlsDial | None = None
        self._target: Target | None = None
        self._buffer = b""
        # The last response's head, as it came and as it was read: servers
        # repeat themselves.
        self._block = b"-"
        self._head: ResponseHead | None = None
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._bulk: Bulk | None = None
        self._informed = 0
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
        self.phase = Phase.HEAD
        self.requests += 1
        self.server.bytes_in += len(data)
        self.answered = False
        self._deadlines.set(self, timeout)
        self.transport.write(data)

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

    # Receiving

    def hold_back(self) -> None:
        """Read no more of the response for now; it is not the server's move."""
        if self.phase is not Phase.DIALING and not self._held_back:
            self._held_back = True
            self.deadline = inf
            self.transport.pauseProducing()

    def read_on(self) -> None:
        """The end of L{hold_back}."""
        if self._held_back:
            self._held_back = False
            self.wait(self.upstream.settings.read_timeout)
            self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        exchange = self.exchange
        phase = self.phase
        if phase is Phase.BODY:
            self._read_body(data)
        elif phase is Phase.HEAD:
            self.answered = True
            if self._buffer:
                data = self._buffer + data
            self._read_head(data)
        elif phase is Phase.TUNNEL:
            assert exchange is not None
            exchange.tunnel_from_server(data)
        else:
            # Nobody asked: a farewell, or the rest of something. Not to be
            # read as the answer to the next request.
            self.close()

    def _read_head(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        while True:
            head = self._head
            if head is not None and data.startswith(self._block):
                end = len(self._block)
                break
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > MAX_HEAD:
                self._buffer = data
                if len(data) > MAX_HEAD:
                    self._fail(Cause.INVALID_HEADER, "the response's head is too large")
                return
            block = data[:end]
            try:
                head = parse_response(block)
            except BadMessage as bad:
                self._fail(Cause.INVALID_HEADER, f"invalid response: {bad}")
                return
            if head.status >= 200:
                self._block, self._head = block, head
                break
            if head.status == 101:
                self._switch(head, data[end:])
                return
            self._informed += end
            if self._informed > MAX_HEAD:
                self._fail(Cause.INVALID_HEADER, "informational responses without end")
                return
            exchange.informational(head)
            data = data[end:]
        self._buffer = b""
        self._informed = 0
        length = 0 if head.bodyless or exchange.no_body else head.length
        have = len(data) - end
        if 0 <= length <= have:
            if have > length:
                data = data[: end + length]
            exchange.respond(head, length, data, end, last=True)
            self._end(head.keep_alive and have == length)
        else:
            self._begin_body(exchange, head, length, data, end)

    def _begin_body(
        self, exchange: Exchange, head: ResponseHead, length: int, data: bytes, at: int
    ) -> None:
        self._remaining = length - (len(data) - at) if length >= 0 else 0
        self.phase = Phase.BODY
        self._reusable = head.keep_alive
        if length == CHUNKED:
            self._decoder = ChunkedDecoder()
            self._read_chunks(data[at:], head)
        else:
            self.wait(self.upstream.settings.read_timeout)
            if length == UNTIL_CLOSE:
                self._remaining = UNTIL_CLOSE
            exchange.respond(head, length, data, at, last=False)

    def _read_body(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self._decoder is not None:
            self._read_chunks(data, None)
            return
        remaining = self._remaining
        if remaining == UNTIL_CLOSE or len(data) < remaining:
            if remaining > 0:
                self._remaining = remaining - len(data)
            self.wait(self.upstream.settings.read_timeout)
            exchange.response_body(data, last=False)
            if len(data) == RECEIVE and self._remaining > LEAST and self.phase is Phase.BODY:
                # It came full: there is more where it came from.
                self._bulk = pass_beside(self, exchange, self._remaining)
        else:
            exchange.response_body(data[:remaining], last=True)
            self._end(self._reusable and len(data) == remaining)

    def body_passed(self, clean: bool) -> None:
        """
        The rest of the body went to the client beside this.

        @param clean: the server has said nothing more.
        """
        exchange, self._bulk = self.exchange, None
        assert exchange is not None
        exchange.response_body(b"", last=True)
        self._end(self._reusable and clean)

    def _read_chunks(self, data: bytes, head: ResponseHead | None) -> None:
        exchange = self.exchange
        decoder = self._decoder
        assert exchange is not None and decoder is not None
        try:
            payload, used = decoder.feed(data)
        except BadMessage as bad:
            self._fail(Cause.ERROR, f"invalid response body: {bad}")
            return
        if not decoder.done:
            self.wait(self.upstream.settings.read_timeout)
        if head is not None:
            exchange.respond(head, CHUNKED, payload, 0, last=decoder.done)
        elif payload or decoder.done:
            exchange.response_body(payload, last=decoder.done)
        if decoder.done:
            self._decoder = None
            self._end(self._reusable and used == len(data))

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        protocols = tokens([head.upgrade])
        if not protocols or not set(protocols) <= set(tokens([exchange.head.upgrade])):
            self._fail(Cause.INVALID_HEADER, "the server switched protocols unasked")
            return
        self.phase = Phase.TUNNEL
        self._buffer = b""
        exchange.switch(head, rest)

    # The end

    def _end(self, reusable: bool) -> None:
        """The response was read to its end."""
        exchange, self.exchange = self.exchange, None
        if exchange is None or self.phase is Phase.CLOSED:
            return
        self.phase = Phase.IDLE
        if self._held_back:
            # For the sake of the client, which is not ours any more.
            self.read_on()
        if reusable and exchange.sent_all and not self.transport.queued:
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
        if self._bulk is not None:
            self._bulk.drop()
        self.exchange = None
        self.phase = Phase.CLOSED
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
        if phase is Phase.TUNNEL:
            exchange.tunnel_lost()
        elif phase is Phase.BODY and until_close and clean:
            exchange.response_body(b"", last=True)
            exchange.ended()
        else:
            exchange.failed(self, Cause.ERROR, "the server closed the connection")

    def deadline_passed(self) -> None:
        if (self.choked or self.phase is Phase.CLOSED) and self.transport.queued < self._unsent:
            # It takes the request slowly, but it takes it.
            self._unsent = self.transport.queued
            self.wait(self.upstream.settings.send_timeout)
        elif self.phase is Phase.IDLE:
            self.close()
        elif self.phase is Phase.CLOSED:
            self.transport.abortConnection()
        elif self.phase is Phase.TUNNEL:
            exchange = self.exchange
            self.abort()
            if exchange is not None:
                exchange.tunnel_lost()
        else:
            self._fail(Cause.TIMEOUT, f"timed out while {self.phase.value}")
