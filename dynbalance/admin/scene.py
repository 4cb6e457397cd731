"""
What an order is about: the upstream, the server, and what this node knows.

Knows how a request names them and that a change has to be seen at once;
refuses to know what the orders are.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Json, Refused, compact
from dynbalance.admin.caller import Caller
from dynbalance.admin.conditions import has_seen
from dynbalance.admin.crew import Crew, Live, Lives
from dynbalance.admin.fields import brief
from dynbalance.admin.guard import refuse_others
from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import BadAddress, StoreUnavailable, UnknownUpstream
from dynbalance.log import Logger
from dynbalance.slices import IN_ONE_GO, Slices
from dynbalance.store.contract import Snapshot, Store
from dynbalance.store.membership import Membership


@frozen(slots=True)
class Target:
    """
    The server that a request is about.

    @ivar key: what the store calls it.
    """

    upstream: Upstream
    address: Address
    key: str

    @property
    def server(self) -> Server | None:
        return self.upstream.server(self.key)

    @property
    def is_fixed(self) -> bool:
        """Whether the configuration file defines it."""
        return self.server is not None and self.server.from_file


@frozen(slots=True, kw_only=True)
class Ask:
    """
    One request to the API.

    @ivar only_at: the revision that an order was made for; C{None} for any.
    @ivar if_none_match: the header field.
    @ivar last_event_id: the header field; empty without one.
    """

    arguments: p.Arguments
    caller: Caller
    only_at: int | None = None
    if_none_match: bytes | None = None
    last_event_id: str = ""

    def has_seen(self, revision: int) -> bool:
        """Whether the caller has said that it knows this revision."""
        return has_seen(self.if_none_match, revision)


class Scene:
    """
    @ivar balancer: this node's servers.
    @ivar membership: what this node knows of it.
    @ivar slices: for what takes long.
    """

    _log = Logger()

    def __init__(
        self,
        balancer: Balancer,
        store: Store,
        membership: Membership,
        crew: Crew | None = None,
        slices: Slices = IN_ONE_GO,
    ) -> None:
        """
        @param crew: who serves, if it is not this process.
        @param slices: in which it is looked at many servers.
        """
        self.balancer = balancer
        self.slices = slices
        self.membership = membership
        self._store = store
        self._crew = crew

    @property
    def store(self) -> Store:
        """
        The truth of all nodes.

        @raise StoreUnavailable: orders would not last: the store is away, or has
            not been told yet what it lost.
        """
        self.membership.contact.require()
        return self._store

    def upstream(self, ask: Ask) -> Upstream:
        """@raise Refused: there is none of that name."""
        return self.named(ask.arguments[p.UPSTREAM])

    def named(self, name: str) -> Upstream:
        """Likewise."""
        try:
            return self.balancer.upstream(name)
        except UnknownUpstream:
            raise Refused(404, f"Unknown upstream: {brief(name)}") from None

    def target(self, ask: Ask) -> Target:
        """@raise Refused: the request names no server, or one that is not the caller's."""
        upstream = self.upstream(ask)
        host, port = ask.arguments[p.HOST] or ask.caller.address, ask.arguments[p.PORT]
        if not host:
            raise Refused(400, "Missing required parameter: host")
        try:
            address = Address.of(host, port)
        except BadAddress as error:
            raise Refused(400, f"Invalid host: {error}") from None
        refuse_others(ask.caller, address.host)
        key = str(address)
        # Servers that others wrote into the store keep the name they have.
        given = f"{host}:{port}"
        if upstream.server(key) is None and upstream.server(given) is not None:
            key = given
        return Target(upstream, address, key)

    def changeable(self, ask: Ask) -> Target:
        """@raise Refused: likewise, or one of the configuration file."""
        target = self.target(ask)
        if target.is_fixed:
            raise Refused(400, f"Server is defined in the configuration file: {target.key}")
        return target

    async def changed(self, target: Target, ask: Ask, what: str) -> None:
        """Write a line about an order that was carried out, and see its effect."""
        self._log.info(
            "Server {server} of upstream {upstream} was {what} ({client})",
            server=target.key,
            upstream=target.upstream.name,
            what=what,
            client=str(ask.caller),
        )
        await self.see(target.upstream)

    async def see_now(self, upstream: Upstream) -> Snapshot:
        """@raise StoreUnavailable: also for a store that tells but takes nothing."""
        self.membership.contact.require()
        return await self.membership.refresh(upstream.name)

    async def see(self, upstream: Upstream) -> None:
        """
        Let this node see at once what was changed.  The change is made: if
        the store goes away now, the next exchange brings it.
        """
        try:
            await self.membership.refresh(upstream.name)
        except StoreUnavailable as error:
            self._log.debug("The change is seen later: {error}", error=str(error))
        else:
            if self._crew is not None:
                await self._crew.see(upstream.name)

    async def lives(self, upstream: Upstream) -> Lives:
        """What those that serve see of the servers."""
        if self._crew is not None:
            return await self._crew.lives(upstream.name)
        # Others come and go meanwhile.
        servers = list(upstream.servers)
        seen = ((server.key, Live.of(server)) for server in servers)
        return dict(await self.slices.run(seen))

    async def list_of(self, told: Iterable[Json]) -> str:
        """JSON of a list that may be long."""
        return f"[{','.join(await self.slices.run(map(compact, told)))}]"
