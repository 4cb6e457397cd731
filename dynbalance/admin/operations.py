"""
What each endpoint of the API does.

Knows the store's calls and the texts that the API's clients look for; refuses
to know paths, methods and how arguments are written.
"""

from __future__ import annotations

from attrs import frozen

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Refused
from dynbalance.admin.fields import brief
from dynbalance.admin.views import Listing, moment
from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import BadAddress, StoreUnavailable, UnknownUpstream
from dynbalance.log import Logger
from dynbalance.store.contract import (
    Drain,
    Intent,
    ServerOrder,
    ServerRecord,
    Snapshot,
    Store,
    Then,
)
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

    @ivar client: the caller's address; empty when it has none.
    """

    arguments: p.Arguments
    client: str


class Operations:
    """
    The orders and questions that the API passes on.

    Every order fails with L{StoreUnavailable
    <dynbalance.errors.StoreUnavailable>} while the store is away, and has
    changed nothing then.
    """

    _log = Logger()

    def __init__(
        self,
        balancer: Balancer,
        store: Store,
        membership: Membership,
        ttl: float,
        reenable: bool,
    ) -> None:
        """
        @param ttl: seconds after its last heartbeat that a server expires.
        @param reenable: whether a heartbeat brings an expired server back.
        """
        self._balancer = balancer
        self._store = store
        self._membership = membership
        self._ttl = ttl
        self._reenable = reenable

    async def status(self, ask: Ask) -> Answer:
        """The servers and their counts; the last known ones with 503."""
        upstream = self._upstream(ask)
        try:
            snapshot = await self._membership.refresh(upstream.name)
        except StoreUnavailable as error:
            return Answer(str(error), self._known(upstream).status(), status=503)
        return Answer("Success", self._listing(upstream, snapshot).status())

    async def health(self, ask: Ask) -> Answer:
        """How many servers are alive; the last known numbers with 503."""
        upstream = self._upstream(ask)
        try:
            snapshot = await self._membership.refresh(upstream.name)
        except StoreUnavailable as error:
            last = self._known(upstream).health().fields()
            last |= {"store": "away", "stale_for": moment(self._membership.stale_for)}
            return Answer(str(error), last, status=503, verdict="unhealthy")
        health = self._listing(upstream, snapshot).health()
        return Answer(
            "Upstream health status",
            {**health.fields(), "store": "ok", "stale_for": 0},
            verdict=health.verdict,
        )

    async def add(self, ask: Ask) -> Answer:
        target = self._target(ask)
        if target.is_fixed:
            raise Refused(400, f"Server already exists: {target.key}")
        arguments = ask.arguments
        order = ServerOrder(
            address=target.key,
            host=target.address.host,
            port=target.address.port,
            weight=arguments[p.WEIGHT],
            max_conns=arguments[p.MAX_CONNS],
            heartbeat=arguments[p.HEARTBEAT],
            backup=arguments[p.BACKUP],
            max_fails=arguments[p.MAX_FAILS],
            fail_timeout=arguments[p.FAIL_TIMEOUT],
            slow_start=arguments[p.SLOW_START],
        )
        record = await self._store.add(target.upstream.name, order, ask.client)
        await self._changed(target, ask, "added")
        return Answer(
            "Server added successfully",
            {
                "addr": target.key,
                "host": order.host,
                "port": order.port,
                "weight": order.weight,
                "max_conns": order.max_conns,
                "enabled": record.enabled,
            },
        )

    async def remove(self, ask: Ask) -> Answer:
        target = self._changeable(ask)
        seconds = ask.arguments[p.DRAIN]
        if seconds:
            return await self._drain(target, ask, Drain(seconds=seconds, then=Then.REMOVE))
        await self._store.remove(target.upstream.name, target.key, ask.client)
        await self._changed(target, ask, "removed")
        return Answer("Server removed successfully", {"addr": target.key})

    async def toggle(self, ask: Ask) -> Answer:
        target = self._changeable(ask)
        intent = ask.arguments[p.ACTION]
        seconds, then = ask.arguments[p.DEADLINE], ask.arguments[p.THEN]
        if intent is Intent.DRAIN:
            if seconds and then is Then.STAY:
                then = Then.DISABLE
            return await self._drain(target, ask, Drain(seconds=seconds, then=then))
        if seconds or then is not Then.STAY:
            raise Refused(400, "Invalid action. deadline and then are for drain")
        record = await self._store.set_intent(
            target.upstream.name, target.key, intent, ask.client
        )
        word = "enabled" if intent is Intent.ENABLE else "disabled"
        await self._changed(target, ask, word)
        return Answer(
            f"Server {word} successfully", {"addr": target.key, "enabled": record.enabled}
        )

    async def _drain(self, target: Target, ask: Ask, drain: Drain) -> Answer:
        """No new work; what runs finishes."""
        record: ServerRecord = await self._store.set_intent(
            target.upstream.name, target.key, Intent.DRAIN, ask.client, drain
        )
        await self._changed(target, ask, "told to drain")
        server = target.server
        return Answer(
            "Server is draining",
            {
                "addr": target.key,
                "enabled": record.enabled,
                "connections": server.load if server else record.connections,
                "drain_deadline": moment(record.drain_deadline),
                "drain_then": record.drain_then.value or None,
            },
        )

    async def refresh(self, ask: Ask) -> Answer:
        """A heartbeat."""
        target = self._changeable(ask)
        record = await self._store.beat(target.upstream.name, target.key, self._reenable)
        server = target.server
        # Most heartbeats change nothing, and there are many of them.
        if server is None:
            await self._see(target.upstream)
        elif server.expired and not record.expired:
            await self._changed(target, ask, "brought back by its heartbeat")
        return Answer(
            "Heartbeat refreshed successfully",
            {"addr": target.key, "heartbeat_time": moment(record.last_heartbeat)},
        )

    async def reset(self, ask: Ask) -> Answer:
        """
        Publish what the nodes really hold.  The text is the one that clients
        have always been given; live connections are not forgotten.
        """
        upstream = self._upstream(ask)
        servers = await self._store.recount(upstream.name)
        self._log.info(
            "{client} had the connections of upstream {upstream} counted anew",
            client=ask.client,
            upstream=upstream.name,
        )
        return Answer("All connection counts reset to zero", {"servers_reset": servers})

    async def cleanup(self, ask: Ask) -> Answer:
        """Expire now what has to expire."""
        upstream = self._upstream(ask)
        expiry = await self._store.expire(upstream.name, self._ttl)
        for address in expiry.disabled:
            self._log.warn(
                "Server {server} of upstream {upstream} is out: no heartbeat for {ttl} s;"
                " {client} had it checked",
                server=address,
                upstream=upstream.name,
                ttl=self._ttl,
                client=ask.client,
            )
        if expiry.disabled:
            await self._see(upstream)
        return Answer(
            "Cleanup completed successfully",
            {
                "expired_count": expiry.expired_count,
                "disabled_count": len(expiry.disabled),
            },
        )

    def _upstream(self, ask: Ask) -> Upstream:
        name = ask.arguments[p.UPSTREAM]
        try:
            return self._balancer.upstream(name)
        except UnknownUpstream:
            raise Refused(404, f"Unknown upstream: {brief(name)}") from None

    def _target(self, ask: Ask) -> Target:
        upstream = self._upstream(ask)
        host, port = ask.arguments[p.HOST] or ask.client, ask.arguments[p.PORT]
        if not host:
            raise Refused(400, "Missing required parameter: host")
        try:
            address = Address.of(host, port)
        except BadAddress as error:
            raise Refused(400, f"Invalid host: {error}") from None
        key = str(address)
        # Servers that others wrote into the store keep the name they have.
        given = f"{host}:{port}"
        if upstream.server(key) is None and upstream.server(given) is not None:
            key = given
        return Target(upstream, address, key)

    def _changeable(self, ask: Ask) -> Target:
        target = self._target(ask)
        if target.is_fixed:
            raise Refused(400, f"Server is defined in the configuration file: {target.key}")
        return target

    def _listing(self, upstream: Upstream, snapshot: Snapshot | None) -> Listing:
        return Listing(upstream, snapshot, self._ttl)

    def _known(self, upstream: Upstream) -> Listing:
        return self._listing(upstream, self._membership.known(upstream.name))

    async def _changed(self, target: Target, ask: Ask, what: str) -> None:
        self._log.info(
            "Server {server} of upstream {upstream} was {what} ({client})",
            server=target.key,
            upstream=target.upstream.name,
            what=what,
            client=ask.client,
        )
        await self._see(target.upstream)

    async def _see(self, upstream: Upstream) -> None:
        """
        Let this node see at once what was changed.  The change is made: if
        the store goes away now, the next exchange brings it.
        """
        try:
            await self._membership.refresh(upstream.name)
        except StoreUnavailable as error:
            self._log.debug("The change is seen later: {error}", error=str(error))
