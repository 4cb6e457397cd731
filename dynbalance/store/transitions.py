"""
What a change makes of a server.

Pure: a record in, a record out.  The plain-Python twin of what the scripts do
to a server's JSON with C{meta.lua}.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from dynbalance.store.changes import Edit, Update
from dynbalance.store.contract import (
    DRAINING,
    HEARTBEAT_TIMEOUT,
    MANUAL,
    SELF_DRAINING,
    Drain,
    Intent,
    ServerOrder,
    ServerRecord,
    Then,
)


def added(order: ServerOrder, now: float) -> ServerRecord:
    """A new server, with a first heartbeat."""
    return ServerRecord(order=order, created_at=now, last_heartbeat=now)


def ordered(record: ServerRecord, intent: Intent, drain: Drain, now: float) -> ServerRecord:
    """
    Enabled, disabled or draining.  Enabling forgives missing heartbeats.
    """
    record = evolve(_intended(record, intent, drain, now), updated_at=now)
    if intent is not Intent.ENABLE:
        return record
    return evolve(
        record, expired=False, disabled_at=None, disabled_reason=None, last_heartbeat=now
    )


def updated(record: ServerRecord, update: Update, now: float) -> ServerRecord:
    """With another order; the same record if that is no other."""
    changes: dict[str, Any] = dict(update.items())
    order = evolve(record.order, **changes)
    if order == record.order:
        return record
    return evolve(_reordered(record, order, now), updated_at=now)


def edited(record: ServerRecord | None, edit: Edit, now: float) -> ServerRecord | None:
    """As the edit says.  What was observed of the server stays."""
    if edit.order is None:
        return None
    if record is None:
        return _intended(added(edit.order, now), edit.intent, edit.drain, now)
    record = _reordered(record, edit.order, now)
    if record.intent is not edit.intent or edit.intent is Intent.DRAIN:
        record = _intended(record, edit.intent, edit.drain, now)
    return evolve(record, updated_at=now)


def beaten(record: ServerRecord, reenable: bool, now: float) -> ServerRecord:
    """After a heartbeat."""
    record = evolve(record, last_heartbeat=now)
    return _returned(record) if record.expired and reenable else record


def overdue(record: ServerRecord, now: float) -> ServerRecord:
    """Taken out by missing heartbeats."""
    return evolve(record, expired=True, disabled_at=now, disabled_reason=HEARTBEAT_TIMEOUT)


def shifted(record: ServerRecord, step: float) -> ServerRecord:
    """After the clock was set: what a drain waits for goes with it."""
    if record.intent is not Intent.DRAIN:
        return record
    since, deadline = record.disabled_at, record.drain_deadline
    return evolve(
        record,
        disabled_at=None if since is None else since + step,
        drain_deadline=None if deadline is None else deadline + step,
    )


def _intended(record: ServerRecord, intent: Intent, drain: Drain, now: float) -> ServerRecord:
    """What an operator orders, beside what was observed."""
    reason = MANUAL
    if intent is Intent.DRAIN:
        reason = SELF_DRAINING if drain.own else DRAINING
    if intent is Intent.ENABLE:
        reason = HEARTBEAT_TIMEOUT if record.expired else ""
    ends = intent is Intent.DRAIN and drain.seconds
    return evolve(
        record,
        intent=intent,
        drain_deadline=now + drain.seconds if ends else None,
        drain_then=drain.then if intent is Intent.DRAIN else Then.STAY,
        disabled_at=now if reason else None,
        disabled_reason=reason or None,
    )


def _reordered(record: ServerRecord, order: ServerOrder, now: float) -> ServerRecord:
    """A server that needs heartbeats from now on has time to send one."""
    if order.heartbeat is not record.order.heartbeat:
        if order.heartbeat:
            record = evolve(record, last_heartbeat=now)
        elif record.expired:
            record = _returned(record)
    return evolve(record, order=order)


def _returned(record: ServerRecord) -> ServerRecord:
    record = evolve(record, expired=False)
    if record.intent is Intent.ENABLE:
        record = evolve(record, disabled_at=None, disabled_reason=None)
    return record
