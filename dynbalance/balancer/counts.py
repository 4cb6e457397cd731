"""
Connections counted over all nodes: what this node tells, what it hears.

Knows the two numbers of each server, its own and the others'; refuses to know
who may be chosen.  A count is never repaired by clamping: what is our own is
known, and what is the others' is the total less what the store had from us.
"""

from __future__ import annotations

from collections.abc import Mapping

from dynbalance.balancer.roll import Roll
from dynbalance.balancer.server import Server


class SharedCounts:
    """The exchange of one upstream's counts with the store."""

    __slots__ = ("_acknowledged", "_roll", "_totals")

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self._totals: dict[str, int] = {}
        self._acknowledged: list[Server] = []

    def total(self, key: str) -> int:
        """Connections of an address over all nodes, as last heard."""
        return self._totals.get(key, 0)

    def report(self, full: bool) -> Mapping[str, int]:
        # Compared here and not noted at each change: this is done a few times
        # a second, and counting many thousand times.
        if full:
            return {s.key: s.held - s.asked for s in self._roll.known() if s.held or s.reported}
        return {
            s.key: s.held - s.asked
            for s in self._roll.known()
            if s.held - s.asked != s.reported
        }

    def acknowledge(self, report: Mapping[str, int]) -> None:
        for key, held in report.items():
            server = self._roll.find(key)
            if server is not None:
                server.reported = held
                self._acknowledged.append(server)

    def lapsed(self) -> None:
        for server in self._roll.known():
            if server.reported:
                server.reported = 0
                self._acknowledged.append(server)

    def apply(self, totals: Mapping[str, int], complete: bool) -> None:
        touched = self._acknowledged
        self._acknowledged = []
        if complete:
            totals = dict.fromkeys(self._totals, 0) | dict(totals)
        for key, total in totals.items():
            # Kept for unknown addresses too: the store may know a server
            # sooner than this node has heard of it.
            if total:
                self._totals[key] = total
            else:
                self._totals.pop(key, None)
            server = self._roll.find(key)
            if server is not None:
                touched.append(server)
        for server in touched:
            # A total below our own share is older than our share, or of a
            # removed server; it tells nothing of other nodes.
            others = max(0, self._totals.get(server.key, 0) - server.reported)
            if others != server.others:
                server.others = others
                server.settle()
