"""
What a client's connection is beside what is read from it and written to it: who
waits for whom, whether it stays open, and how it ends.

Refuses to know how requests are read, and anything of servers.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dynbalance.http.bodyreader import BodyReader
from dynbalance.http.exchange import Exchange
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.response import ResponseHead
from dynbalance.http.writer import ResponseWriter

if TYPE_CHECKING:
    from dynbalance.http.listener import HttpListener

AHEAD = 65536
"""Bytes that a client may send ahead; the rest stays in the kernel."""

LINGER = 5.0
"""Seconds that a client may still send, or take nothing, after an early answer."""

STALL = 60.0
"""Seconds that a client may go without taking any of a response."""

_CLIENT_GONE = 499


class ClientConnection(ResponseWriter):
    """
    A part of L{Channel <dynbalance.http.channel.Channel>}.

    @param listener: whose client it is.
    @ivar client: the peer's address, without a port.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    @ivar suffix: the usual end of a forwarded head, as long as the client says
        nothing of X-Forwarded-For.
    """

    def __init__(self, listener: HttpListener, client: str) -> None:
        super().__init__(listener)
        self.client = client
        self.deadline = inf
        self.due = inf
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
        self._begun = 0.0  # for the access log
        self.suffix = listener.forwarding.origin(client, listener.scheme, b"").fields

    def _read(self, data: bytes) -> None:
        """Take requests out of C{data}."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)

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
            listener = self.listener
            deadlines = listener.deadlines
            self.deadline = deadline = deadlines.now() + listener.settings.keepalive_timeout
            if deadline < self.due:
                deadlines.watch(self)
        self._request_held = False
        if not self._reading:
            if self._buffer:
                self._read(self._buffer)
            elif self._held_back:
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
        if not waits or len(self._buffer) < AHEAD:
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
