"""
A client's connection: reads requests, hands each to an exchange, and has
L{dynbalance.http.writer} write what comes back.

One request at a time; what a client sends ahead waits in a buffer of bounded
size, and then in the kernel.  The channel decides whether the connection stays
open; it knows nothing of servers.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dynbalance.http.bodyreader import BodyReader
from dynbalance.http.exchange import Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.request import RequestHead, is_hopeless, parse_request, without_empty_lines
from dynbalance.http.response import ResponseHead
from dynbalance.http.writer import ResponseWriter

if TYPE_CHECKING:
    from dynbalance.http.listener import HttpListener

LINGER = 5.0
"""Seconds that a client may still send, or take nothing, after an early answer."""

STALL = 60.0
"""Seconds that a client may go without taking any of a response."""

_AHEAD = 65536
_CLIENT_GONE = 499


class Channel(ResponseWriter):
    """
    @param listener: whose client it is.
    @ivar client: the peer's address, without a port.
    @ivar suffix: the usual end of a forwarded head, as long as the client says
        nothing of X-Forwarded-For.
    """

    def __init__(self, listener: HttpListener, client: str) -> None:
        super().__init__(listener)
        self.client = client
        self.deadline = inf
        self.bucket = 0
        self._buffer = b""
        self._requests = 0
        self._reading = False
        self._exchange: Exchange | MountedAdmin | None = None
        self._body: BodyReader | None = None
        self._tunnel = False
        self._closing = False  # no request is read any more
        # The client's bytes are left in the kernel; it is the exchange's wish.
        self._held_back = False
        self._request_held = False
        # The client takes no more; how much waited for it at the last look.
        self._blocked = False
        self._unsent = 0
        self.suffix = listener.forwarding.origin(client, listener.scheme, b"").fields
        self._begun = 0.0  # for the access log

    def __repr__(self) -> str:
        return f"<Channel of {self.client} {self._exchange} requests={self._requests}>"

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)

    # Reading

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
        if len(self._buffer) >= _AHEAD:
            self._hold_back()

    def _read(self, data: bytes) -> None:
        """Take requests out of C{data} until one has to be waited for."""
        self._reading = True
        while data and self._exchange is None and not self._closing and not self._blocked:
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
        self._keep = (
            head.keep_alive
            and self._requests < listener.settings.keepalive_requests
            and not listener.draining
            and listener.settings.keepalive_timeout > 0
        )
        listener.requests += 1
        self._status = 0
        if listener.access_log is not None:
            self._begun = listener.deadlines.now()
            self._bytes_out = 0
            self._body = None
        if listener.mounted is not None and head.target.startswith(b"/upstream/"):
            # The API refuses what is too large in its own words.
            max_body = 0
            exchange: Exchange | MountedAdmin
            exchange = MountedAdmin(listener.mounted, self, head, listener.caller(head, self))
        else:
            exchange = listener.exchange(head, self)
            max_body = exchange.max_body
            if listener.access_log is not None:
                exchange.attempts = []
        if head.length > max_body > 0:
            self._missing = head.length
            self._refuse(413, "the request's body is too large")
            if listener.access_log is not None:
                self._log_access(exchange)
            return b""
        self._exchange = exchange
        if head.length:
            self._missing = head.length
            self._body = BodyReader(head.length, max_body)
            self._continue = head.expect
            if rest:
                rest = self._take_body(rest)
            if self._exchange is not exchange:
                return rest
            if self._missing:
                listener.deadlines.set(self, listener.settings.client_header_timeout)
        exchange.start()
        return rest

    def _read_body(self, data: bytes) -> None:
        self._continue = False
        rest = self._take_body(data)
        if rest:
            self._read_ahead(rest)
        if self._missing and self._exchange is not None and not self._held_back:
            self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)

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
            self._continue = False
            self.deadline = inf
            exchange.body_ended()
        return rest

    # The end of an answer

    def abort(self) -> None:
        self._keep = False
        self._missing = 0
        self._closing = True
        self._buffer = b""
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    def ended(self) -> None:
        """The exchange is over."""
        exchange, self._exchange = self._exchange, None
        if self.listener.access_log is not None and self._head is not None:
            self._log_access(exchange)
        self._chunking = False
        if not self._keep:
            self._close()
            return
        if not self._blocked:
            self.listener.deadlines.set(self, self.listener.settings.keepalive_timeout)
        self._request_held = False
        if not self._reading:
            if self._buffer:
                self._read(self._buffer)
            else:
                self._read_on()

    def _log_access(self, exchange: Exchange | MountedAdmin | None) -> None:
        log, head, body = self.listener.access_log, self._head, self._body
        assert head is not None and log is not None
        size = 0 if body is None else body.size
        asked = exchange if isinstance(exchange, Exchange) else None
        log.request(head, self.client, self._status, size, self._bytes_out, self._begun, asked)

    # The tunnel after 101

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        self._tunnel = True
        self._keep = False
        self._status = head.status
        self.deadline = inf
        self.transport.write(head.whole + rest)
        buffered, self._buffer = self._buffer, b""
        if self._held_back:
            self._read_on()
        if buffered and isinstance(self._exchange, Exchange):
            self._exchange.tunnel_from_client(buffered)

    def tunnel_closed(self) -> None:
        self._tunnel = False

    # Back-pressure

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self._blocked = True
        self._unsent = self.transport.queued
        self.listener.deadlines.set(self, STALL)
        if self._exchange is not None:
            self._exchange.pause_response()

    def resumeProducing(self) -> None:
        self._blocked = False
        self.deadline = inf
        if self._exchange is not None:
            if self._missing and not self._held_back:
                self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
            self._exchange.resume_response()
        elif not self._closing:
            self.listener.deadlines.set(self, self.listener.settings.keepalive_timeout)
            if not self._reading:
                self._read(self._buffer)

    def stopProducing(self) -> None:
        """The transport is going; C{connectionLost} follows."""

    def pause_request(self) -> None:
        self._request_held = True
        self._hold_back()
        if not self._blocked:
            self.deadline = inf

    def resume_request(self) -> None:
        self._request_held = False
        self._read_on()
        if self._missing and not self._blocked:
            self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)

    def _hold_back(self) -> None:
        if not self._held_back:
            self._held_back = True
            self.transport.pauseProducing()

    def _read_on(self) -> None:
        """Take up reading again, unless there is still a reason against it."""
        if not self._held_back or self._request_held:
            return
        waits = self._blocked if self._exchange is None else not (self._missing or self._tunnel)
        if not waits or len(self._buffer) < _AHEAD:
            self._held_back = False
            self.transport.resumeProducing()

    # The end

    def _refuse(self, status: int, why: str, unread: bytes = b"", waited: float = 0.0) -> None:
        """
        Answer a request that is not to be read on, and close.

        @param unread: what there is of its head, when nobody has read that.
        @param waited: for its end, in seconds.
        """
        size = self.refuse(status)
        self.listener.refuses(self.client, status, why, unread, size, waited)
        self._missing = -1
        self._close()

    def _abandon(self, status: int, why: str) -> None:
        """As L{_refuse}, with an exchange under way."""
        exchange = self._exchange
        assert exchange is not None
        if self._status:
            self.abort()
        else:
            self._refuse(status, why)
        exchange.client_gone()
        if self._exchange is not None:
            self.ended()

    def _close(self) -> None:
        """
        Close after what is queued; once.

        While the client may still be sending, an immediate close would make
        the kernel discard what the client has not read yet (RFC 9112 section
        9.6): first only our side is closed.
        """
        if self._closing:
            return
        self._closing = True
        lingers = self._missing or self._buffer or self._reading
        self._buffer = b""
        self.transport.unregisterProducer()
        self._unsent = self.transport.queued
        if lingers:
            self._request_held = self._blocked = False
            self._read_on()
            self.listener.deadlines.set(self, LINGER)
            self.transport.loseWriteConnection()
        else:
            if self._unsent:
                self.listener.deadlines.set(self, STALL)
            self.transport.loseConnection()

    def drain(self) -> None:
        """Close when the request under way is answered; at once if none is."""
        self._keep = False
        if self.idle:
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        listener = self.listener
        listener.deadlines.forget(self)
        listener.channels.discard(self)
        self._keep = False
        self._closing = True
        exchange = self._exchange
        if exchange is not None:
            if self._tunnel and isinstance(exchange, Exchange):
                exchange.client_closed_tunnel()
            else:
                self._status = self._status or _CLIENT_GONE
                exchange.client_gone()
        listener.closed(self)

    def deadline_passed(self) -> None:
        if self._blocked or self._closing:
            unsent, self._unsent = self._unsent, self.transport.queued
            if self._unsent < unsent:
                # It takes the answer slowly, but it takes it.
                self.listener.deadlines.set(self, LINGER if self._missing else STALL)
            else:
                self.transport.abortConnection()
        elif self._exchange is not None:
            self._abandon(408, "the request's body took too long")
        elif self._buffer:
            waited = self.listener.settings.client_header_timeout
            self._refuse(408, "the request's head took too long", self._buffer, waited)
        else:
            self._close()
