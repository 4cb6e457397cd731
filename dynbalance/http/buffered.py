"""
An exchange that begins when the whole request is here, C{request_buffering}.

A slow client costs no server anything, and each attempt gets the whole body,
with its length.  What is here is only when the exchange begins and how the body
is poured out; the rest is any exchange's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from dynbalance.http.exchange import Exchange
from dynbalance.http.spool import SpooledBody

if TYPE_CHECKING:
    from dynbalance.http.connection import ServerConnection
    from dynbalance.http.front import Front
    from dynbalance.http.request import RequestHead
    from dynbalance.http.upstream import HttpUpstream

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"


class BufferedExchange(Exchange):
    """
    Of a request with a body, to an upstream that has a spool.
    """

    __slots__ = ("_awaited", "_spooled")

    def __init__(self, front: Front, to: HttpUpstream, head: RequestHead, first: bytes) -> None:
        super().__init__(front, to, head, first)
        assert to.spool is not None
        self._spooled = self._body = SpooledBody(to.spool, to.settings.body_buffer)
        self._awaited = False

    def start(self) -> None:
        if self._over:
            return
        if self._spooled.complete:
            super().start()
        else:
            self._awaited = True
            self._front.request_wanted()

    def body(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._spooled.add(data)
        except OSError as failed:
            self.give_up(failed)

    def body_ended(self) -> None:
        if self._over:
            return
        self._spooled.end()
        self._state_length()
        # The time for attempts begins with the first.
        self._begun = self._chosen = self._to.hub.now
        if self._awaited:
            self.start()

    def _state_length(self) -> None:
        length = b"\r\nContent-Length: %d\r\n" % self._spooled.size
        self._first = self._first.replace(_CHUNKED, length, 1)

    def give_up(self, failed: OSError) -> None:
        """The body cannot be kept, or not be read back."""
        full = failed.errno in _FULL
        self._log.error(
            "The body of {method} {target} is lost: {why}",
            method=self.head.method.decode("latin-1"),
            target=self.head.target.decode("latin-1"),
            why=failed.strerror,
        )
        self._settle("spool")
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._responding:
            self._front.abort()
            self._finish()
        else:
            self._answer(507 if full else 500)

    def _begin_with_body(self, connection: ServerConnection) -> None:
        try:
            piece = self._spooled.so_far()
        except OSError as failed:
            self.give_up(failed)
            return
        pours = self._spooled.left > 0
        if pours:
            # It asks for more itself, instead of being told of too much.
            connection.transport.unregisterProducer()
        connection.begin(self, self._first + piece, self._to.settings.read_timeout)
        if pours:
            connection.transport.registerProducer(_Pour(self, connection, self._spooled), False)
        else:
            self._sent()
        if self._request_paused and not connection.choked:
            self.resume_request()

    def poured(self) -> None:
        """The server's connection has all of the body."""
        self._sent()

    def ended(self) -> None:
        super().ended()
        self._spooled.close()

    def _finish(self) -> None:
        super()._finish()
        self._spooled.close()


@implementer(IPullProducer)
class _Pour:
    """
    Gives the body to a connection, a piece each time that it has sent all it had.
    """

    __slots__ = ("_body", "_connection", "_exchange")

    def __init__(
        self, exchange: BufferedExchange, connection: ServerConnection, body: SpooledBody
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._body = body

    def resumeProducing(self) -> None:
        connection = self._connection
        transport = connection.transport
        if connection.exchange is not self._exchange:
            # Given up; by now the body may be on its way to another server.
            return
        if not self._body.left:
            transport.unregisterProducer()
            transport.registerProducer(connection, True)
            connection.choked = False
            self._exchange.poured()
            return
        try:
            piece = self._body.read()
        except OSError as failed:
            self._exchange.give_up(failed)
            return
        connection.server.bytes_in += len(piece)
        transport.write(piece)
        connection.sending()

    def stopProducing(self) -> None:
        """The connection is going; the exchange hears of it, too."""
