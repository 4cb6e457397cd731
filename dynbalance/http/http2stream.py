"""
One request of an HTTP/2 client and its response: the front of an exchange.

Knows what is still to come of the request, what waits for the client, and
whose move it is; refuses to know frames, and when it is this stream's turn to
send, which are L{dynbalance.http.http2}'s.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes

from dynbalance.http.answers import reason_phrase
from dynbalance.http.exchange import Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.front import NoBareSocket
from dynbalance.http.http2fields import request_block, response_fields
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.request import RequestHead, parse_request

if TYPE_CHECKING:
    from dynbalance.http.http2 import Http2Client
    from dynbalance.http.http2fields import Pair
    from dynbalance.http.response import ResponseHead

STALL = 60.0
"""Seconds that a client may go without taking any of a response."""

AHEAD = 262144
"""Bytes of one response that may wait for the client."""

_CLIENT_GONE = 499
_PROTOCOL = "HTTP/2.0"


class Stream(NoBareSocket):
    """
    @ivar number: the stream's.
    @ivar client: see L{dynbalance.http.channel.Channel}.
    @ivar suffix: likewise.
    @ivar pending: bytes that wait for the client.
    @ivar finished: nothing comes after them.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = (
        "_began", "_bytes_out", "_connection", "_continue", "_exchange", "_feeding", "_full",
        "_head", "_heard_all", "_held", "_limit", "_listener", "_open", "_out", "_size", "_status",
        "_told_all", "_unread", "_untaken", "client", "deadline", "due", "finished", "number",
        "pending", "suffix",
    )  # fmt: skip

    def __init__(self, connection: Http2Client, number: int) -> None:
        self.number = number
        self.client = connection.client
        self.suffix = connection.suffix
        self.pending = 0
        self.finished = False
        self.deadline = inf
        self.due = inf
        self._connection = connection
        self._listener = connection.listener
        self._exchange: Exchange | MountedAdmin | None = None
        self._head: RequestHead | None = None
        self._began = 0.0
        # Frames may be sent.
        self._open = True
        # The request: what it may have, what came, and what was not handed on.
        self._limit = 0
        self._size = 0
        self._heard_all = self._told_all = False
        self._continue = False
        self._held = False
        self._feeding = False
        self._unread: deque[bytes] = deque()
        # Bytes of the client's window that it has not been given back.
        self._untaken = 0
        # The response.
        self._status = 0
        self._bytes_out = 0
        self._out: deque[bytes] = deque()
        self._full = False

    def __repr__(self) -> str:
        return f"<Stream {self.number} of {self.client} {self._exchange}>"

    # The request

    def begin(self, fields: list[Pair], has_body: bool) -> None:
        """Its head is here."""
        listener = self._listener
        listener.requests += 1
        self._began = listener.deadlines.now()
        self._heard_all = not has_body
        try:
            block = request_block(fields, has_body)
        except BadMessage as bad:
            self._refuse(bad.status, str(bad), b" ")
            return
        if len(block) > listener.settings.max_header_size:
            self._refuse(431, "the request's head is too large", block)
            return
        try:
            head = self._head = parse_request(block)
        except BadMessage as bad:
            self._refuse(bad.status, str(bad), block)
            return
        self._continue = head.expect and has_body
        exchange: Exchange | MountedAdmin
        if listener.mounted is not None and head.target.startswith(b"/upstream/"):
            # The API refuses what is too large in its own words.
            exchange = MountedAdmin(listener.mounted, self, head, listener.caller(head, self))
        else:
            exchange = listener.exchange(head, self)
            self._limit = exchange.max_body
            if listener.access_log is not None:
                exchange.attempts = []
        if head.length > self._limit > 0:
            self._refuse(413, "the request's body is too large")
            return
        self._exchange = exchange
        # Whoever expects no body is not told of its end.
        self._told_all = not head.length
        self._watch()
        exchange.start()

    def body(self, data: bytes, size: int) -> None:
        """
        A piece of the request's body.

        @param size: what it took of the client's window.
        """
        if self._exchange is None:
            # It was answered already.
            self._connection.taken(self, size)
            return
        self._size += len(data)
        self._untaken += size
        self._continue = False
        if self._size > self._limit > 0:
            self._give_up(413, "the request's body is too large")
            return
        if data:
            self._unread.append(data)
        self._feed()

    def body_ended(self) -> None:
        """The client has said all."""
        self._heard_all = True
        self._feed()

    def _feed(self) -> None:
        """Hand on what is here, as far as it is taken."""
        if self._feeding:
            # Called back from the loop below.
            return
        self._feeding = True
        while self._unread and not self._held and self._exchange is not None:
            self._exchange.body(self._unread.popleft())
        self._feeding = False
        if self._untaken and not self._held:
            untaken, self._untaken = self._untaken, 0
            self._connection.taken(self, untaken)
        if not (self.pending or self.finished):
            # Who sends more instead of taking the response is not waited for.
            self._watch()
        if self._heard_all and not (self._told_all or self._unread or self._exchange is None):
            self._told_all = True
            self._exchange.body_ended()

    def pause_request(self) -> None:
        self._held = True

    def resume_request(self) -> None:
        self._held = False
        self._feed()

    def request_wanted(self) -> None:
        if self._continue:
            self._continue = False
            self._send_head(((b":status", b"100"),), False)

    def ends(self) -> tuple[Any, Any]:
        transport = self._connection.transport
        return transport.getPeer(), transport.getHost()

    # The response

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        self._status = head.status
        body = data[at:]
        self._send_head(response_fields(head.status, head.forward), last and not body)
        self.response_body(body, last)

    def response_body(self, data: bytes, last: bool) -> None:
        if not self._open:
            return
        waited = self.pending > 0
        if data:
            self._out.append(data)
            self.pending += len(data)
            self._bytes_out += len(data)
        if last:
            self.finished = True
        if not waited:
            self._watch()
        if data or last:
            self._connection.wants_to_send(self)
        if self.pending >= AHEAD and not self._full:
            self._full = True
            if self._exchange is not None:
                self._exchange.pause_response()

    def informational(self, head: ResponseHead) -> None:
        self._send_head(response_fields(head.status, head.forward), False)

    def answer(self, status: int) -> None:
        body = f"{status} {reason_phrase(status)}\n".encode()
        self.reply(status, ((b"content-type", b"text/plain; charset=utf-8"),), body)

    def reply(self, status: int, fields: tuple[Pair, ...], body: bytes) -> None:
        """A response of our own."""
        self._status = status
        named = [(name.lower(), value) for name, value in fields]
        kept = [field for field in named if field[0] != b"content-length"]
        length = (b"content-length", b"%d" % len(body))
        if self._head is not None and self._head.method == b"HEAD":
            body = b""
        self._send_head(((b":status", b"%d" % status), *kept, length), not body)
        self.response_body(body, True)

    def _send_head(self, fields: tuple[Pair, ...], end: bool) -> None:
        if self._open:
            self._connection.send_head(self, fields, end)

    def take(self, size: int) -> bytes:
        """@return: the next bytes of the response, C{size} at most."""
        out = self._out
        data = out.popleft()
        if len(data) > size:
            out.appendleft(data[size:])
            data = data[:size]
        else:
            while out and len(data) + len(out[0]) <= size:
                data += out.popleft()
        self.pending -= len(data)
        return data

    def was_sent(self) -> None:
        """The client was given something: there is room again."""
        self._watch()
        if self._full and self.pending < AHEAD >> 1:
            self._full = False
            if self._exchange is not None:
                self._exchange.resume_response()

    # The end

    @property
    def heard_all(self) -> bool:
        """Whether the client has said all of its request."""
        return self._heard_all

    def abort(self) -> None:
        """The response broke off."""
        self._reset(ErrorCodes.INTERNAL_ERROR)

    def ended(self) -> None:
        """The exchange is over."""
        exchange, self._exchange = self._exchange, None
        self._unread.clear()
        self._log(exchange if isinstance(exchange, Exchange) else None)
        self._watch()

    def close(self) -> None:
        """No more frames: all was sent, or the client wants no more."""
        self._open = False
        self._out.clear()
        self.pending = 0
        self._listener.deadlines.forget(self)
        if self._untaken:
            # The window is the connection's, too.
            self._connection.taken(self, self._untaken)
            self._untaken = 0
        exchange = self._exchange
        if exchange is not None and not self.finished:
            self._leave(exchange)

    def _reset(self, code: ErrorCodes) -> None:
        if self._open:
            self._connection.reset(self, code)

    def _refuse(self, status: int, why: str, unread: bytes = b"") -> None:
        """
        Answer without asking a server.

        @param unread: the head, when it was not read.
        """
        self.answer(status)
        size = self._bytes_out
        self._listener.refuses(self.client, status, why, unread, size, protocol=_PROTOCOL)
        self._log(None)

    def _give_up(self, status: int, why: str) -> None:
        """As L{_refuse}, with an exchange under way."""
        exchange = self._exchange
        if self._status:
            self._reset(ErrorCodes.CANCEL)
        elif exchange is not None:
            self.answer(status)
            self._listener.refuses(self.client, status, why, b"", self._bytes_out)
            self._leave(exchange)

    def _leave(self, exchange: Exchange | MountedAdmin) -> None:
        exchange.client_gone()
        if self._exchange is not None:
            # The admin API is not to be stopped.
            self.ended()

    def _log(self, exchange: Exchange | None) -> None:
        log = self._listener.access_log
        if log is not None and self._head is not None:
            status = self._status or _CLIENT_GONE
            log.request(
                self._head, self.client, status, self._size, self._bytes_out, self._began, exchange,
                _PROTOCOL,
            )  # fmt: skip

    # Whose move it is

    def _watch(self) -> None:
        deadlines = self._listener.deadlines
        if not self._open:
            return
        if self.pending or self.finished:
            deadlines.set(self, STALL)
        elif not (self._heard_all or self._held):
            deadlines.set(self, self._listener.settings.client_header_timeout)
        else:
            deadlines.clear(self)

    def deadline_passed(self) -> None:
        if self.pending or self.finished:
            self._reset(ErrorCodes.CANCEL)
        else:
            self._give_up(408, "the request's body took too long")
