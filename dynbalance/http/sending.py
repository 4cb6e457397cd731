"""
The half of an exchange that sends a request's body to the server, as fast as
it is taken and no faster than it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynbalance.http.connection import ServerConnection
    from dynbalance.http.front import Front
    from dynbalance.http.requestbody import RequestBody
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.tlstransport import TlsTransport
    from dynbalance.net.transport import ServerTransport


class Sending:
    """
    A part of L{Exchange <dynbalance.http.exchange.Exchange>}.

    @ivar sent_all: the whole request was handed to the connection.
    """

    __slots__ = ("_body", "_connection", "_first", "_front", "_request_paused", "_to", "sent_all")

    sent_all: bool
    _body: RequestBody | None
    _connection: ServerConnection | None
    _first: bytes
    _front: Front
    _request_paused: bool
    _to: HttpUpstream

    def bulk_target(self) -> ServerTransport | None:
        """See L{Front.bulk_target <dynbalance.http.front.Front.bulk_target>}."""
        return self._front.bulk_target()

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""
        assert self._body is not None
        self._send(self._body.add(data))

    def body_ended(self) -> None:
        """That was all of the request's body."""
        assert self._body is not None
        last = self._body.end()
        if last:
            self._send(last)
        elif self._connection is not None and self._connection.requests:
            self._sent()

    def body_beside(
        self,
        source: ServerTransport | TlsTransport,
        size: int,
        moved: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        """
        Let what is to come of the request's body go to the server unseen, if
        nobody else will ask for it again.

        @param size: of it, in bytes.
        @param moved: called with each number of bytes that went.
        @param done: called when all went; L{body_ended} is then to be said.
        """
        body, connection = self._body, self._connection
        if body is None or body.is_replayable or self._request_paused:
            return
        if connection is None or connection.requests == 0 or connection.exchange is not self:
            return
        server = connection.server

        def sent(size: int) -> None:
            server.bytes_in += size
            moved(size)

        connection.send_beside(source, size, sent, done)

    def _send(self, data: bytes) -> None:
        body, connection = self._body, self._connection
        assert body is not None
        if connection is None or connection.requests == 0 or connection.exchange is not self:
            if body.is_long and not self._request_paused:
                self.pause_request()
            return
        body.flows()
        connection.server.bytes_in += len(data)
        connection.transport.write(data)
        self._sent()

    def _sent(self) -> None:
        """So much of the request was handed over: whose move is it?"""
        connection = self._connection
        assert connection is not None
        if self._body is None or self._body.complete:
            self.sent_all = True
            connection.wait(self._to.settings.read_timeout)
        elif not self._request_paused:
            connection.wait_no_longer()

    def pause_request(self) -> None:
        """The server takes no more for now."""
        self._request_paused = True
        self._front.pause_request()

    def resume_request(self) -> None:
        self._request_paused = False
        if self._connection is not None:
            self._sent()
        self._front.resume_request()
