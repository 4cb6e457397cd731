"""
The admin API on a listener of its own, by C{twisted.web}.

Knows C{twisted.web}'s requests and what has to be refused before a body is
read; refuses to know what is answered.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from dynbalance.admin.answers import Reply, page, reply
from dynbalance.admin.api import BODY_LIMIT, TOO_LARGE, Api
from dynbalance.admin.certificate import certificate_of
from dynbalance.admin.feed import Feed, Stream
from dynbalance.admin.guard import OPEN, Guard
from dynbalance.admin.openapi import with_description
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.table import UpstreamApi
from dynbalance.admin.trail import NO_TRAIL, Trail

IDLE = 60.0
"""Seconds of silence after which a connection is closed."""

ROOM = 1 << 20
"""Bytes of events that are kept for a client that does not take them."""

LINGER = 5.0
"""Seconds that the rest of a refused body is read and thrown away."""


class ApiResource(Resource):
    """
    An L{Api} as a resource, for all paths below the place where it is put:
    the API knows the whole path.
    """

    isLeaf = True

    def __init__(self, api: Api) -> None:
        Resource.__init__(self)
        self._api = api

    def render(self, request: Request) -> int:
        asked = self._api.answer(
            request.method,
            request.path,
            request.uri.partition(b"?")[2],
            request.content.read() if request.content else b"",
            request.getHeader,
            getattr(request.getClientAddress(), "host", ""),
            certificate_of(request.channel.transport),
        )
        _Answering(request, asked)
        return NOT_DONE_YET


class _Answering:
    """
    One request that waits for its reply.  A client that leaves early does not
    stop what it has ordered.
    """

    def __init__(self, request: Request, asked: Deferred[Reply]) -> None:
        self._request = request
        self._gone = False
        request.notifyFinish().addErrback(self._left)
        asked.addCallback(self._write)

    def _left(self, reason: Failure) -> None:
        self._gone = True

    def _write(self, reply: Reply) -> None:
        if self._gone:
            return
        request = self._request
        request.setHeader(b"server", b"dynbalance")
        request.setResponseCode(reply.status)
        for name, _ in reply.headers:
            request.responseHeaders.removeHeader(name)
        for name, value in reply.headers:
            request.responseHeaders.addRawHeader(name, value)
        if reply.stream is not None and request.method != b"HEAD":
            Listening(request, reply.stream)
            return
        request.write(reply.body)
        if reply.parts and request.method != b"HEAD":
            Pouring(request, reply.parts)
        else:
            request.finish()


@implementer(IPullProducer)
class Pouring:
    """One request whose answer is written as fast as its client takes it."""

    def __init__(self, request: Request, parts: Iterable[bytes]) -> None:
        self._request = request
        self._parts = iter(parts)
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        part = next(self._parts, None)
        if part is not None:
            self._request.write(part)
        else:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._parts = iter(())


@implementer(IPushProducer)
class Listening:
    """
    One request whose answer goes on.  What its client does not take is kept up
    to L{ROOM} bytes, beside what the connection itself keeps; then the client is
    dropped: it can come again and say where it was.
    """

    def __init__(self, request: Request, stream: Stream) -> None:
        self._request = request
        self._stream = stream
        self._kept: list[bytes] = []
        self._room = ROOM
        self._paused = False
        self._over = False
        request.notifyFinish().addBoth(self._left)
        request.write(b"")
        request.registerProducer(self, True)
        stream.attach(self)

    def tell(self, text: bytes) -> None:
        if self._over:
            return
        if not self._paused:
            self._request.write(text)
            return
        self._kept.append(text)
        self._room -= len(text)
        if self._room < 0:
            self._over = True
            ITCPTransport(self._request.channel.transport).abortConnection()

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        kept, self._kept, self._room = self._kept, [], ROOM
        if kept:
            self._request.write(b"".join(kept))

    def stopProducing(self) -> None:
        """The connection is gone; L{_left} hears of it, too."""

    def _left(self, reason: object) -> None:
        self._over = True
        self._kept.clear()
        self._stream.detach(self)


class AdminRequest(Request):
    """
    A request whose body ends at L{BODY_LIMIT}: C{twisted.web} would keep any
    length on the disk before it asks anybody.

    The refusal is written at once.  What still comes is read and thrown away
    for a while, since closing a connection with unread bytes may take the
    refusal away from the client that is still sending.
    """

    _refused = False
    _received = 0
    _end: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        Request.gotLength(self, 0 if length is not None and length > BODY_LIMIT else length)
        if length is not None and length > BODY_LIMIT:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refused:
            return
        if self._received > BODY_LIMIT:
            self._refuse()
        else:
            Request.handleContentChunk(self, data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._refused:
            self.channel.loseConnection()
        else:
            Request.requestReceived(self, command, path, version)

    def connectionLost(self, reason: Failure) -> None:
        if self._end is not None and self._end.active():
            self._end.cancel()
        Request.connectionLost(self, reason)

    def _refuse(self) -> None:
        self._refused = True
        # Nobody shall be told to go on.
        self.requestHeaders.removeHeader(b"expect")
        refusal = reply(page(TOO_LARGE))
        transport = ITCPTransport(self.channel.transport)
        lines = [b"HTTP/1.1 413 Content Too Large", b"connection: close", b"server: dynbalance"]
        lines += [name + b": " + value for name, value in refusal.headers]
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + refusal.body)
        self._end = self.channel.callLater(LINGER, transport.abortConnection)


class AdminSite(Site):
    """The API, the pages beside it, and nothing else."""

    displayTracebacks = False
    noisy = False

    def __init__(
        self,
        operations: Operations,
        pages: Pages,
        reactor: IReactorTime,
        guard: Guard = OPEN,
        trail: Trail = NO_TRAIL,
    ) -> None:
        self._feed = Feed(operations.scene, reactor)
        self._guard = guard
        Site.__init__(
            self,
            self._resource(operations, pages, trail),
            requestFactory=AdminRequest,
            timeout=IDLE,
            reactor=reactor,
        )

    def acceptableProtocols(self) -> list[bytes]:
        """For ALPN: L{AdminRequest} speaks no HTTP/2."""
        return [b"http/1.1"]

    def follow(self, operations: Operations, pages: Pages, guard: Guard, trail: Trail) -> None:
        """
        Let these answer from now on, also those who are connected.  Who listens
        to events was let in by the guard before: they have to come again where
        there is another.
        """
        if guard is not self._guard:
            self._guard = guard
            self._feed.stop()
        self.resource = self._resource(operations, pages, trail)

    def _resource(self, operations: Operations, pages: Pages, trail: Trail) -> Resource:
        upstream_api = UpstreamApi(operations, self._feed)
        table = with_description((*upstream_api.endpoints, *pages.endpoints()))
        return ApiResource(Api(table, self._guard, trail))

    def stopFactory(self) -> None:
        """Nobody can come any more; who listens is let go."""
        self._feed.stop()
        Site.stopFactory(self)

    def log(self, request: http.Request) -> None:
        """Nothing: orders are logged where they are carried out, and the rest is polling."""
