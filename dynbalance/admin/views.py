"""
Servers as the API shows them.

Puts together what the store recorded and what this node sees; refuses to know
how either came about.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from dynbalance.admin.answers import Json
from dynbalance.admin.crew import Live, Lives
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.changes import Line
from dynbalance.store.contract import Intent, ServerRecord, Snapshot
from dynbalance.store.undo import drain_of


@frozen(slots=True, kw_only=True)
class Health:
    """How many servers an upstream has, by the words of the API."""

    total: int
    enabled: int
    active: int

    @property
    def verdict(self) -> str:
        return "healthy" if self.active else "unhealthy"

    def fields(self) -> dict[str, Json]:
        return {
            "total_servers": self.total,
            "enabled_servers": self.enabled,
            "active_servers": self.active,
            "expired_servers": self.enabled - self.active,
        }


def is_active(record: ServerRecord, now: float, ttl: float) -> bool:
    """
    Whether its heartbeats come; one that needs none is always active.

    @param now: the store's clock.
    """
    if not record.order.heartbeat:
        return True
    return record.last_heartbeat is not None and now - record.last_heartbeat <= ttl


class Listing:
    """
    The servers of one upstream: those of the configuration file, then those
    of the store.  A server of the file hides one of the store with the same
    address, as it does in the balancer.
    """

    def __init__(self, upstream: Upstream, snapshot: Snapshot | None, ttl: float) -> None:
        """
        @param snapshot: C{None} when the store was never seen.
        @param ttl: seconds after its last heartbeat that a server is active.
        """
        self._fixed = [server for server in upstream.servers if server.from_file]
        fixed = {server.key for server in self._fixed}
        records = snapshot.servers if snapshot else ()
        self._records = [record for record in records if record.order.address not in fixed]
        self._upstream = upstream
        self._now = snapshot.now if snapshot else 0.0
        self._ttl = ttl

    def health(self) -> Health:
        enabled = sum(not server.down for server in self._fixed)
        active = enabled
        for record in self._records:
            enabled += record.enabled
            active += record.enabled and is_active(record, self._now, self._ttl)
        return Health(
            total=len(self._fixed) + len(self._records), enabled=enabled, active=active
        )

    def status(self, lives: Lives) -> Iterator[Json]:
        """@param lives: what those that serve see of the servers."""
        for server in self._fixed:
            yield _fixed(server, lives)
        for record in self._records:
            yield self._stored(record, lives)

    def _stored(self, record: ServerRecord, lives: Lives) -> dict[str, Json]:
        order = record.order
        server = self._upstream.server(order.address)
        beat = record.last_heartbeat
        return present(
            addr=order.address,
            host=order.host,
            port=order.port,
            connections=server.load if server else record.connections,
            weight=order.weight,
            max_conns=order.max_conns,
            enabled=record.enabled,
            is_active=is_active(record, self._now, self._ttl),
            last_heartbeat=moment(beat),
            time_since_heartbeat=None if beat is None else moment(max(0.0, self._now - beat)),
            created_at=moment(record.created_at),
            updated_at=moment(record.updated_at),
            disabled_at=moment(record.disabled_at),
            disabled_reason=record.disabled_reason,
            heartbeat=order.heartbeat,
            max_fails=order.max_fails,
            fail_timeout=moment(order.fail_timeout),
            source="store",
            backup=order.backup,
            **self._drain(record),
            **_live(lives.get(order.address)),
        )

    def _drain(self, record: ServerRecord) -> dict[str, Json]:
        """How long a drain may still take, and what comes then."""
        deadline = record.drain_deadline
        if record.intent is not Intent.DRAIN:
            return {}
        return {
            "drain_deadline": moment(deadline),
            "drain_remaining": None if deadline is None else moment(max(0, deadline - self._now)),
            "drain_then": record.drain_then.value or None,
        }


def server_fields(record: ServerRecord) -> dict[str, Json]:
    """A server's order and what an operator wants of it; nothing observed."""
    order = record.order
    drain = drain_of(record)
    return present(
        addr=order.address,
        host=order.host,
        port=order.port,
        weight=order.weight,
        max_conns=order.max_conns,
        heartbeat=order.heartbeat,
        backup=order.backup,
        max_fails=order.max_fails,
        fail_timeout=moment(order.fail_timeout),
        slow_start=moment(order.slow_start),
        action=record.intent.value,
        deadline=moment(drain.seconds) if drain.seconds else None,
        then=drain.then.value or None,
    )


def line_fields(line: Line) -> dict[str, Json]:
    """A line as the API tells it; what it has not is left out."""
    told: dict[str, Json] = {
        "id": line.id,
        "time": moment(line.at),
        "revision": line.revision,
        "by": line.by,
        "action": line.action,
        "address": line.address,
    }
    if line.before is not None:
        told["before"] = _state_fields(line.before)
    if line.after is not None:
        told["after"] = _state_fields(line.after)
    if line.cause:
        told["cause"] = line.cause
    return told


def _state_fields(record: ServerRecord) -> dict[str, Json]:
    told = server_fields(record)
    if record.expired:
        told["expired"] = True
    return told


def _fixed(server: Server, lives: Lives) -> dict[str, Json]:
    return present(
        addr=server.key,
        host=server.address.host,
        port=server.address.port,
        connections=server.load,
        weight=server.weight,
        max_conns=server.max_conns,
        enabled=not server.down,
        is_active=not server.down,
        heartbeat=False,
        max_fails=server.max_fails,
        fail_timeout=moment(server.fail_timeout),
        source="file",
        backup=server.backup,
        **_live(lives.get(server.key)),
    )


def _live(live: Live | None) -> dict[str, Json]:
    """What only this node can tell; it may not have met the server yet."""
    if live is None:
        return {"state": "unknown", "node_connections": 0, "why": "this node cannot use it"}
    return {
        "state": live.state.value,
        "node_connections": live.held,
        "slow_start": moment(live.slow),
        "why": live.why,
    }


def present(**fields: Json) -> dict[str, Json]:
    """What is not known is left out."""
    return {name: value for name, value in fields.items() if value is not None}


def moment(seconds: float | None) -> Json:
    """Seconds to the millisecond; whole ones without a fraction."""
    if seconds is None:
        return None
    rounded = round(float(seconds), 3)
    return int(rounded) if rounded.is_integer() else rounded
