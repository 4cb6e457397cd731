"""
The JSON of a server, and of what its health check found.

Knows the fields, as C{meta.lua} does; refuses to know keys and scripts.  What
another program or a person wrote is read as well as it can be; one field that
makes no sense never hides the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from dynbalance.balancer.address import Address
from dynbalance.store.changes import Update
from dynbalance.store.contract import (
    HEARTBEAT_TIMEOUT,
    Intent,
    ServerOrder,
    ServerRecord,
    Then,
)

_DEFAULTS = ServerOrder(address="", host="", port=0)
"""For what the JSON does not say."""


def text(raw: bytes) -> str:
    """Bytes that are not UTF-8 survive the way there and back."""
    return raw.decode("utf-8", "surrogateescape")


def order_text(order: ServerOrder) -> str:
    """The JSON of an order; the script adds state and times."""
    return json.dumps(
        {
            "host": order.host,
            "port": order.port,
            "weight": order.weight,
            "max_conns": order.max_conns,
            "heartbeat": order.heartbeat,
            "backup": order.backup,
            "max_fails": order.max_fails,
            "fail_timeout": order.fail_timeout,
            "slow_start": order.slow_start,
        },
        separators=(",", ":"),
    )


def update_text(update: Update) -> str:
    """The JSON of what changes."""
    return json.dumps(dict(update.items()), separators=(",", ":"))


def record_text(record: ServerRecord) -> str:
    """The JSON of a server with its state and times, as the scripts write it."""
    fields = json.loads(order_text(record.order))
    fields |= {
        "intent": record.intent.value,
        "expired": record.expired,
        "enabled": record.enabled,
    }
    more = {
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "last_heartbeat": record.last_heartbeat,
        "disabled_at": record.disabled_at,
        "disabled_reason": record.disabled_reason,
        "drain_deadline": record.drain_deadline,
        "drain_then": record.drain_then.value or None,
    }
    fields |= {name: value for name, value in more.items() if value is not None}
    return json.dumps(fields, separators=(",", ":"))


def server(address: str, reply: Sequence[bytes | None]) -> ServerRecord:
    """
    One server.

    @param reply: JSON text, heartbeat, count.
    @raise ValueError: saying why this is no server.
    """
    meta, beat, count = reply
    fields = _fields(meta or b"")
    intent, expired = _state(fields)
    return ServerRecord(
        order=_order(address, fields),
        intent=intent,
        expired=expired,
        connections=score(count or b"0"),
        created_at=seconds(fields.get("created_at")),
        updated_at=seconds(fields.get("updated_at")),
        disabled_at=seconds(fields.get("disabled_at")),
        disabled_reason=_optional_text(fields.get("disabled_reason")),
        last_heartbeat=seconds(beat),
        drain_deadline=seconds(fields.get("drain_deadline")),
        drain_then=_then(fields.get("drain_then")),
    )


def _fields(meta: bytes) -> dict[str, object]:
    try:
        fields = json.loads(text(meta))
    except RecursionError:
        raise ValueError("too many arrays or objects in each other") from None
    if isinstance(fields, dict):
        return fields
    raise ValueError(f"{type(fields).__name__} in place of a JSON object")


def _order(address: str, fields: Mapping[str, object]) -> ServerOrder:
    parsed = Address.parse(address)
    fail_timeout = seconds(fields.get("fail_timeout"))
    slow_start = seconds(fields.get("slow_start"))
    return ServerOrder(
        address=address,
        host=_optional_text(fields.get("host")) or parsed.host,
        port=_integer(fields, "port", parsed.port),
        # The first deployments stored any weight and used none: 0 served.
        weight=max(1, _integer(fields, "weight", _DEFAULTS.weight)),
        max_conns=_integer(fields, "max_conns", _DEFAULTS.max_conns),
        heartbeat=fields.get("heartbeat") is not False,
        backup=fields.get("backup") is True,
        max_fails=_integer(fields, "max_fails", _DEFAULTS.max_fails),
        fail_timeout=_DEFAULTS.fail_timeout if fail_timeout is None else fail_timeout,
        slow_start=max(0.0, slow_start or 0.0),
    )


def _state(fields: Mapping[str, object]) -> tuple[Intent, bool]:
    """As C{state_of} in C{meta.lua}, which says why."""
    serving = fields.get("enabled") is not False
    expired = fields.get("expired") is True
    if fields.get("intent") == "enable" and serving is not expired:
        return Intent.ENABLE, expired
    if fields.get("intent") == "disable" and not serving:
        return Intent.DISABLE, expired
    if fields.get("intent") == "drain" and not serving:
        return Intent.DRAIN, expired
    if serving:
        return Intent.ENABLE, False
    if fields.get("disabled_reason") == HEARTBEAT_TIMEOUT:
        return Intent.ENABLE, True
    return Intent.DISABLE, False


def _then(value: object) -> Then:
    return Then(value) if value in ("disable", "remove") else Then.STAY


def found_text(cause: str, node: str) -> str:
    """The JSON of what a health check found; empty for nothing."""
    return json.dumps({"cause": cause, "node": node}, separators=(",", ":")) if cause else ""


def cause_of(found: bytes) -> str:
    """What a health check found, as L{found_text} writes it."""
    try:
        cause = _fields(found).get("cause")
    except ValueError:
        cause = None
    # Whoever wrote it wants the server out, whatever the words.
    return cause if isinstance(cause, str) and cause else "unhealthy"


def score(raw: bytes) -> int:
    """A count as a sorted set has it: a double, and a person may have written any."""
    count = float(raw)
    return int(count) if math.isfinite(count) else 0


def _integer(fields: Mapping[str, object], name: str, default: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    # JSON has one kind of number, and shell scripts write digits in quotes.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if number.is_integer() and number >= 0:
            return int(number)
    raise ValueError(f"{name}: {value!r} is not a whole number")


def seconds(value: object) -> float | None:
    """A time; C{None} for what is none."""
    if isinstance(value, (int, float, bytes)) and not isinstance(value, bool):
        try:
            time = float(value)
        except (ValueError, OverflowError):
            return None
        return time if math.isfinite(time) else None
    return None


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
