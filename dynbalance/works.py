"""
What a node consists of, and how all of it goes on by a configuration.

Knows what is built from what, and that everything which can fail comes before
anything changes; refuses to know when a node begins and ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dynbalance.accesslog import LogFiles
from dynbalance.admin.measured import Measured
from dynbalance.admin.metrics import Metrics
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.adminside import AdminSide
from dynbalance.balancer.balancer import Balancer
from dynbalance.config import Config, TracingConfig
from dynbalance.duties import Duties
from dynbalance.errors import ConfigError, StoreUnusable
from dynbalance.http.upstream import HttpUpstream
from dynbalance.inventory import Inventory
from dynbalance.lag import Lag
from dynbalance.listening import Ground
from dynbalance.log import set_level
from dynbalance.materials import Materials, tables_of
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.orders import checked_in, orders_of
from dynbalance.ports import OpenPort, Wanted, close_all, open_ports
from dynbalance.slices import Slices
from dynbalance.stays import Stays
from dynbalance.store.choice import keeper_of, store_of
from dynbalance.store.contract import Snapshot
from dynbalance.store.membership import Membership
from dynbalance.traffic import Traffic
from dynbalance.whereabouts import leave, resolver_of
from dynbalance.workers.crew import Crew
from dynbalance.workers.orders import daemon_dir
from dynbalance.workers.sockets import Inherited, Opened

if TYPE_CHECKING:
    from dynbalance.balancer.address import Address
    from dynbalance.net.dial import Target
    from dynbalance.tracing import Tracing


@frozen(slots=True, eq=False)
class Prepared:
    """
    All that a configuration needs and that might have failed.

    @ivar listeners: their ports, in the order of their tables.
    @ivar admin: the admin API's port; C{None} where there is none.
    """

    config: Config
    materials: Materials
    listeners: list[OpenPort]
    admin: OpenPort | None

    @property
    def ports(self) -> list[OpenPort]:
        return self.listeners + ([] if self.admin is None else [self.admin])

    def opened(self) -> list[Opened]:
        """The listeners' ports, for workers."""
        return [
            Opened(path, each.text, each.ports, each.taken)
            for (path, _), each in zip(tables_of(self.config), self.listeners, strict=True)
        ]


class Works:
    """
    @ivar config: that is followed.
    @ivar pages: what is served beside the admin API.
    @ivar logs: the access logs and the audit log.
    @ivar inventory: of the reactor's and of all objects.
    @ivar inherited: see L{dynbalance.service.Node}.
    @ivar tracing: makes spans of requests; C{None} where nobody wants them.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Callable[[], float],
        wall: Callable[[], float],
        crew: Crew | None,
        inherited: Mapping[str, tuple[Inherited, ...]] | None,
        taken: Mapping[str, tuple[Inherited, ...]] | None = None,
    ) -> None:
        """
        Nothing is opened by this.

        @param random: a number in [0, 1).
        @param wall: seconds since the epoch.
        @param crew: who serves, if it is not this process.
        @param taken: the sockets of a process whose place this one takes, by
            their endpoints; that process still has what only one may have.
        @raise ConfigError: the store can never work, or tracing cannot.
        """
        self.config = config
        self._reactor = reactor
        self._crew = crew
        self.inherited = inherited
        self._taken = taken or {}
        self.logs = LogFiles()
        self._materials: Materials | None = None
        self.admin_side = AdminSide(reactor, wall, os.urandom)
        self.balancer = Balancer([], reactor.seconds, random)
        try:
            self.store = store_of(config.store, config.state_dir, reactor, claim=not taken)
        except StoreUnusable as unusable:
            raise ConfigError([f"store.url: {unusable}"]) from None
        shared = None if inherited is None else daemon_dir(config.state_dir)
        self.keeper = keeper_of(config, reactor, wall, shared)
        self._stays = Stays(lambda: sum(len(each.servers) for each in self.balancer))
        self.membership = Membership(
            self.balancer,
            self.store,
            config.node or f"{socket.gethostname()}-{os.getpid()}",
            config.store.lease,
            config.store.sync_interval,
            reactor,
            noted=self._noted,
        )
        self.lag = Lag(reactor)
        hub = self._hub = carrier(reactor)
        self.inventory = Inventory(reactor, hub)
        self.slices = Slices(reactor)
        self.tracing = tracing_of(config.tracing, self.membership.node)
        self.duties = Duties(
            self.store,
            self.membership,
            reactor,
            random,
            once=inherited is None,
            checks=crew is None,
        )
        self.names = Names(reactor, reactor)
        self.names.moved = self._leave
        self.traffic = Traffic(
            Ground(
                balancer=self.balancer,
                hub=hub,
                deadlines=Deadlines(reactor),
                names=self.names,
                pipes=Pipes(),
                wall=wall,
                tracer=self.tracing,
            )
        )

    def __repr__(self) -> str:
        return f"<Works {self.traffic}>"

    def _noted(self) -> None:
        self.keeper.note()
        self._stays.look()

    def prepare(self, config: Config) -> Prepared:
        """
        All that can fail.

        @raise ConfigError: with all that cannot be had; nothing has changed.
        """
        wanted = self.traffic.wanted(config)
        listeners = len(wanted)
        if self.inherited is None:
            wanted.append(Wanted("admin", config.admin.listen, self._reactor))
        problems: list[str] = []
        ports: list[OpenPort] = []
        try:
            ports = open_ports(wanted, self.ports, self.inherited, self._taken)
        except ConfigError as error:
            problems = error.problems
        before = None if self._materials is None else (self.config, self._materials)
        try:
            materials = Materials.gather(config, self.logs, before)
        except ConfigError as error:
            self._close_new(ports)
            raise ConfigError([*error.problems, *problems]) from None
        if problems:
            raise ConfigError(problems)
        admin = ports[listeners] if len(ports) > listeners else None
        return Prepared(config, materials, ports[:listeners], admin)

    @property
    def admin(self) -> OpenPort | None:
        """The admin API's port."""
        return self.admin_side.port

    @property
    def ports(self) -> list[OpenPort]:
        """Those that are open."""
        return self.traffic.ports + ([] if self.admin is None else [self.admin])

    def own_ports(self) -> None:
        """Who listened there before listens no more."""
        for port in self.ports:
            port.own()

    def discard(self, prepared: Prepared) -> None:
        """It will not be followed."""
        self._close_new(prepared.ports)

    def _close_new(self, ports: list[OpenPort]) -> None:
        before = self.ports
        close_all(port for port in ports if port not in before)

    async def snapshots(self, config: Config) -> dict[str, Snapshot | None]:
        """What the store says of the upstreams that are not known yet."""
        return {
            name: await self.membership.look(name)
            for name in config.upstreams
            if self.membership.known(name) is None
        }

    def follow(
        self, prepared: Prepared, snapshots: Mapping[str, Snapshot | None], accept: bool
    ) -> None:
        """
        Go on by a configuration, in one turn of the reactor.

        @param snapshots: of upstreams that were not known.
        @param accept: whether the listeners let in who comes.
        """
        config = prepared.config
        prepared.materials.swap()
        self.config, self._materials = config, prepared.materials
        set_level(config.log_level)
        known = {name: self.membership.known(name) for name in config.upstreams}
        news = {name: each for name, each in snapshots.items() if known[name] is None}
        self.balancer.follow(orders_of(config), known | news)
        self.membership.follow(checked_in(config))
        operations = Operations(
            self.balancer,
            self.store,
            self.membership,
            config.heartbeat.ttl,
            config.heartbeat.reenable,
            self._crew,
            self._way,
            self.slices,
        )
        measured = Measured(
            balancer=self.balancer,
            membership=self.membership,
            doors=lambda: self.traffic.entrances,
            lag=self.lag,
            inventory=self.inventory,
        )
        metrics = Metrics(measured, self._crew, self.slices)
        self.pages = Pages(self.balancer, metrics, self._crew)
        mount = self.admin_side.follow(
            config, prepared.materials, operations, self.pages, prepared.admin
        )
        resolver = resolver_of(config.resolver, os.urandom, self._reactor)
        self.names.follow(resolver, config.resolver.valid)
        self.traffic.follow(config, prepared.materials, prepared.listeners, mount)
        self.duties.follow(config, self.traffic.upstreams)
        # Once: then they are others'.
        self._taken = {}
        if accept:
            self.traffic.accept()

    def _leave(self, address: Address, targets: Collection[Target]) -> None:
        leave(self.traffic.upstreams.values(), self._hub, address, targets)

    def _way(self, name: str) -> HttpUpstream | None:
        return self.traffic.upstreams.get(name)


def tracing_of(table: TracingConfig, node: str) -> Tracing | None:
    """
    What makes spans, where somebody wants them.

    @param node: this node's name.
    @raise ConfigError: it cannot be.
    """
    if not table.enabled:
        return None
    try:
        from dynbalance.tracing import Tracing

        return Tracing(table.sample, node)
    except ImportError as missing:
        why = f"{missing.name} is missing: pip install 'dynbalance[otel]'"
        raise ConfigError([f"tracing.enabled: {why}"]) from None
    except ValueError as bad:
        raise ConfigError([f"tracing: {bad}"]) from None
