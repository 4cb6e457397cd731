"""
The very last resort, C{panic = "last_good"}: when no server is good, those
that were good last.

What takes all servers out within a minute is rather a fault of what watches
them (the agents' network, the checks) than of each of them.  So, while not one
server is good, full or not:

  - candidates are the servers that only a missing heartbeat or the health
    check keeps out;
  - never one that the file, an operator or real traffic took out: what
    requests have met counts for more than what a check has;
  - of them, those that were lost within L{TOGETHER} seconds of the one that
    was lost last: who was lost long before the others is really dead;
  - primaries before backups, never above C{max_conns}, never one that the
    request has tried;
  - of two drawn at random the one with fewer connections for its weight.

Knows that; refuses to know what happens when somebody is good again: then it
is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from dynbalance.balancer.server import Server

TOGETHER = 60.0
"""
Seconds within which losses may have one cause.  A shared fault is noticed as
late as C{heartbeat.ttl} and C{heartbeat.cleanup_interval} after it began.
"""


class LastGood:
    """The candidates of one upstream, found once for each change."""

    __slots__ = ("_candidates", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        """@param random: a number in [0, 1)."""
        self._random = random
        self._candidates: tuple[list[Server], list[Server]] | None = None

    def forget(self) -> None:
        """The state of some server has changed."""
        self._candidates = None

    def choose(self, servers: Iterable[Server], tried: Collection[Server]) -> Server | None:
        """
        A server to be used against all evidence, with a connection counted.

        @param servers: all of the upstream.
        """
        for tier in self.candidates(servers):
            drawn = [] if tried else [s for s in self._two(tier) if not _is_full(s)]
            if not drawn:
                drawn = self._two([s for s in tier if s not in tried and not _is_full(s)])
            if drawn:
                server = min(drawn, key=lambda server: server.load / server.weight)
                # It has no place with its policy that would have to change.
                server.picks += 1
                server.held += 1
                return server
        return None

    def count(self, servers: Iterable[Server]) -> int:
        """How many there are to choose from."""
        return sum(map(len, self.candidates(servers)))

    def candidates(self, servers: Iterable[Server]) -> tuple[list[Server], list[Server]]:
        """The primaries and the backups to choose from."""
        if self._candidates is None:
            self._candidates = _last_good(list(servers))
        return self._candidates

    def _two(self, servers: list[Server]) -> list[Server]:
        """Two of them, perhaps the same one twice; none if there is none."""
        return [servers[int(self._random() * len(servers))] for _ in range(2) if servers]


def _is_full(server: Server) -> bool:
    return server.load >= server.limit


def _last_good(servers: list[Server]) -> tuple[list[Server], list[Server]]:
    if any(server.ready for server in servers):
        return [], []
    lost = [(server.lost_at, server) for server in servers if _is_candidate(server)]
    last = max((moment for moment, _ in lost), default=0.0)
    chosen = [server for moment, server in lost if moment >= last - TOGETHER]
    return (
        [server for server in chosen if not server.backup],
        [server for server in chosen if server.backup],
    )


def _is_candidate(server: Server) -> bool:
    return server.ordered and not server.failed and (server.expired or server.checked_down)


def why_none(
    servers: Collection[Server], tried: Collection[Server], last_good: LastGood | None
) -> str:
    """Why none of these could be chosen, for the log."""
    if not servers:
        return "no live upstreams: there are no servers"
    reasons: dict[str, int] = {}
    for server in servers:
        reason = "tried" if server in tried else server.state.value
        reasons[reason] = reasons.get(reason, 0) + 1
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    why = f"no live upstreams: of {len(servers)} servers {counted}"
    if last_good is None:
        return why
    return f"{why}; panic: {last_good.count(servers)} were good last"
