"""
Between the store's values and the scripts.

Knows the shape of the scripts' arguments and answers; refuses to know how they
are run, and what the JSON of a server says, which is
L{dynbalance.store.serverjson}'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynbalance.store.changes import HEALTH_ACTIONS, Edit, History, Line
from dynbalance.store.contract import Drained, Expiry, ServerRecord, Snapshot, Then
from dynbalance.store.keys import member, node_keys, upstream_keys
from dynbalance.store.reports import Granted, Mended, Report, SyncAnswer, Wish
from dynbalance.store.serverjson import (
    cause_of,
    found_text,
    order_text,
    record_text,
    score,
    seconds,
    server,
    text,
)

Reply = Any
"""What a script answers: bytes, integers, C{None} and lists of these."""

Call = tuple[list[str], list[str]]
"""A script's KEYS and ARGV."""


def edit_words(edit: Edit) -> tuple[str, ...]:
    """What C{amend.lua} takes of one server."""
    return (
        edit.address,
        "" if edit.order is None else order_text(edit.order),
        edit.intent.value,
        repr(edit.drain.seconds),
        edit.drain.then.value,
    )


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
    return {text(address): score(total) for address, total in _pairs(flat)}


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
        at=seconds(fields.get("at", "").encode()) or 0.0,
        revision=int(fields.get("revision", "0")),
        part=int(fields.get("part", "1")),
        by=fields.get("by", ""),
        action=action,
        address=address,
        before=None if told else _former(address, before),
        after=None if told else _former(address, after),
        cause=cause_of((after or before).encode()) if told else "",
    )


def _former(address: str, meta: str) -> ServerRecord | None:
    """A server of the past; C{None} where there was none."""
    try:
        return server(address, (meta.encode("utf-8", "surrogateescape"), None, None))
    except ValueError:
        return None


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
