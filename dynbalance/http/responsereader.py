"""
The reading half of a connection to a server: the head of a response, and the
body as its framing says.

Knows what has come and what is to come; refuses to know how the connection was
made, and what an answer or a failure means, which is the exchange's affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol

from dynbalance.balancer.attempts import Cause
from dynbalance.http.bulk import LEAST, pass_beside
from dynbalance.http.chunked import ChunkedDecoder
from dynbalance.http.fields import BadMessage, tokens
from dynbalance.http.phase import BODY, DIALING, HEAD, TUNNEL
from dynbalance.http.response import CHUNKED, MAX_HEAD, UNTIL_CLOSE, ResponseHead, parse_response
from dynbalance.net.transport import RECEIVE

if TYPE_CHECKING:
    from dynbalance.http.exchange import Exchange
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.bulk import Bulk
    from dynbalance.net.tlstransport import TlsTransport
    from dynbalance.net.transport import ClientTransport


class ResponseReader(Protocol):
    """
    A part of L{ServerConnection <dynbalance.http.connection.ServerConnection>}.

    @ivar exchange: whose request is on it; C{None} while it is idle.
    @ivar answered: bytes of a response to the current request have come.
    """

    transport: ClientTransport | TlsTransport

    def __init__(self, upstream: HttpUpstream, exchange: Exchange) -> None:
        self.upstream = upstream
        self.exchange: Exchange | None = exchange
        self.phase = DIALING
        self.answered = False
        self._buffer = b""
        # The last response's head, as it came and as it was read: servers
        # repeat themselves.
        self._block = b"-"
        self._head: ResponseHead | None = None
        self._remaining = 0
        self._reusable = False
        self._decoder: ChunkedDecoder | None = None
        self._bulk: Bulk | None = None
        self._informed = 0

    def wait(self, timeout: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _end(self, reusable: bool) -> None:
        raise NotImplementedError

    def _fail(self, cause: Cause, why: str) -> None:
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        exchange = self.exchange
        phase = self.phase
        if phase is HEAD:
            self.answered = True
            if self._buffer:
                data = self._buffer + data
            self._read_head(data)
        elif phase is BODY:
            self._read_body(data)
        elif phase is TUNNEL:
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
        self.phase = BODY
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
            if len(data) == RECEIVE and self._remaining > LEAST and self.phase is BODY:
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
        self.phase = TUNNEL
        self._buffer = b""
        exchange.switch(head, rest)
