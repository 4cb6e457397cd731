"""
What each endpoint of the API does.

Knows the store's calls and the texts that the API's clients look for; refuses
to know paths, methods and how arguments are written.
"""

from __future__ import annotations

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Refused, Written
from dynbalance.admin.caller import Role
from dynbalance.admin.crew import Crew
from dynbalance.admin.explaining import Explaining, Ways, no_way
from dynbalance.admin.guard import require
from dynbalance.admin.scene import Ask, Scene, Target
from dynbalance.admin.views import Listing, moment, server_fields
from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import StaleRevision, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.slices import IN_ONE_GO, Slices
from dynbalance.store.changes import Update
from dynbalance.store.contract import (
    SELF_DRAINING,
    Drain,
    Intent,
    ServerOrder,
    ServerRecord,
    Snapshot,
    Store,
    Then,
)
from dynbalance.store.membership import Membership


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
        crew: Crew | None = None,
        ways: Ways = no_way,
        slices: Slices = IN_ONE_GO,
    ) -> None:
        """
        @param ttl: seconds after its last heartbeat that a server expires.
        @param reenable: whether a heartbeat brings an expired server back.
        @param crew: who serves, if it is not this process.
        @param ways: what of a request matters to an upstream's choice.
        @param slices: in which long answers are made.
        """
        self.scene = Scene(balancer, store, membership, crew, slices)
        self.explaining = Explaining(self.scene, ways, crew)
        self._membership = membership
        self._ttl = ttl
        self._reenable = reenable

    async def status(self, ask: Ask) -> Answer:
        """
        The servers and their counts; the last known ones with 503.  Who names
        the revision is told only whether the membership is another; counts
        change without one.
        """
        upstream = self.scene.upstream(ask)
        try:
            snapshot = await self.scene.see_now(upstream)
        except StoreUnavailable as error:
            last = await self._status(upstream, self._known(upstream))
            return Answer(str(error), last, status=503)
        if ask.has_seen(snapshot.revision):
            return Answer("Not modified", status=304, revision=snapshot.revision)
        shown = await self._status(upstream, self._listing(upstream, snapshot))
        return Answer("Success", shown, revision=snapshot.revision)

    async def _status(self, upstream: Upstream, listing: Listing) -> Written:
        return Written(await self.scene.list_of(listing.status(await self.scene.lives(upstream))))

    async def health(self, ask: Ask) -> Answer:
        """How many servers are alive; the last known numbers with 503."""
        upstream = self.scene.upstream(ask)
        try:
            snapshot = await self.scene.see_now(upstream)
        except StoreUnavailable as error:
            last = self._known(upstream).health().fields()
            last |= {"store": "away", "stale_for": moment(self._membership.contact.stale_for)}
            return Answer(str(error), last, status=503, verdict="unhealthy")
        health = self._listing(upstream, snapshot).health()
        return Answer(
            "Upstream health status",
            {**health.fields(), "store": "ok", "stale_for": 0},
            verdict=health.verdict,
        )

    async def add(self, ask: Ask) -> Answer:
        target = self.scene.target(ask)
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
        record = await self.scene.store.add(
            target.upstream.name, order, str(ask.caller), ask.only_at
        )
        await self.scene.changed(target, ask, "added")
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
        target = self.scene.changeable(ask)
        seconds = ask.arguments[p.DRAIN]
        if seconds:
            return await self._drain(target, ask, Drain(seconds=seconds, then=Then.REMOVE))
        await self.scene.store.remove(
            target.upstream.name, target.key, str(ask.caller), ask.only_at
        )
        await self.scene.changed(target, ask, "removed")
        return Answer("Server removed successfully", {"addr": target.key})

    async def toggle(self, ask: Ask) -> Answer:
        target = self.scene.changeable(ask)
        intent = ask.arguments[p.ACTION]
        seconds, then = ask.arguments[p.DEADLINE], ask.arguments[p.THEN]
        if intent is Intent.DRAIN:
            if seconds and then is Then.STAY:
                then = Then.DISABLE
            return await self._drain(target, ask, Drain(seconds=seconds, then=then))
        require(ask.caller, Role.ADMIN, intent.value)
        if seconds or then is not Then.STAY:
            raise Refused(400, "Invalid action. deadline and then are for drain")
        record = await self.scene.store.set_intent(
            target.upstream.name, target.key, intent, str(ask.caller), only_at=ask.only_at
        )
        word = "enabled" if intent is Intent.ENABLE else "disabled"
        await self.scene.changed(target, ask, word)
        return Answer(
            f"Server {word} successfully", {"addr": target.key, "enabled": record.enabled}
        )

    async def _drain(self, target: Target, ask: Ask, drain: Drain) -> Answer:
        """No new work; what runs finishes."""
        record: ServerRecord = await self.scene.store.set_intent(
            target.upstream.name, target.key, Intent.DRAIN, str(ask.caller), drain, ask.only_at
        )
        await self.scene.changed(target, ask, "told to drain")
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

    async def update(self, ask: Ask) -> Answer:
        """What is not named stays as it is."""
        target = self.scene.changeable(ask)
        arguments = ask.arguments
        update = Update(
            weight=arguments[p.NEW_WEIGHT],
            max_conns=arguments[p.NEW_MAX_CONNS],
            heartbeat=arguments[p.NEW_HEARTBEAT],
            backup=arguments[p.NEW_BACKUP],
            max_fails=arguments[p.NEW_MAX_FAILS],
            fail_timeout=arguments[p.NEW_FAIL_TIMEOUT],
            slow_start=arguments[p.NEW_SLOW_START],
        )
        wanted = ", ".join(f"{name}={value}" for name, value in update.items())
        if not wanted:
            raise Refused(400, "Nothing to update: name what is to change")
        record = await self.scene.store.update(
            target.upstream.name, target.key, update, str(ask.caller), ask.only_at
        )
        await self.scene.changed(target, ask, f"updated to {wanted}")
        return Answer("Server updated successfully", server_fields(record))

    async def refresh(self, ask: Ask) -> Answer:
        """A heartbeat, with what the server says of itself."""
        target = self.scene.changeable(ask)
        weight, draining = ask.arguments[p.NEW_WEIGHT], ask.arguments[p.DRAINING]
        record = await self.scene.store.beat(
            target.upstream.name, target.key, self._reenable, ask.only_at
        )
        server = target.server
        # Most heartbeats change nothing, and there are many of them.
        if server is None:
            await self.scene.see(target.upstream)
        elif server.expired and not record.expired:
            await self.scene.changed(target, ask, "brought back by its heartbeat")
        if weight not in (None, record.order.weight):
            update = Update(weight=weight)
            await self.scene.store.update(
                target.upstream.name, target.key, update, str(ask.caller)
            )
            await self.scene.changed(target, ask, f"updated to weight={weight}")
        if draining is not None and draining is not (record.intent is Intent.DRAIN):
            await self._follow_draining(target, ask, draining)
        return Answer(
            "Heartbeat refreshed successfully",
            {"addr": target.key, "heartbeat_time": moment(record.last_heartbeat)},
        )

    async def _follow_draining(self, target: Target, ask: Ask, draining: bool) -> None:
        """
        A server wants no new work, or wants it again.  What a person has
        ordered stays, also if that was in the same moment.
        """
        snapshot = await self.scene.store.snapshot(target.upstream.name)
        for record in snapshot.servers:
            if record.order.address != target.key:
                continue
            own = record.disabled_reason == SELF_DRAINING
            if not (record.intent is Intent.ENABLE if draining else own):
                return
            intent = Intent.DRAIN if draining else Intent.ENABLE
            try:
                await self.scene.store.set_intent(
                    *(target.upstream.name, target.key, intent, str(ask.caller)),
                    drain=Drain(own=True),
                    only_at=snapshot.revision,
                )
            except StaleRevision:
                # The next heartbeat says it again.
                return
            await self.scene.changed(target, ask, "told to drain" if draining else "enabled")

    async def reset(self, ask: Ask) -> Answer:
        """
        Publish what the nodes really hold.  The text is the one that clients
        have always been given; live connections are not forgotten.
        """
        upstream = self.scene.upstream(ask)
        servers = await self.scene.store.recount(upstream.name, ask.only_at)
        self._log.info(
            "{client} had the connections of upstream {upstream} counted anew",
            client=str(ask.caller),
            upstream=upstream.name,
        )
        return Answer("All connection counts reset to zero", {"servers_reset": servers})

    async def cleanup(self, ask: Ask) -> Answer:
        """Expire now what has to expire."""
        upstream = self.scene.upstream(ask)
        expiry = await self.scene.store.expire(upstream.name, self._ttl, ask.only_at)
        for address in expiry.disabled:
            self._log.warn(
                "Server {server} of upstream {upstream} is out: no heartbeat for {ttl} s;"
                " {client} had it checked",
                server=address,
                upstream=upstream.name,
                ttl=self._ttl,
                client=str(ask.caller),
            )
        if expiry.disabled:
            await self.scene.see(upstream)
        return Answer(
            "Cleanup completed successfully",
            {
                "expired_count": expiry.expired_count,
                "disabled_count": len(expiry.disabled),
            },
        )

    def _listing(self, upstream: Upstream, snapshot: Snapshot | None) -> Listing:
        return Listing(upstream, snapshot, self._ttl)

    def _known(self, upstream: Upstream) -> Listing:
        return self._listing(upstream, self._membership.known(upstream.name))

