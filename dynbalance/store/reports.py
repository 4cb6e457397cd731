"""
What a node and the store tell each other about connections: reports of what it
holds, and wishes where C{max_conns} is strict.

Knows the values; refuses to know who asks and how it is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen


class Mended(Enum):
    """What an exchange made of a server that somebody changed by hand."""

    REMOVED = "removed"
    COMPLETED = "completed"
    CHANGED = "changed"


@frozen(slots=True, kw_only=True)
class Report:
    """
    What a node tells of one upstream in a sync.

    @ivar held: address -> connections that this node holds, absolute.  In a
        C{full} report every address with a count; otherwise only those that
        changed since the last answer.
    @ivar full: the store forgets what the node said before.
    @ivar seen: the L{SyncAnswer.seq} of the last answer; 0 to hear all.
    @ivar number: of this call among the node's calls, syncs and grants, which
        it counts up; 0 for a call that is never taken for a late one.
    @ivar settled: all grants up to this number are in C{held} as far as they
        are used, or were given up.
    @ivar hungry: the node had no server for somebody since its last report,
        and holds less than its part of all connections that there may be.
    """

    held: Mapping[str, int]
    full: bool = False
    seen: int = 0
    number: int = 0
    settled: int = 0
    hungry: bool = False


@frozen(slots=True, kw_only=True)
class SyncAnswer:
    """
    What the store answers of one upstream.

    @ivar revision: of the membership now.
    @ivar seq: to be sent as L{Report.seen} next time.
    @ivar totals: address -> connections over all nodes, for each address
        whose total changed since C{seen}; an address whose total fell to 0
        is there with 0.
    @ivar complete: C{totals} holds every address that has a count: what is
        not in it is 0.  So it is after C{seen=0}, and when C{seen} is
        too old or newer than the store remembers (it was emptied).
    @ivar lapsed: the node's lease had ended and its numbers were given back
        (or it is new), and this report was not full: nothing of it was
        applied, the node is not counted as live, and its next report must be
        full.
    @ivar late: the store has heard a later call of the node than this one, so
        nothing of it was applied.
    @ivar last: the number of the last call that it has heard; the next one's
        must be larger.
    @ivar era: changes when the store was emptied, and when it was given back
        what it had lost.
    @ivar hungry: how often any node has said that it is hungry.
    @ivar nodes: that are live.
    @ivar mended: address -> what became of it after it was changed by hand;
        an empty address for whole servers that came or went.
    """

    revision: int
    seq: int
    totals: Mapping[str, int] = field(factory=dict)
    complete: bool = False
    lapsed: bool = False
    late: bool = False
    last: int = 0
    era: str = ""
    mended: Mapping[str, Mended] = field(factory=dict)
    hungry: int = 0
    nodes: int = 1


@frozen(slots=True, kw_only=True)
class Wish:
    """
    Connections that a node wants to make to one server.

    @ivar count: how many, at least 1.
    @ivar limit: connections over all nodes at most, 0 for no limit, as a
        configuration file has it; C{None} for what the store has of a server.
    @ivar anyhow: whatever the server's state; else only if it is enabled.
    """

    address: str
    count: int = 1
    limit: int | None = None
    anyhow: bool = False


@frozen(slots=True, kw_only=True)
class Granted:
    """
    What a node may have of what it wished for.

    @ivar counts: connections that are granted, and counted as the node's from
        now on, in the order of the wishes; at most what was wished for.
    @ivar totals: address -> connections over all nodes: of the addresses that
        were wished for; and if anything was refused, of each address whose
        total changed since C{seen}.
    @ivar seq: to be sent as C{seen} next time; 0 if only the wishes' totals
        were told.
    @ivar complete: see L{SyncAnswer}.
    @ivar lapsed: likewise.  As with C{late}, nothing was granted.
    @ivar late: likewise.
    @ivar last: likewise.
    """

    counts: tuple[int, ...] = ()
    totals: Mapping[str, int] = field(factory=dict)
    seq: int = 0
    complete: bool = False
    lapsed: bool = False
    late: bool = False
    last: int = 0
