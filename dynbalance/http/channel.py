"""
A client's connection: reads requests, one at a time, and hands each to an
exchange; L{dynbalance.http.writer} writes what comes back.

What a client sends ahead waits in a buffer of bounded size, and then in the
kernel.  Knows the framing of requests; refuses to know anything of servers, and
when the connection is closed (L{dynbalance.http.clientconnection}).
"""

from __future__ import annotations

from math import inf

from dynbalance.http.bodyreader import BodyReader
from dynbalance.http.bulk import LEAST
from dynbalance.http.clientconnection import AHEAD, ClientConnection
from dynbalance.http.exchange import Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.request import RequestHead, is_hopeless, parse_request, without_empty_lines
from dynbalance.net.transport import RECEIVE


class Channel(ClientConnection):
    """A client's connection by HTTP/1.1."""

    def __repr__(self) -> str:
        return f"<Channel of {self.client} {self._exchange} requests={self._requests}>"

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:
            if self._closing:
                return
            if self._blocked:
                self._read_ahead(data)
            else:
                self._read(self._buffer + data if self._buffer else data)
        elif self._missing:
            self._read_body(data)
        elif self._tunnel:
            assert isinstance(self._exchange, Exchange)
            self._exchange.tunnel_from_client(data)
        else:
            self._read_ahead(data)

    def _read_ahead(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= AHEAD:
            self._hold_back()

    def _read(self, data: bytes) -> None:
        """Take requests out of C{data} until one has to be waited for."""
        self._reading = True
        while data and self._exchange is None and not self._closing and not self._blocked:
            last = self._head
            if last is not None and data == last.block:
                # Clients repeat themselves.
                data = self._begin(last, b"")
                continue
            if data.startswith(b"\r\n"):
                data = without_empty_lines(data)
                continue
            end = data.find(b"\r\n\r\n") + 4
            limit = self.listener.settings.max_header_size
            if end < 4 or end > limit:
                if len(data) > limit:
                    self._refuse(431, "the request's head is too large", data)
                elif is_hopeless(data):
                    self._refuse(400, "no head can begin like this", data)
                elif not self._buffer:
                    # The time for the head began with its first byte.
                    self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
                break
            try:
                head = parse_request(data if end == len(data) else data[:end])
            except BadMessage as bad:
                self._refuse(bad.status, str(bad), data)
                break
            data = self._begin(head, data[end:] if end < len(data) else b"")
        self._reading = False
        self._buffer = b"" if self._closing else data
        if self._held_back:
            self._read_on()

    def _begin(self, head: RequestHead, rest: bytes) -> bytes:
        """Start an exchange; what of C{rest} belongs to later requests is returned."""
        listener = self.listener
        self.deadline = inf
        self._requests += 1
        self._head = head
        self._keep = head.keep_alive and self._requests < listener.carries
        listener.requests += 1
        self._status = 0
        if listener.access_log is not None:
            self._begun = listener.deadlines.now()
            self._bytes_out = 0
            self._body = None
        if listener.mounted is not None and head.target.startswith(b"/upstream/"):
            exchange: Exchange | MountedAdmin
            exchange = MountedAdmin(listener.mounted, self, head, listener.caller(head, self))
        else:
            exchange = listener.exchange(head, self)
            if listener.access_log is not None:
                exchange.attempts = []
        if head.length:
            return self._begin_with_body(exchange, head, rest)
        self._exchange = exchange
        exchange.start()
        return rest

    def _begin_with_body(
        self, exchange: Exchange | MountedAdmin, head: RequestHead, rest: bytes
    ) -> bytes:
        self._missing = head.length
        if head.length > exchange.max_body > 0:
            self._refuse(413, "the request's body is too large")
            if self.listener.access_log is not None:
                self._log_access(exchange)
            return b""
        self._exchange = exchange
        self._body = BodyReader(head.length, exchange.max_body)
        self._continue = head.expect
        if rest:
            rest = self._take_body(rest)
        if self._exchange is not exchange:
            return rest
        if self._missing:
            self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
        exchange.start()
        return rest

    def _read_body(self, data: bytes) -> None:
        self._continue = False
        rest = self._take_body(data)
        if rest:
            self._read_ahead(rest)
        if self._missing and self._exchange is not None and not self._held_back:
            self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
            if len(data) == RECEIVE and self._missing > LEAST:
                # It came full: there is more where it came from.
                self._pass_body_beside()

    def _pass_body_beside(self) -> None:
        exchange, source = self._exchange, self.transport
        if isinstance(exchange, Exchange):
            exchange.body_beside(source, self._missing, self._body_passed, self._body_ended)

    def _body_passed(self, size: int) -> None:
        assert self._body is not None
        self._body.passed(size)
        self._missing = self._body.missing
        self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)

    def _body_ended(self) -> None:
        self._continue = False
        self.deadline = inf
        assert self._exchange is not None
        self._exchange.body_ended()

    def _take_body(self, data: bytes) -> bytes:
        """
        Hand on the request's body.

        @return: what comes after it.
        """
        exchange, body = self._exchange, self._body
        assert exchange is not None and body is not None
        try:
            piece, rest = body.take(data)
        except BadMessage as bad:
            self._abandon(bad.status, str(bad))
            return b""
        self._missing = body.missing
        if piece:
            exchange.body(piece)
        if not self._missing and self._exchange is exchange:
            self._body_ended()
        return rest
