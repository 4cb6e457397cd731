"""
The connection counts of one upstream: who holds what, and what is published.

Knows nodes, leases and absolute numbers; refuses to know servers' states,
clocks and Deferreds.  This is the plain-Python twin of C{counts.lua}: the same
rules on dictionaries.

The one invariant: the total of an address is the sum of what the live nodes
hold of it.  Nothing is ever clamped or guessed; a number changes only because a
node said a new one, left, or died.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dynbalance.store.reports import Report

REMEMBERED = 1000
"""Changes kept for addresses beyond those that are servers or have a count."""


class Ledger:
    """
    What the nodes hold of one upstream's addresses.

    @ivar totals: address -> connections over all live nodes; never 0.
    @ivar hungry: how often a node has said that it is.
    @ivar seq: grows with every change of a total.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.seq = 0
        self.hungry = 0
        self._leases: dict[str, float] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._last: dict[str, int] = {}
        # Node -> number and address of a grant -> what was granted.
        self._grants: dict[str, dict[tuple[int, str], int]] = {}
        self._changed: dict[str, int] = {}
        self._floor = 0

    def __repr__(self) -> str:
        return f"<Ledger seq={self.seq} nodes={sorted(self._leases)} totals={self.totals}>"

    def live(self, node: str, now: float = 0.0) -> bool:
        """Whether the node has a lease that was not found to be over, and is not by now."""
        return node in self._leases and self._leases[node] >= now

    def reap(self, now: float) -> None:
        """Take out the counts of the nodes whose lease is over."""
        for node in [node for node, end in self._leases.items() if end < now]:
            self.drop(node)

    def follow_clock(self, step: float) -> None:
        """Leases go with a clock that was set."""
        for node in self._leases:
            self._leases[node] += step

    def drop(self, node: str) -> None:
        """Give back all that a node holds and end its lease."""
        self._grants.pop(node, None)
        self._apply(node, {}, full=True)
        self._leases.pop(node, None)
        self._held.pop(node, None)
        self._last.pop(node, None)

    @property
    def nodes(self) -> int:
        """How many have a lease."""
        return len(self._leases)

    def last(self, node: str) -> int:
        """The number of the last call of a node that was heard; 0 for none."""
        return self._last.get(node, 0)

    def apply(self, node: str, report: Report, lease_end: float) -> None:
        """Renew a node's lease and take over what it reports."""
        self._leases[node] = lease_end
        self.hungry += report.hungry
        if report.number:
            self._last[node] = report.number
        kept = self._grants.get(node, {})
        for number, address in [key for key in kept if key[0] <= report.settled]:
            del kept[number, address]
        self._apply(node, report.held, report.full)

    def grant(self, node: str, number: int, wanted: Mapping[str, int]) -> None:
        """
        Count connections for a live node before it reports them.

        @param wanted: address -> how many; there is room for them.
        """
        self._last[node] = number
        held = self._held.setdefault(node, {})
        kept = self._grants.setdefault(node, {})
        news = {}
        for address, count in wanted.items():
            kept[number, address] = count
            news[address] = held.get(address, 0) + count
        self._change(held, news)

    def _apply(self, node: str, held: Mapping[str, int], full: bool) -> None:
        before = self._held.setdefault(node, {})
        news = {**dict.fromkeys(before, 0), **held} if full else dict(held)
        for (_, address), count in self._grants.get(node, {}).items():
            if address in news:
                news[address] += count
        self._change(before, news)

    def _change(self, before: dict[str, int], news: Mapping[str, int]) -> None:
        changes = {
            address: count - before.get(address, 0)
            for address, count in news.items()
            if count != before.get(address, 0)
        }
        if not changes:
            return
        self.seq += 1
        for address, change in changes.items():
            _store(before, address, news[address])
            _store(self.totals, address, self.totals.get(address, 0) + change)
            # Removed first so that the dict stays ordered by sequence number.
            self._changed.pop(address, None)
            self._changed[address] = self.seq

    def changes(self, seen: int, servers: Collection[str]) -> tuple[bool, dict[str, int]]:
        """
        The totals that changed after C{seen}.

        @return: whether these are all totals that are not 0, and the totals.
        """
        self._forget(len(servers))
        complete = not self._floor <= seen <= self.seq or seen == 0
        if complete:
            return True, {**dict.fromkeys((*servers, *self._changed), 0), **self.totals}
        news: dict[str, int] = {}
        for address, seq in reversed(self._changed.items()):
            if seq <= seen:
                break
            news[address] = self.totals.get(address, 0)
        return False, news

    def _forget(self, servers: int) -> None:
        # Addresses come and go; what was said of the departed must not pile up.
        excess = len(self._changed) - servers - len(self.totals) - REMEMBERED
        for address in list(self._changed)[: max(excess, 0)]:
            self._floor = self._changed.pop(address)


def _store(counts: dict[str, int], address: str, count: int) -> None:
    if count:
        counts[address] = count
    else:
        counts.pop(address, None)
