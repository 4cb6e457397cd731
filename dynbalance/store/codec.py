"""
Between the store's values and what Redis keeps.

Knows the JSON of a server and the shape of the scripts' arguments and answers;
refuses to know connections.  What another program or a person wrote is read as
well as it can be; one field that makes no sense never hides the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynbalance.balancer.address import Address
from dynbalance.store.changes import HEALTH_ACTIONS, Edit, History, Line, Update
from dynbalance.store.contract import (
    HEARTBEAT_TIMEOUT,
    Drained,
    Expiry,
    Intent,
    ServerOrder,
    ServerRecord,
    Snapshot,
    Then,
)
from dynbalance.store.keys import member, node_keys, upstream_keys
from dynbalance.store.reports import Granted, Mended, Report, SyncAnswer, Wish

Reply = Any
"""What a script answers: bytes, integers, C{None} and lists of these."""

Call = tuple[list[str], list[str]]
"""A script's KEYS and ARGV."""

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


def edit_words(edit: Edit) -> tuple[str, ...]:
    """What C{amend.lua} takes of one server."""
    return (
        edit.address,
        "" if edit.order is None else order_text(edit.order),
        edit.intent.value,
        repr(edit.drain.seconds),
        edit.drain.then.value,
    )


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


def restore_args(snapshot: Snapshot, by: str) -> list[str]:
    """What C{restore.lua} takes."""
    args = [member(by), snapshot.era, str(snapshot.revision)]
    for record in snapshot.servers:
        address = record.order.address
        found = found_text(snapshot.unhealthy.get(address, ""), by)
        args += [address, record_text(record), found]
    return args


def sync_call(prefix: str, node: str, lease: float, reports: Mapping[str, Report]) -> Call:
    """
    What C{sync.lua} takes.

    @raise ValueError: a node holds less than nothing, which no sum may contain.
    """
    args = [member(node), repr(lease)]
    for report in reports.values():
        args += ["1" if report.full else "0", str(report.seen)]
        args += [str(report.number), str(report.settled), "1" if report.hungry else "0"]
        args.append(str(len(report.held)))
        for address, count in report.held.items():
            if count < 0:
                raise ValueError(f"{node} holds {count} connections to {address}")
            args += [address, str(count)]
    return _node_keys(prefix, node, reports), args


def leave_call(prefix: str, node: str, upstreams: Iterable[str]) -> Call:
    """What C{leave.lua} takes."""
    return _node_keys(prefix, node, upstreams), [member(node)]


def _node_keys(prefix: str, node: str, upstreams: Iterable[str]) -> list[str]:
    keys: list[str] = []
    for upstream in upstreams:
        keys += [*upstream_keys(prefix, upstream), *node_keys(prefix, upstream, node)]
    return keys


def grant_call(
    prefix: str, upstream: str, node: str, number: int, seen: int, wishes: Iterable[Wish]
) -> Call:
    """What C{grant.lua} takes."""
    args = [member(node), str(number), str(seen)]
    for wish in wishes:
        limit = "" if wish.limit is None else str(wish.limit)
        args += [wish.address, str(wish.count), limit, "1" if wish.anyhow else "0"]
    return _node_keys(prefix, node, (upstream,)), args


def granted(reply: Reply) -> Granted:
    """What C{grant.lua} says."""
    last, lapsed, late, counts, seq, complete, totals = reply
    return Granted(
        counts=tuple(counts),
        totals=_totals(totals),
        seq=seq,
        complete=bool(complete),
        lapsed=bool(lapsed),
        late=bool(late),
        last=int(last),
    )


def sync_answers(upstreams: Iterable[str], reply: Reply) -> dict[str, SyncAnswer]:
    """What C{sync.lua} says of each upstream, in the order in which they were told."""
    return {
        upstream: _sync_answer(said) for upstream, said in zip(upstreams, reply, strict=True)
    }


def _sync_answer(said: Reply) -> SyncAnswer:
    revision, seq, complete, lapsed, late, last, totals, era, mended, hungry, nodes = said
    return SyncAnswer(
        revision=int(revision),
        seq=seq,
        complete=bool(complete),
        lapsed=bool(lapsed),
        late=bool(late),
        last=int(last),
        totals=_totals(totals),
        era=text(era),
        mended={text(address): Mended(text(what)) for address, what in _pairs(mended)},
        hungry=hungry,
        nodes=nodes,
    )


def _totals(flat: Sequence[bytes]) -> dict[str, int]:
    return {text(address): _count(total) for address, total in _pairs(flat)}


def expiry(reply: Reply) -> Expiry:
    """What C{expire.lua} says."""
    count, disabled = reply
    return Expiry(expired_count=count, disabled=tuple(text(address) for address in disabled))


def drained(reply: Reply) -> tuple[Drained, ...]:
    """What C{drained.lua} says."""
    return tuple(
        Drained(address=text(address), then=Then(text(what)), left=left)
        for address, what, left in reply
    )


def snapshot(reply: Reply) -> tuple[Snapshot, dict[str, str]]:
    """
    What C{snapshot.lua} says.

    @return: what can be read, and address -> why not for what cannot.
    """
    revision, now, metas, beats, counts, unhealthy, era = reply
    beat_of = dict(_pairs(beats))
    count_of = dict(_pairs(counts))
    servers = []
    broken = {}
    for raw, meta in _pairs(metas):
        address = text(raw)
        try:
            servers.append(server(address, (meta, beat_of.get(raw), count_of.get(raw))))
        except ValueError as error:
            broken[address] = str(error)
    servers.sort(key=lambda record: record.order.address)
    return (
        Snapshot(
            revision=int(revision),
            now=float(now),
            servers=tuple(servers),
            unhealthy={text(address): _cause(found) for address, found in _pairs(unhealthy)},
            era=text(era),
        ),
        broken,
    )


def history(reply: Reply) -> History:
    """What C{history.lua} says."""
    oldest, lines = reply
    return History(lines=tuple(_line(*line) for line in lines), oldest=text(oldest))


def _line(id: bytes, flat: Sequence[bytes]) -> Line:
    fields = {text(name): text(value) for name, value in _pairs(flat)}
    action, address = fields.get("action", ""), fields.get("address", "")
    before, after = fields.get("before", ""), fields.get("after", "")
    told = action in HEALTH_ACTIONS
    return Line(
        id=text(id),
        at=_time(fields.get("at", "").encode()) or 0.0,
        revision=int(fields.get("revision", "0")),
        part=int(fields.get("part", "1")),
        by=fields.get("by", ""),
        action=action,
        address=address,
        before=None if told else _former(address, before),
        after=None if told else _former(address, after),
        cause=_cause((after or before).encode()) if told else "",
    )


def _former(address: str, meta: str) -> ServerRecord | None:
    """A server of the past; C{None} where there was none."""
    try:
        return server(address, (meta.encode("utf-8", "surrogateescape"), None, None))
    except ValueError:
        return None


def found_text(cause: str, node: str) -> str:
    """The JSON of what a health check found; empty for nothing."""
    return json.dumps({"cause": cause, "node": node}, separators=(",", ":")) if cause else ""


def _cause(found: bytes) -> str:
    try:
        cause = _fields(found).get("cause")
    except ValueError:
        cause = None
    # Whoever wrote it wants the server out, whatever the words.
    return cause if isinstance(cause, str) and cause else "unhealthy"


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
        connections=_count(count or b"0"),
        created_at=_time(fields.get("created_at")),
        updated_at=_time(fields.get("updated_at")),
        disabled_at=_time(fields.get("disabled_at")),
        disabled_reason=_optional_text(fields.get("disabled_reason")),
        last_heartbeat=_time(beat),
        drain_deadline=_time(fields.get("drain_deadline")),
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
    fail_timeout = _time(fields.get("fail_timeout"))
    slow_start = _time(fields.get("slow_start"))
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


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _count(raw: bytes) -> int:
    # A score is a double, and a person may have written any.
    score = float(raw)
    return int(score) if math.isfinite(score) else 0


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


def _time(value: object) -> float | None:
    if isinstance(value, (int, float, bytes)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            return None
        return seconds if math.isfinite(seconds) else None
    return None


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
