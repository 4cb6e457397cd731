"""
A client's connection: reads requests, hands each to an exchange, writes what
comes back.

One request at a time; what a client sends ahead waits in a buffer of bounded
size, and then in the kernel.  The channel decides whether the connection stays
open; it knows nothing of servers.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from dynbalance.http import answers
from dynbalance.http.chunked import LAST, ChunkedDecoder, chunk
from dynbalance.http.exchange import Attempt, Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.request import RequestHead, is_hopeless, parse_request
from dynbalance.http.response import ResponseHead

if TYPE_CHECKING:
    from dynbalance.http.listener import HttpListener
    from dynbalance.net.transport import ServerTransport

LINGER = 5.0
"""
Seconds that a client may go on sending, or without taking any of the answer,
after an answer that came before the end of its request.
"""

STALL = 60.0
"""Seconds that a client may go without taking any of a response."""

_AHEAD = 65536
_CLIENT_GONE = 499


class Channel(Protocol):
    """
    @param listener: whose client it is.
    @ivar client: the peer's address, without a port.
    @ivar suffix: the usual end of a forwarded head, as long as the client says
        nothing of X-Forwarded-For.
    """

    transport: ServerTransport

    def __init__(self, listener: HttpListener, client: str) -> None:
        self.listener = listener
        self.client = client
        self.deadline = inf
        self.bucket = 0
        self._buffer = b""
        self._requests = 0
        self._reading = False
        self._exchange: Exchange | MountedAdmin | None = None
        self._head: RequestHead | None = None
        # What is still to come of the request's body: bytes, or -1 while a
        # chunked one goes on.
        self._missing = 0
        self._decoder: ChunkedDecoder | None = None
        self._body_size = 0
        self._max_body = 0
        self._keep = True
        self._chunking = False
        self._tunnel = False
        self._continue = False
        # No request is read any more.
        self._closing = False
        # Whether the client's bytes are left in the kernel, and whether that
        # is the exchange's wish.
        self._held_back = False
        self._request_held = False
        # The client takes no more; how much waited for it at the last look.
        self._blocked = False
        self._unsent = 0
        self.suffix = listener.forwarding.origin(client, listener.scheme, b"").fields
        # For the access log.
        self._begun = 0.0
        self._status = 0
        self._bytes_out = 0

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
                data = _without_empty_lines(data)
                continue
            end = data.find(b"\r\n\r\n") + 4
            limit = self.listener.settings.max_header_size
            if end < 4 or end > limit:
                if len(data) > limit:
                    self._refuse(431, "the request's head is too large")
                elif is_hopeless(data):
                    self._refuse(400, "no head can begin like this")
                elif not self._buffer:
                    # The time for the head began with its first byte.
                    self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
                break
            try:
                head = parse_request(data if end == len(data) else data[:end])
            except BadMessage as bad:
                self._refuse(bad.status, str(bad))
                break
            data = self._begin(head, data[end:] if end < len(data) else b"")
        self._reading = False
        self._buffer = b"" if self._closing else data
        if self._held_back:
            self._read_on()

    def _begin(self, head: RequestHead, rest: bytes) -> bytes:
        """
        Start an exchange.

        @return: what of C{rest} belongs to later requests.
        """
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
            self._bytes_out = self._body_size = 0
        if listener.mounted is not None and head.target.startswith(b"/upstream/"):
            # The API refuses what is too large in its own words.
            self._max_body = 0
            exchange: Exchange | MountedAdmin
            exchange = MountedAdmin(listener.mounted, self, head, self.client)
        else:
            exchange = listener.exchange(head, self)
            self._max_body = exchange.max_body
            if listener.access_log is not None:
                exchange.attempts = []
        if head.length > self._max_body > 0:
            self._missing = head.length
            self._refuse(413, "the request's body is too large")
            if listener.access_log is not None:
                self._log_access(exchange)
            return b""
        self._exchange = exchange
        if head.length:
            self._missing = head.length
            self._body_size = 0
            self._continue = head.expect
            if head.length < 0:
                self._decoder = ChunkedDecoder()
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
        exchange = self._exchange
        assert exchange is not None
        rest = b""
        if self._decoder is not None:
            try:
                data, used = self._decoder.feed(rest := data)
            except BadMessage as bad:
                self._abandon(400, str(bad))
                return b""
            rest = rest[used:]
            ended = self._decoder.done
        else:
            if len(data) > self._missing:
                data, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(data)
            ended = not self._missing
        self._body_size += len(data)
        if self._body_size > self._max_body > 0:
            self._abandon(413, "the request's body is too large")
            return b""
        if data:
            exchange.body(data)
        if ended and self._exchange is exchange:
            self._missing = 0
            self._decoder = None
            self._continue = False
            self.deadline = inf
            exchange.body_ended()
        return rest

    def request_wanted(self) -> None:
        if self._continue:
            self._continue = False
            self.transport.write(answers.CONTINUE)

    # Answering

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        request = self._head
        assert request is not None
        if self._missing:
            # Answered before all of the request was read: what is still to
            # come of it cannot be told from the next one in time.
            self._keep = False
        self._status = head.status
        self._continue = False
        if length >= 0 and self._keep and request.minor:
            if not at:
                out = head.whole + data
            else:
                out = data if head.unchanged else head.whole + data[at:]
        else:
            out = self._respond_differently(head, length, data[at:], last, request.minor)
        self._bytes_out += len(out)
        self.transport.write(out)

    def _respond_differently(
        self, head: ResponseHead, length: int, body: bytes, last: bool, minor: int
    ) -> bytes:
        """With another framing, or with a word on the connection."""
        if self.listener.draining:
            self._keep = False
        lines = head.forward
        self._chunking = length < 0 and minor > 0
        if self._chunking:
            lines += b"Transfer-Encoding: chunked\r\n"
            body = (chunk(body) if body else b"") + (LAST if last else b"")
        elif length < 0:
            self._keep = False
        if not self._keep:
            lines += b"Connection: close\r\n"
        elif not minor:
            lines += b"Connection: keep-alive\r\n"
        return lines + b"\r\n" + body

    def response_body(self, data: bytes, last: bool) -> None:
        if self._chunking:
            data = (chunk(data) if data else b"") + (LAST if last else b"")
        if data:
            self._bytes_out += len(data)
            self.transport.write(data)

    def informational(self, head: ResponseHead) -> None:
        if self._head is not None and self._head.minor:
            self.transport.write(head.whole)

    def answer(self, status: int) -> None:
        request = self._head
        assert request is not None
        if self._missing:
            self._keep = False
        self._status = status
        data = answers.answer(status, request.minor, self._keep, request.method == b"HEAD")
        self._bytes_out += len(data)
        self.transport.write(data)

    def reply(self, status: int, fields: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
        """A response of the mounted admin API."""
        request = self._head
        assert request is not None
        if self._missing:
            self._keep = False
        self._status = status
        types = [value for name, value in fields if name.lower() == b"content-type"]
        ours = (b"content-type", b"content-length")
        others = tuple(field for field in fields if field[0].lower() not in ours)
        data = answers.response(
            status,
            types[0] if types else b"application/octet-stream",
            others,
            body,
            request.minor,
            self._keep,
            request.method == b"HEAD",
        )
        self._bytes_out += len(data)
        self.transport.write(data)

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
        if self._held_back:
            self._request_held = False
        if not self._reading:
            if self._buffer:
                self._read(self._buffer)
            elif self._held_back:
                self._read_on()

    def _log_access(self, exchange: Exchange | MountedAdmin | None) -> None:
        assert self._head is not None and self.listener.access_log is not None
        attempts: list[Attempt] = []
        upstream = ""
        if isinstance(exchange, Exchange):
            attempts = exchange.attempts or []
            upstream = exchange.upstream_name
        self.listener.access_log.request(
            self._head,
            self.client,
            self._status,
            self._body_size,
            self._bytes_out,
            self._begun,
            upstream,
            attempts,
        )

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

    def tunnel_data(self, data: bytes) -> None:
        self._bytes_out += len(data)
        self.transport.write(data)

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

    def _refuse(self, status: int, why: str) -> None:
        """Answer a request that is not to be read on, and close."""
        self.listener.bad_requests += 1
        self.listener.note_refusal(self.client, status, why)
        self._keep = False
        self._status = status
        data = answers.answer(status, 1, False, False)
        self._bytes_out += len(data)
        self.transport.write(data)
        self._missing = -1
        self._close()

    def _abandon(self, status: int, why: str) -> None:
        """As L{_refuse}, with an exchange under way."""
        exchange = self._exchange
        assert exchange is not None
        self._decoder = None
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
        if self._exchange is None:
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
            self._refuse(408, "the request's head took too long")
        else:
            self._close()


def _without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: empty lines before a request mean nothing."""
    at = 0
    while data.startswith(b"\r\n", at):
        at += 2
    return data[at:]
