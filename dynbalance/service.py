"""
One node: what is built from the configuration, and the order in which it
begins and ends.

Beginning: the ports are bound before anything else, so that a port in use ends
the start at once; they accept when the servers are known, and what connects
before that waits in the kernel.  Ending: no new work, then what is in flight,
then the store.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort

from dynbalance import __version__
from dynbalance.admin.api import BODY_LIMIT
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.site import AdminSite
from dynbalance.admin.table import UpstreamApi
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import FileServer
from dynbalance.config import Config, HttpConfig, StreamConfig, UpstreamConfig
from dynbalance.demo import DemoServers
from dynbalance.entrance import Entrance, noted
from dynbalance.errors import StartRefused, StoreUnusable
from dynbalance.health.checks import checks_of
from dynbalance.health.drains import Drains
from dynbalance.health.heartbeat import HeartbeatCleanup
from dynbalance.http.listener import HttpListener
from dynbalance.http.mounted import Mount
from dynbalance.http.spool import Spool
from dynbalance.http.upstream import HttpUpstream
from dynbalance.listening import Listeners, hooks_of, reaches_of
from dynbalance.log import Logger
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.names import Names
from dynbalance.store.choice import store_of, url_beside
from dynbalance.store.contract import ServerOrder
from dynbalance.store.membership import Membership
from dynbalance.stream.listener import StreamListener
from dynbalance.workers.crew import Crew
from dynbalance.workers.sockets import Inherited, Opened

FAREWELL = 2.0
"""Seconds for connections that were cut to end, after C{shutdown_timeout}."""


class Node(Service):
    """
    @param reactor: the real one.
    @param random: a number in [0, 1).
    @param wall: seconds since the epoch.
    @param crew: the processes that serve the listeners; this one then does
        what is done once for all of them.
    @param inherited: the listening sockets, by the paths of the listeners'
        options, if this process is one of a crew.
    @ivar ending: the end was ordered.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Callable[[], float],
        wall: Callable[[], float],
        crew: Crew | None = None,
        inherited: Mapping[str, Inherited] | None = None,
    ) -> None:
        self.setName("dynbalance")
        self._crew = crew
        self._inherited = inherited
        self._config = config
        self._reactor = reactor
        self._random = random
        self._wall = wall
        self._ports: list[IListeningPort] = []
        self._admin_ports: list[IListeningPort] = []
        self._entrances: list[Entrance] = []
        self._begun: Deferred[None] | None = None
        self._serving: Deferred[None] = Deferred()
        self._demo: DemoServers | None = None
        self.ending = False

    # Beginning

    def privilegedStartService(self) -> None:
        """
        Build everything and bind the ports.

        @raise StartRefused: something of it cannot be.
        """
        config, reactor = self._config, self._reactor
        self.hub = carrier(reactor)
        self.deadlines = Deadlines(reactor)
        self.names = Names(reactor, reactor)
        self.balancer = Balancer(
            [_upstream_order(name, table) for name, table in config.upstreams.items()],
            reactor.seconds,
            self._random,
        )
        try:
            self.store = store_of(config.store, config.state_dir, reactor)
        except StoreUnusable as unusable:
            raise StartRefused([f"store.url: {unusable}"]) from None
        self.membership = Membership(
            self.balancer,
            self.store,
            config.node or f"{socket.gethostname()}-{os.getpid()}",
            config.store.lease,
            config.store.sync_interval,
            reactor,
            [name for name, table in config.upstreams.items() if table.health_check is not None],
        )
        self._drains = Drains(
            self.store,
            self.membership,
            config.upstreams,
            # Heard with one exchange, told with the next; and the store may be slow.
            max(1.0, 3 * config.store.sync_interval),
            reactor,
        )
        self._cleanup = HeartbeatCleanup(
            self.store,
            self.membership,
            config.upstreams,
            config.heartbeat.ttl,
            config.heartbeat.cleanup_interval,
            reactor,
        )
        self.operations = Operations(
            self.balancer,
            self.store,
            self.membership,
            config.heartbeat.ttl,
            config.heartbeat.reenable,
        )
        reaches = reaches_of(config)
        hooks = hooks_of(config, self.balancer)
        spool = Spool(os.path.join(config.state_dir, "spool"))
        if any(table.request_buffering for table in config.upstreams.values()):
            try:
                spool.prepare()
            except OSError as failed:
                raise StartRefused([f"{spool.directory}: {failed.strerror}"]) from None
        self.http_upstreams = {
            name: HttpUpstream(
                self.balancer.upstream(name),
                table,
                self.hub,
                self.deadlines,
                self.names,
                reaches[name],
                spool if table.request_buffering else None,
                hooks.get(name),
            )
            for name, table in config.upstreams.items()
        }
        listeners = Listeners(
            config=config,
            balancer=self.balancer,
            hub=self.hub,
            deadlines=self.deadlines,
            names=self.names,
            mount=Mount(ask=UpstreamApi(self.operations).answer, max_body=BODY_LIMIT),
            upstreams=self.http_upstreams,
            wall=self._wall,
        )
        self.http = listeners.http()
        self.stream = listeners.stream()
        checks = (
            checks_of(to, self.store, self.membership, reactor, self._random)
            for to in self.http_upstreams.values()
        )
        self._checks = [each for each in checks if each is not None]
        self._bind()

    def _bind(self) -> None:
        problems: list[str] = []
        opened: list[Opened] = []

        def listen(path: str, text: str, factory: Any, reactor: Any) -> list[IListeningPort]:
            bound: list[IListeningPort] = []
            listening = serverFromString(reactor, text).listen(factory)
            listening.addCallbacks(
                bound.append,
                lambda failure: problems.append(f"{path}: {text}: {failure.getErrorMessage()}"),
            )
            return bound

        doors: list[tuple[str, HttpConfig | StreamConfig, HttpListener | StreamListener]] = [
            *((f"http[{i}]", self._config.http[i], http) for i, http in enumerate(self.http)),
            *((f"stream[{i}]", self._config.stream[i], each) for i, each in enumerate(self.stream)),
        ]
        for path, table, listener in doors:
            with noted(problems):
                entrance = Entrance.to(listener, table, path, self.hub, self.deadlines)
                self._entrances.append(entrance)
                if self._inherited is None:
                    bound = listen(f"{path}.listen", table.listen, entrance.factory, self.hub)
                else:
                    bound = [self._inherited[path].adopted(self.hub, entrance.factory)]
                self._ports += bound
                opened += [Opened(path, table.listen, port) for port in bound]
        self.pages = Pages(
            self.balancer, self.membership, lambda: self._entrances, crew=self._crew
        )
        if self._inherited is None:
            # The admin API keeps answering while the balancer ends.
            site = AdminSite(self.operations, self.pages, self._reactor)
            self._admin_ports += listen(
                "admin.listen", self._config.admin.listen, site, self._reactor
            )
        if self._config.demo and not problems and not isinstance(
            self._admin_ports[0].getHost(), IPv4Address
        ):
            problems.append("--demo: its servers look for admin.listen on an IPv4 address")
        if self._crew is not None and not problems:
            with noted(problems):
                self._crew.open(opened)
        if problems:
            for port in self._ports + self._admin_ports:
                port.stopListening()
            raise StartRefused(problems)
        for port in self._ports:
            port.stopReading()  # type: ignore[attr-defined]
        if self._config.demo:
            address: Any = self._admin_ports[0].getHost()
            url = f"http://127.0.0.1:{address.port}"
            self._demo = DemoServers(self._reactor, url, self._config.heartbeat.ttl / 3)

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def when_begun(self) -> Deferred[None]:
        """Fires when it serves; to be called once."""
        return self._serving

    def _begin(self) -> None:
        self._begun = Deferred.fromCoroutine(self._open())
        self._begun.addErrback(self._cannot_begin)

    async def _open(self) -> None:
        await self.store.open()
        await self.membership.start()
        if self._inherited is None:
            self._cleanup.start()
            self._drains.start()
        if self._crew is None:
            for checks in self._checks:
                checks.start()
            for port in self._ports:
                port.startReading()  # type: ignore[attr-defined]
        else:
            url = url_beside(self._config.store, self.store)
            await self._crew.begin(self._config, self.membership.node, url)
        self._say()
        if self._demo is not None:
            self._demo.start()
        self._serving.callback(None)

    def _say(self) -> None:
        if self._inherited is not None:
            self._log.info("this worker is node {node}", node=self.membership.node)
            return
        self._log.info(
            "dynbalance {version} serves as {node}: http {http}, stream {stream}, admin {admin}",
            version=__version__,
            node=self.membership.node,
            http=[table.listen for table in self._config.http],
            stream=[table.listen for table in self._config.stream],
            admin=self._config.admin.listen,
        )

    def _cannot_begin(self, failure: Any) -> None:
        if self.ending and failure.check(CancelledError):
            return
        self._log.failure("the start failed", failure)
        self._reactor.stop()

    # Ending

    def stopService(self) -> Deferred[None]:
        self.ending = True
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    def cut_short(self) -> None:
        """Wait no longer for what is in flight."""
        if self._crew is not None:
            self._crew.cut()
        for entrance in self._entrances:
            entrance.abort_all()
        for http in self.http:
            http.abort_all()
        for stream in self.stream:
            stream.abort_all()

    async def _close(self) -> None:
        if self._begun is not None:
            # Only half begun: what is awaited there would end into nothing.
            self._begun.cancel()
        self._cleanup.stop()
        self._drains.stop()
        # Another node goes on with them.
        stopped = DeferredList([checks.stop() for checks in self._checks])
        if self._demo is not None:
            await self._demo.stop()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        if self._crew is not None:
            self._crew.close_sockets()
            await self._crew.end(self._config.shutdown_timeout)
        for http in self.http:
            http.drain()
        listeners: list[HttpListener | StreamListener] = [*self.http, *self.stream]
        if not await _within(_all_idle(listeners), self._config.shutdown_timeout, self._reactor):
            left = sum(listener.active for listener in listeners)
            self._log.warn("{left} connections are cut after shutdown_timeout", left=left)
            self.cut_short()
            await _within(_all_idle(listeners), FAREWELL, self._reactor)
        for entrance in self._entrances:
            entrance.abort_all()
        for upstream in self.http_upstreams.values():
            upstream.close_idle()
        await stopped
        await self.membership.stop()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._admin_ports])
        await self.store.close()
        self._log.info("{what} has ended", what="dynbalance" if self._inherited is None else "it")


def _all_idle(listeners: Iterable[HttpListener | StreamListener]) -> Deferred[Any]:
    """Fires when none of them has clients."""
    # Given up on, each of these fails, and nobody else would hear of it.
    return gatherResults([listener.when_idle() for listener in listeners], consumeErrors=True)


def _upstream_order(name: str, table: UpstreamConfig) -> UpstreamOrder:
    return UpstreamOrder(
        name=name,
        policy=table.policy,
        servers=tuple(
            FileServer(
                order=ServerOrder(
                    address=str(server.address),
                    host=server.address.host,
                    port=server.address.port,
                    weight=server.weight,
                    max_conns=server.max_conns,
                    heartbeat=False,
                    backup=server.backup,
                    max_fails=server.max_fails,
                    fail_timeout=server.fail_timeout,
                ),
                down=server.down,
            )
            for server in table.servers
        ),
        options=UpstreamOptions(
            hash_consistent=table.hash_consistent,
            slow_start=table.slow_start,
            queue=table.queue,
            retry_budget=table.retry_budget,
            last_good=table.panic == "last_good",
        ),
    )


def _within(waiting: Deferred[Any], seconds: float, reactor: Any) -> Deferred[bool]:
    """@return: whether C{waiting} fired in time."""
    waiting.addTimeout(seconds, reactor)
    return waiting.addCallbacks(lambda _: True, lambda _: False)
