"""
The writing half of a client's connection: responses as they come from a
server, and answers of our own.

Knows framing and what must be said of the connection; refuses to know how
requests are read and when the connection is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

from dynbalance.http import answers
from dynbalance.http.chunked import LAST, chunk
from dynbalance.net.transport import ServerTransport

if TYPE_CHECKING:
    from dynbalance.http.listener import HttpListener
    from dynbalance.http.request import RequestHead
    from dynbalance.http.response import ResponseHead
    from dynbalance.net.tlstransport import TlsTransport


class ResponseWriter(Protocol):
    """
    Implements, of L{dynbalance.http.front.Front}, what writes.

    @ivar listener: whose client it is.
    """

    transport: ServerTransport | TlsTransport

    def __init__(self, listener: HttpListener) -> None:
        self.listener = listener
        # The request that is answered.
        self._head: RequestHead | None = None
        # What is still to come of its body: bytes, or -1 while a chunked one
        # goes on.
        self._missing = 0
        # The client waits for 100 before it sends the body.
        self._continue = False
        # Whether the connection stays after the answer.
        self._keep = True
        self._chunking = False
        # Of the answer that is written; 0 before it begins.
        self._status = 0
        self._bytes_out = 0

    def retire(self) -> None:
        """Let the answer under way be the last, if it can still say so."""
        if not self._status:
            self._keep = False

    def ends(self) -> tuple[Any, Any]:
        return self.transport.getPeer(), self.transport.getHost()

    def request_wanted(self) -> None:
        if self._continue:
            self._continue = False
            self.transport.write(answers.CONTINUE)

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

    def bulk_target(self) -> ServerTransport | None:
        transport = self.transport
        if not isinstance(transport, ServerTransport) or transport.TLS:
            return None
        return None if self._chunking or transport.queued else transport

    def passed(self, size: int) -> None:
        self._bytes_out += size

    def tunnel_data(self, data: bytes) -> None:
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

    def refuse(self, status: int) -> int:
        """
        Answer a request that is not read to its end; it is the last.

        @return: the answer's size in bytes.
        """
        self._keep = False
        self._status = status
        data = answers.answer(status, 1, False, False)
        self._bytes_out += len(data)
        self.transport.write(data)
        return len(data)

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
