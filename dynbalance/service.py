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

from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred

from dynbalance import __version__
from dynbalance.admin.pages import Pages
from dynbalance.change import needing_restart
from dynbalance.config import Config
from dynbalance.demo import DemoServers
from dynbalance.errors import ConfigError, StartRefused
from dynbalance.handover import Predecessor
from dynbalance.log import Logger
from dynbalance.notify import Notifier, silent
from dynbalance.orders import endpoints_of
from dynbalance.store.choice import url_beside
from dynbalance.succession import Succession
from dynbalance.workers.crew import Crew
from dynbalance.workers.sockets import Inherited
from dynbalance.works import Prepared, Works

FAREWELL = 2.0
"""Seconds for connections that were cut to end, after C{shutdown_timeout}."""

AFTERWARDS = 15.0
"""Seconds at most for what comes after that: workers that hang, and the store."""


class Node(Service):
    """
    @param reactor: the real one.
    @param random: a number in [0, 1).
    @param wall: seconds since the epoch.
    @param crew: the processes that serve the listeners; this one then does
        what is done once for all of them.
    @param inherited: the listening sockets, by the paths of the listeners'
        options, if this process is one of a crew.
    @param notifier: tells the service manager; C{None} where there is none.
    @ivar works: what it consists of.
    @ivar serving: it lets clients in, or its crew does.
    @ivar succession: how its place goes to another process.
    @ivar ending: the end was ordered.
    @ivar failed: the start failed after the ports were bound.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Callable[[], float],
        wall: Callable[[], float],
        crew: Crew | None = None,
        inherited: Mapping[str, tuple[Inherited, ...]] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.setName("dynbalance")
        self._crew = crew
        self._inherited = inherited
        self._notifier = notifier or silent(reactor)
        self._config = config
        self._reactor = reactor
        self._random = random
        self._wall = wall
        self._begun: Deferred[None] | None = None
        self._when_serving: Deferred[None] = Deferred()
        self._demo: DemoServers | None = None
        self._predecessor: Predecessor | None = None
        self.succession = Succession(self, reactor, crew)
        self.serving = self.ending = self.failed = False

    # Beginning

    def privilegedStartService(self) -> None:
        """
        Build everything and bind the ports.

        @raise StartRefused: something of it cannot be.
        """
        prepared = None
        try:
            if self._inherited is None:
                self._predecessor = Predecessor.found(
                    self._config.state_dir, endpoints_of(self._config), self._config.node
                )
            self.works = Works(
                self._config,
                self._reactor,
                self._random,
                self._wall,
                self._crew,
                self._inherited,
                None if self._predecessor is None else self._predecessor.sockets,
            )
            prepared = self.works.prepare(self._config)
            if self._crew is not None:
                self._crew.open(prepared.opened())
            if self._config.demo:
                self._prepare_demo(prepared)
        except ConfigError as error:
            if prepared is not None:
                self.works.discard(prepared)
            if self._predecessor is not None:
                self._predecessor.abandon()
            raise StartRefused(error.problems) from None
        self.works.follow(prepared, {}, accept=False)

    def _prepare_demo(self, prepared: Prepared) -> None:
        assert prepared.admin is not None
        address = prepared.admin.port.getHost()
        if not isinstance(address, IPv4Address):
            raise ConfigError(["--demo: its servers look for admin.listen on an IPv4 address"])
        if self._config.admin.tls is not None:
            raise ConfigError(["--demo: its servers speak no TLS, which admin.tls asks for"])
        url = f"http://127.0.0.1:{address.port}"
        interval, token = self._config.heartbeat.ttl / 3, self.works.admin_side.demo_token
        self._demo = DemoServers(self._reactor, url, interval, token)

    @property
    def pages(self) -> Pages:
        """What is served beside the admin API."""
        return self.works.pages

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._begun = Deferred.fromCoroutine(self._open())
        self._begun.addErrback(self._cannot_begin)

    async def _open(self) -> None:
        works, predecessor = self.works, self._predecessor
        if predecessor is not None:
            self._log.info("Process {pid} is asked to let go", pid=predecessor.pid)
            await predecessor.take(self._reactor)
        works.keeper.begin(works.membership)
        await works.store.open()
        await works.membership.start()
        works.duties.start()
        works.lag.start()
        self.serving = True
        if self._crew is None:
            works.traffic.accept()
        else:
            config = works.config
            url = url_beside(config.store, works.store)
            await self._crew.begin(config, works.membership.node, url)
            if predecessor is not None:
                self._crew.require_all()
        if self._inherited is None:
            replaces = predecessor is not None
            self.succession.offer.listen(self._reactor, works.config.state_dir, replaces)
        if predecessor is not None:
            predecessor.serving()
            works.own_ports()
        # Not before: who reads it may ask for the take-over at once.
        self._say()
        if self._demo is not None:
            self._demo.start()
        self._when_serving.callback(None)
        self._notifier.ready(self._status)

    @property
    def _status(self) -> str:
        config = self.works.config
        return (
            f"serves as {self.works.membership.node}: {len(config.http)} http and"
            f" {len(config.stream)} stream listeners, {len(config.upstreams)} upstreams"
        )

    def when_begun(self) -> Deferred[None]:
        """Fires when it serves; to be called once."""
        return self._when_serving

    def _say(self) -> None:
        if self._inherited is not None:
            self._log.info("this worker is node {node}", node=self.works.membership.node)
            return
        config = self.works.config
        self._log.info(
            "dynbalance {version} serves as {node}: http {http}, stream {stream}, admin {admin}",
            version=__version__,
            node=self.works.membership.node,
            http=[table.listen for table in config.http],
            stream=[table.listen for table in config.stream],
            admin=config.admin.listen,
        )

    def _cannot_begin(self, failure: Any) -> None:
        if self.ending and failure.check(CancelledError):
            return
        self.failed = True
        self._log.failure("the start failed", failure)
        self._reactor.stop()

    # Going on

    async def reload(self, read: Callable[[], Config]) -> None:
        """
        Go on by the configuration as it is now; no connection is lost by it.

        @param read: gives it, or raises L{ConfigError}.
        @raise ConfigError: with all that is in the way; nothing has changed.
        """
        self._notifier.reloading()
        try:
            await self._reload(read())
        finally:
            if not self.ending:
                self._notifier.ready(self._status)

    async def _reload(self, config: Config) -> None:
        works = self.works
        problems = needing_restart(works.config, config)
        if self.succession.under_way:
            problems.append("another process takes over, and follows its own configuration")
        if problems:
            raise ConfigError(problems)
        prepared = works.prepare(config)
        if self._crew is not None:
            try:
                self._crew.open(prepared.opened())
            except ConfigError:
                works.discard(prepared)
                raise
        snapshots = await works.snapshots(config)
        if self.ending:
            works.discard(prepared)
            return
        works.follow(prepared, snapshots, accept=self.serving and self._crew is None)
        if self._crew is not None:
            await self._crew.follow(config)

    def inherit(self, sockets: Mapping[str, tuple[Inherited, ...]]) -> None:
        """
        The next configuration finds these, instead of those that this process
        was made with.
        """
        self.works.inherited = sockets

    def reopen_logs(self) -> None:
        """Open the access logs anew, because they were moved away."""
        for problem in self.works.logs.reopen():
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
        self.works.traffic.abort_all()

    async def _close(self) -> None:
        works, traffic = self.works, self.works.traffic
        patience = self.succession.close()
        self._notifier.stopping("finishes what is in flight", patience + FAREWELL + AFTERWARDS)
        if self._begun is not None:
            # Only half begun: what is awaited there would end into nothing.
            self._begun.cancel()
        # Another node goes on with them.
        works.lag.stop()
        stopped = works.duties.stop()
        if self._demo is not None:
            await self._demo.stop()
        await traffic.close_ports()
        if self._crew is not None:
            self._crew.close_sockets()
            await self._crew.end(patience)
        traffic.drain()
        if not await _within(traffic.when_idle(), patience, self._reactor):
            self._log.warn(
                "{left} connections are cut after shutdown_timeout", left=traffic.active
            )
            self.cut_short()
            await _within(traffic.when_idle(), FAREWELL, self._reactor)
        traffic.abort_arrivals()
        traffic.close_idle()
        await stopped
        await works.membership.stop()
        await works.keeper.stop()
        # The admin API keeps answering while the balancer ends.
        if works.admin is not None:
            await works.admin.close()
        await works.store.close()
        if works.tracing is not None:
            await works.tracing.stop(self._reactor, FAREWELL)
        self._notifier.stop()
        self._log.info("{what} has ended", what="dynbalance" if self._inherited is None else "it")


def _within(waiting: Deferred[Any], seconds: float, reactor: Any) -> Deferred[bool]:
    """@return: whether C{waiting} fired in time."""
    waiting.addTimeout(seconds, reactor)
    return waiting.addCallbacks(lambda _: True, lambda _: False)
