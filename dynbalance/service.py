"""
One node: the order in which it begins, goes on by another configuration, and
ends.

Beginning: the ports are bound before anything else, so that a port in use ends
the start at once; they accept when the servers are known, and what connects
before that waits in the kernel.  Going on: all that can fail comes first, and
then everything changes in one turn of the reactor.  Ending: no new work, then
what is in flight, then the store.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred

from dynbalance import __version__
from dynbalance.accesslog import LogFiles
from dynbalance.admin.api import BODY_LIMIT
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.site import AdminSite
from dynbalance.admin.table import UpstreamApi
from dynbalance.balancer.balancer import Balancer
from dynbalance.change import needing_restart
from dynbalance.config import Config
from dynbalance.demo import DemoServers
from dynbalance.duties import Duties
from dynbalance.errors import ConfigError, StartRefused, StoreUnusable
from dynbalance.http.mounted import Mount
from dynbalance.http.upstream import HttpUpstream
from dynbalance.listening import Ground
from dynbalance.log import Logger, set_level
from dynbalance.materials import Materials, tables_of
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.orders import checked_in, orders_of
from dynbalance.ports import OpenPort, Wanted, close_all, open_ports
from dynbalance.store.choice import keeper_of, store_of, url_beside
from dynbalance.store.contract import Snapshot
from dynbalance.store.membership import Membership
from dynbalance.traffic import Traffic
from dynbalance.workers.crew import Crew
from dynbalance.workers.orders import daemon_dir
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
    @ivar pages: what is served beside the admin API.
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
        self._logs = LogFiles()
        self._admin: OpenPort | None = None
        self._site: AdminSite | None = None
        self._materials: Materials | None = None
        self._begun: Deferred[None] | None = None
        self._when_serving: Deferred[None] = Deferred()
        self._demo: DemoServers | None = None
        self._serving = False
        self.ending = False

    # Beginning

    def privilegedStartService(self) -> None:
        """
        Build everything and bind the ports.

        @raise StartRefused: something of it cannot be.
        """
        config, reactor = self._config, self._reactor
        hub = carrier(reactor)
        deadlines = Deadlines(reactor)
        self.balancer = Balancer([], reactor.seconds, self._random)
        try:
            self.store = store_of(config.store, config.state_dir, reactor)
        except StoreUnusable as unusable:
            raise StartRefused([f"store.url: {unusable}"]) from None
        shared = None if self._inherited is None else daemon_dir(config.state_dir)
        self._keeper = keeper_of(config, reactor, self._wall, shared)
        self.membership = Membership(
            self.balancer,
            self.store,
            config.node or f"{socket.gethostname()}-{os.getpid()}",
            config.store.lease,
            config.store.sync_interval,
            reactor,
            noted=self._keeper.note,
        )
        self._duties = Duties(
            self.store,
            self.membership,
            reactor,
            self._random,
            once=self._inherited is None,
            checks=self._crew is None,
        )
        self.traffic = Traffic(
            Ground(
                balancer=self.balancer,
                hub=hub,
                deadlines=deadlines,
                names=Names(reactor, reactor),
                pipes=Pipes(),
                wall=self._wall,
            )
        )
        try:
            materials, ports = self._have(config)
            if self._crew is not None:
                self._open_for_crew(self._crew, config, ports)
        except ConfigError as error:
            raise StartRefused(error.problems) from None
        if config.demo:
            self._prepare_demo(ports)
        self._follow(config, materials, ports, {})

    def _open_for_crew(self, crew: Crew, config: Config, ports: list[OpenPort]) -> None:
        """@raise ConfigError: the workers cannot have their sockets."""
        tables = [path for path, _ in tables_of(config)]
        try:
            crew.open(
                Opened(path, each.text, each.port)
                for path, each in zip(tables, ports[: len(tables)], strict=True)
            )
        except ConfigError:
            self._close_new(ports)
            raise

    def _have(self, config: Config) -> tuple[Materials, list[OpenPort]]:
        """
        All that can fail.

        @return: the ports are those of the listeners, and behind them the admin
            API's, where there is one.
        @raise ConfigError: with all that cannot be had; nothing has changed.
        """
        before = None if self._materials is None else (self._config, self._materials)
        wanted = self.traffic.wanted(config)
        if self._inherited is None:
            # Its port is last; the API keeps answering while the balancer ends.
            wanted.append(Wanted("admin", config.admin.listen, self._reactor))
        problems: list[str] = []
        ports: list[OpenPort] = []
        try:
            ports = open_ports(wanted, self._ports, self._inherited)
        except ConfigError as error:
            problems = error.problems
        try:
            materials = Materials.gather(config, self._logs, before)
        except ConfigError as error:
            self._close_new(ports)
            raise ConfigError([*error.problems, *problems]) from None
        if problems:
            raise ConfigError(problems)
        return materials, ports

    @property
    def _ports(self) -> list[OpenPort]:
        return self.traffic.ports + ([] if self._admin is None else [self._admin])

    def _close_new(self, ports: list[OpenPort]) -> None:
        before = self._ports
        close_all(port for port in ports if port not in before)

    def _prepare_demo(self, ports: list[OpenPort]) -> None:
        address = ports[-1].port.getHost()
        if not isinstance(address, IPv4Address):
            close_all(ports)
            raise StartRefused(["--demo: its servers look for admin.listen on an IPv4 address"])
        url = f"http://127.0.0.1:{address.port}"
        self._demo = DemoServers(self._reactor, url, self._config.heartbeat.ttl / 3)

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._begun = Deferred.fromCoroutine(self._open())
        self._begun.addErrback(self._cannot_begin)

    async def _open(self) -> None:
        self._keeper.begin(self.membership)
        await self.store.open()
        await self.membership.start()
        self._duties.start()
        self._serving = True
        if self._crew is None:
            self.traffic.accept()
        else:
            url = url_beside(self._config.store, self.store)
            await self._crew.begin(self._config, self.membership.node, url)
        self._say()
        if self._demo is not None:
            self._demo.start()
        self._when_serving.callback(None)

    def when_begun(self) -> Deferred[None]:
        """Fires when it serves; to be called once."""
        return self._when_serving

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

    # Going on

    async def reload(self, config: Config) -> None:
        """
        Go on by another configuration; no connection is lost by it.

        @raise ConfigError: with all that is in the way; nothing has changed.
        """
        problems = needing_restart(self._config, config)
        if problems:
            raise ConfigError(problems)
        materials, ports = self._have(config)
        if self._crew is not None:
            self._open_for_crew(self._crew, config, ports)
        snapshots = {name: await self.membership.look(name) for name in config.upstreams}
        if self.ending:
            self._close_new(ports)
            return
        self._follow(config, materials, ports, snapshots)
        if self._crew is not None:
            await self._crew.follow(config)

    def inherit(self, sockets: Mapping[str, Inherited]) -> None:
        """
        The next configuration finds these, instead of those that this process
        was made with.
        """
        self._inherited = sockets

    def _follow(
        self,
        config: Config,
        materials: Materials,
        ports: list[OpenPort],
        snapshots: Mapping[str, Snapshot | None],
    ) -> None:
        """
        Everything that can fail has been done.

        @param ports: as from L{_have}.
        """
        materials.swap()
        self._config, self._materials = config, materials
        set_level(config.log_level)
        self.balancer.follow(orders_of(config), snapshots)
        self.membership.follow(checked_in(config))
        operations = Operations(
            self.balancer,
            self.store,
            self.membership,
            config.heartbeat.ttl,
            config.heartbeat.reenable,
            self._crew,
            self._way,
        )
        mount = Mount(ask=UpstreamApi(operations).answer, max_body=BODY_LIMIT)
        listeners = len(config.http) + len(config.stream)
        self.traffic.follow(config, materials, ports[:listeners], mount)
        self.pages = Pages(
            self.balancer, self.membership, lambda: self.traffic.entrances, crew=self._crew
        )
        for port in ports[listeners:]:
            self._lead_admin(port, operations)
        self._duties.follow(config, self.traffic.upstreams)
        if self._serving and self._crew is None:
            self.traffic.accept()

    def _way(self, name: str) -> HttpUpstream | None:
        return self.traffic.upstreams.get(name)

    def _lead_admin(self, port: OpenPort, operations: Operations) -> None:
        if self._site is None:
            self._site = AdminSite(operations, self.pages, self._reactor)
        else:
            self._site.follow(operations, self.pages)
        before, self._admin = self._admin, port
        port.door.lead_to(self._site)
        port.accept()
        if before is not None and before is not port:
            before.close()

    def reopen_logs(self) -> None:
        """Open the access logs anew, because they were moved away."""
        for problem in self._logs.reopen():
            self._log.error("The access log cannot be opened anew: {problem}", problem=problem)
        if self._crew is not None:
            self._crew.reopen_logs()

    # Ending

    def stopService(self) -> Deferred[None]:
        self.ending = True
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    def cut_short(self) -> None:
        """Wait no longer for what is in flight."""
        if self._crew is not None:
            self._crew.cut()
        self.traffic.abort_all()

    async def _close(self) -> None:
        if self._begun is not None:
            # Only half begun: what is awaited there would end into nothing.
            self._begun.cancel()
        # Another node goes on with them.
        stopped = self._duties.stop()
        if self._demo is not None:
            await self._demo.stop()
        traffic = self.traffic
        await traffic.close_ports()
        if self._crew is not None:
            self._crew.close_sockets()
            await self._crew.end(self._config.shutdown_timeout)
        traffic.drain()
        if not await _within(traffic.when_idle(), self._config.shutdown_timeout, self._reactor):
            self._log.warn(
                "{left} connections are cut after shutdown_timeout", left=traffic.active
            )
            self.cut_short()
            await _within(traffic.when_idle(), FAREWELL, self._reactor)
        traffic.abort_arrivals()
        traffic.close_idle()
        await stopped
        await self.membership.stop()
        await self._keeper.stop()
        if self._admin is not None:
            await self._admin.close()
        await self.store.close()
        self._log.info("{what} has ended", what="dynbalance" if self._inherited is None else "it")


def _within(waiting: Deferred[Any], seconds: float, reactor: Any) -> Deferred[bool]:
    """@return: whether C{waiting} fired in time."""
    waiting.addTimeout(seconds, reactor)
    return waiting.addCallbacks(lambda _: True, lambda _: False)
