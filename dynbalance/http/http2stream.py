"""
One request of an HTTP/2 client: what the listener makes of it, and what of it
comes into the access log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynbalance.http.exchange import Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.mounted import MountedAdmin
from dynbalance.http.request import RequestHead, parse_request
from dynbalance.http.resource import Relayed, answer_with, composed, size_of

if TYPE_CHECKING:
    from dynbalance.http.http2 import Http2Client

_CLIENT_GONE = 499


class Stream(Relayed):
    """
    @ivar client: see L{dynbalance.http.channel.Channel}.
    @ivar suffix: likewise.
    @ivar paused: it is the client's move.
    """

    def __init__(self, web: Any, connection: Http2Client) -> None:
        super().__init__(web)
        self.client = connection.client
        self.suffix = connection.suffix
        self.paused = False
        self._connection = connection
        self._listener = connection.listener
        self._head: RequestHead | None = None
        self._size = 0
        self._began = 0.0

    def begin(self) -> None:
        """The request is here, to the end of its body."""
        web, listener = self._web, self._listener
        # The server says what its answers are.
        web.defaultContentType = None
        listener.requests += 1
        self._began = listener.deadlines.now()
        size = self._size = size_of(web.content)
        if web.uri is None:
            self._refuse(400, "there is no path", web.method + b" ")
            return
        block = composed(web, size)
        if len(block) > listener.settings.max_header_size:
            self._refuse(431, "the request's head is too large", block)
            return
        try:
            head = self._head = parse_request(block)
        except BadMessage as bad:
            self._refuse(bad.status, str(bad), block)
            return
        if listener.mounted is not None and head.target.startswith(b"/upstream/"):
            self._go(MountedAdmin(listener.mounted, self, head, self.client))
            return
        exchange = listener.exchange(head, self)
        if listener.access_log is not None:
            exchange.attempts = []
        if size > exchange.max_body > 0:
            self._refuse(413, "the request's body is too large")
        else:
            self._go(exchange)

    def _go(self, exchange: Exchange | MountedAdmin) -> None:
        self._connection.under_way.add(self)
        self.start(exchange, self._size > 0)

    def _refuse(self, status: int, why: str, unread: bytes = b"") -> None:
        """@param unread: the head, when it was not read."""
        web = self._web
        answer_with(web, status)
        web.finish()
        self._listener.refuses(
            self.client, status, why, unread, web.sentLength, protocol="HTTP/2.0"
        )
        self._log(None)

    def reply(self, status: int, fields: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
        """The answer of the admin API."""
        self._web.setResponseCode(status)
        for name, value in fields:
            self._web.responseHeaders.addRawHeader(name, value)
        self._web.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
        self._web.write(body)

    def ended(self) -> None:
        exchange = self._exchange
        self._connection.under_way.discard(self)
        self._log(exchange if isinstance(exchange, Exchange) else None)
        super().ended()

    def _log(self, exchange: Exchange | None) -> None:
        log = self._listener.access_log
        if log is None or self._head is None:
            return
        web = self._web
        log.request(
            self._head,
            self.client,
            web.code if web.startedWriting else _CLIENT_GONE,
            self._size,
            web.sentLength,
            self._began,
            exchange,
            "HTTP/2.0",
        )

    def pauseProducing(self) -> None:
        self.paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        super().resumeProducing()
