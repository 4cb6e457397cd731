"""
What C{--demo} adds: three small HTTP servers that register themselves.

They are clients of the admin API like any other: they find it by its URL, beat
while they live and remove themselves at the end.  Knows nothing else of the
balancer.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IConsumer, IListeningPort, IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from dynbalance.log import Logger

LOOPBACK = "127.0.0.1"
NAMES = ("ada", "ben", "cleo")

ADMIN_PATIENCE = 5.0
"""Seconds that one call of the admin API may take."""


class _Greeting(Resource):
    """Says who answered what."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        Resource.__init__(self)
        self._name = name

    def render(self, request: Request) -> bytes:
        method = request.method.decode("latin-1")
        uri = request.uri.decode("latin-1")
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return f"Demo server {self._name} answers {method} {uri}\n".encode()


class _QuietSite(Site):
    """Without a log line for each request."""

    displayTracebacks = False
    noisy = False

    def __init__(self, resource: Resource, reactor: IReactorTCP) -> None:
        Site.__init__(self, resource, reactor=reactor)

    def log(self, request: http.Request) -> None:
        """Nothing."""


class _Unread(Protocol):
    """
    Takes a body and keeps nothing of it.

    @ivar done: fires at its end.
    """

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(None)


@implementer(IBodyProducer)
class _Form:
    """Form fields as a request's body, written at once."""

    def __init__(self, fields: dict[str, str | int]) -> None:
        self._body = urlencode(fields).encode("ascii")
        self.length = len(self._body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All is written already."""

    def resumeProducing(self) -> None:
        """All is written already."""

    def stopProducing(self) -> None:
        """All is written already."""


class _DemoServer:
    """
    One server: a port, and what it tells the admin API.

    @ivar well: whether the last call of the API succeeded; C{None} before.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        port: IListeningPort,
        agent: Agent,
        admin: str,
        clock: IReactorTime,
        token: str,
    ) -> None:
        self._name = name
        self._clock = clock
        self._port = port
        self._agent = agent
        self._admin = admin
        self._headers = {b"content-type": [b"application/x-www-form-urlencoded"]}
        if token:
            self._headers[b"authorization"] = [b"Bearer " + token.encode("ascii")]
        self._well: bool | None = None

    @property
    def port(self) -> int:
        address = self._port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    async def beat(self) -> None:
        """A heartbeat, or a registration if nobody knows this server; never fails."""
        well, why = False, ""
        try:
            status = await self._tell("refresh")
            if status == http.NOT_FOUND:
                status = await self._tell("add")
            well, why = status == http.OK, f"status {status}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the next beat tries again
            why = str(error)
        if well is not self._well:
            self._well = well
            text = "is registered" if well else f"is not registered: {why}"
            self._log.info(
                "Demo server {name} on port {port} {text}",
                name=self._name,
                port=self.port,
                text=text,
            )

    async def end(self) -> None:
        """Deregister and close; never fails."""
        try:
            await self._tell("remove")
        except Exception as error:  # noqa: BLE001 - it leaves all the same
            self._log.info(
                "Demo server {name} could not deregister: {error}",
                name=self._name,
                error=str(error),
            )
        await maybeDeferred(self._port.stopListening)

    def _tell(self, what: str) -> Deferred[int]:
        """@return: the status of the answer; fails after L{ADMIN_PATIENCE}."""
        return Deferred.fromCoroutine(self._ask(what)).addTimeout(ADMIN_PATIENCE, self._clock)

    async def _ask(self, what: str) -> int:
        asked = self._agent.request(
            b"POST",
            f"{self._admin}/upstream/{what}".encode("ascii"),
            Headers(self._headers),
            _Form({"host": LOOPBACK, "port": self.port}),
        )
        response = await asked
        unread = _Unread()
        response.deliverBody(unread)
        await unread.done
        return int(response.code)


class DemoServers:
    """The three of them."""

    def __init__(
        self, reactor: IReactorTCP, admin: str, interval: float, token: str = ""
    ) -> None:
        """
        @param admin: the admin API's URL without a path: C{http://host:port}.
        @param interval: seconds from one heartbeat to the next.
        @param token: to show to the API; empty for none.
        """
        self._reactor = reactor
        # Kept connections: twisted.web logs each new one.
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = len(NAMES)
        self._agent = Agent(reactor, connectTimeout=ADMIN_PATIENCE, pool=self._pool)
        self._admin = admin.rstrip("/")
        self._interval = interval
        self._token = token
        self._servers: list[_DemoServer] = []
        self._beats = LoopingCall(self._beat)
        self._beats.clock = IReactorTime(reactor)

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [server.port for server in self._servers]

    def start(self) -> Deferred[None]:
        """
        Listen, and begin to beat: the first heartbeat registers.

        @return: fires when they listen.
        """
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        clock = IReactorTime(self._reactor)
        for name in NAMES:
            endpoint = TCP4ServerEndpoint(self._reactor, 0, interface=LOOPBACK)
            port = await endpoint.listen(_QuietSite(_Greeting(name), self._reactor))
            server = _DemoServer(name, port, self._agent, self._admin, clock, self._token)
            self._servers.append(server)
        self._beats.start(self._interval)

    def stop(self) -> Deferred[None]:
        """
        @return: fires when all have said farewell and closed; never fails.
        """
        return Deferred.fromCoroutine(self._stop())

    def _beat(self) -> Deferred[None]:
        return _all(server.beat() for server in self._servers)

    async def _stop(self) -> None:
        if self._beats.running:
            self._beats.stop()
        servers, self._servers = self._servers, []
        await _all(server.end() for server in servers)
        await self._pool.closeCachedConnections()


def _all(works: Iterable[Coroutine[Deferred[Any], Any, None]]) -> Deferred[None]:
    """Fires when all are done."""
    done = DeferredList([Deferred.fromCoroutine(work) for work in works], consumeErrors=True)
    return done.addCallback(lambda results: None)
