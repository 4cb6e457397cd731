"""
How to get back to an earlier revision.

Pure: from the servers of now and the history's lines to the edits that undo
them.  What was observed (heartbeats, expiries, health checks, counts) is nothing
to go back to.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynbalance.store.changes import HEALTH_ACTIONS, Edit, Line
from dynbalance.store.contract import ENDLESS, Drain, Intent, ServerRecord


def reaches(lines: Iterable[Line], revision: int) -> bool:
    """
    Whether lines, the newest first, hold all that was changed after C{revision}.
    """
    oldest = None
    for oldest in lines:
        if oldest.revision <= revision:
            return True
        if is_blind(oldest):
            return False
    return oldest is not None and (oldest.revision, oldest.part) == (revision + 1, 1)


def is_blind(line: Line) -> bool:
    """
    Whether something was changed and nobody knows what: the store had lost its
    data, or somebody changed them by hand.
    """
    told = line.before is not None or line.after is not None
    return not told and line.action not in HEALTH_ACTIONS


def undo(now: Iterable[ServerRecord], lines: Iterable[Line], revision: int) -> tuple[Edit, ...]:
    """
    @param now: the servers there are.
    @param lines: which L{reaches} the revision.
    @return: in the order of the addresses; nothing where nothing is different.
    """
    then: dict[str, ServerRecord | None] = {}
    for line in lines:
        if line.revision <= revision:
            break
        if line.action not in HEALTH_ACTIONS:
            then[line.address] = line.before
    here = {record.order.address: record for record in now}
    return tuple(
        edit_to(address, then[address])
        for address in sorted(then)
        if differ(here.get(address), then[address])
    )


def edit_to(address: str, record: ServerRecord | None) -> Edit:
    """The edit after which a server is ordered as in C{record}."""
    if record is None:
        return Edit(address=address, order=None)
    return Edit(
        address=address, order=record.order, intent=record.intent, drain=drain_of(record)
    )


def differ(one: ServerRecord | None, other: ServerRecord | None) -> bool:
    """Whether two states of a server are ordered differently."""
    if one is None or other is None:
        return one is not other
    return (one.order, one.intent, one.drain_then) != (other.order, other.intent, other.drain_then)


def drain_of(record: ServerRecord) -> Drain:
    """It has again as many seconds as it was given."""
    if record.intent is not Intent.DRAIN:
        return ENDLESS
    seconds = 0.0
    if record.drain_deadline is not None and record.disabled_at is not None:
        seconds = max(0.0, record.drain_deadline - record.disabled_at)
    return Drain(seconds=seconds, then=record.drain_then)
