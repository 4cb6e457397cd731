"""
Smooth weighted round robin, in nginx's sequences; and, as the base of most
other policies, what they do when they cannot decide.

Knows weights and usability; refuses to know loads, times and keys.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from dynbalance.balancer.foresight import Foresight, highest_current
from dynbalance.balancer.means import Means
from dynbalance.balancer.server import Server


class RoundRobin:
    """
    Smooth weighted round robin.  Looks at each server for each choice.

    A server's C{effective} weight falls with its failures and comes back by
    one with each choice, whether or not the server is the one chosen.
    """

    __slots__ = ("_freed", "_servers")

    wants_key: ClassVar[bool] = False
    wants_times: ClassVar[bool] = False
    gradual: ClassVar[bool] = True

    def __init__(self, means: Means) -> None:
        self._freed = means.freed
        self._servers: tuple[Server, ...] = ()

    def arrange(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    @property
    def members(self) -> tuple[Server, ...]:
        """The servers, usable or not."""
        return self._servers

    def reweigh(self, server: Server) -> None:
        """Nothing: the pull is read at each choice."""

    def enter(self, server: Server) -> None:
        server.usable = True

    def leave(self, server: Server) -> None:
        server.usable = False

    def take(self) -> Server | None:
        best = None
        highest: float = 0
        total: float = 0
        for server in self._servers:
            if not server.usable:
                continue
            effective = server.effective
            total += effective
            current = server.current = server.current + effective
            if effective < server.pull:
                server.effective = min(server.pull, effective + 1)
            if best is None or current > highest:
                best = server
                highest = current
        if best is None:
            return None
        best.current -= total
        best.picks += 1
        best.held += 1
        best.usable = best.held + best.others < best.limit
        return best

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        return self.take()

    def claim(self, server: Server) -> None:
        server.picks += 1
        server.held += 1
        server.usable = server.held + server.others < server.limit

    def give(self, server: Server) -> None:
        server.held -= 1
        if not server.usable and server.ready and server.held + server.others < server.limit:
            server.usable = True
            self._freed()

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        return highest_current(usable)

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        """Nothing: times do not matter."""
