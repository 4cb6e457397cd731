"""
How one server is chosen among the usable ones.

A policy serves one tier of one upstream: its primaries or its backups.  It is
told which servers are usable, and it counts the connection on the server that
it chose, because choosing and counting in one step is what the way of a
request can afford.  It refuses to know why a server is usable; being full is
the one reason that it applies itself, since its own counting causes it.

L{LeastConn} is ordered by load and never looks through the servers:

  - Servers of similar weight share a L{Lane}.  In a lane, the servers with the
    same load, connections / weight, share a group, which is a plain list.
    Equal fractions give equal floats, so the load itself is the group's name.
  - A heap of the lane's loads has the smallest on top.  Groups that ran empty
    stay in the heap until they come to the top, or until there are many.
  - Of several servers with the smallest load one is drawn in proportion to the
    weights: a draw that takes each server as if it had the lane's largest
    weight, and is repeated when a second draw says that it has not.  Weights
    within a lane differ less than four-fold, so few draws are repeated.

The work for one choice thus grows with the number of lanes, which is the
logarithm of the largest weight, and not with the number of servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from dynbalance.balancer.server import Server

_DRAWS = 64
"""
Draws at most for one choice.  Each succeeds with a chance of more than 1/4, so
that the last is reached once in 10**8 choices, and then it is taken as it is.
"""

_SPARE_GROUPS = 64
"""Empty groups that a lane keeps in any case."""


class Policy(Protocol):
    """What the upstream asks of a policy."""

    def arrange(self, servers: Sequence[Server]) -> None:
        """
        Hear which servers the tier has now, in their order.  Those that were
        dropped or got another weight have left before.
        """

    def enter(self, server: Server) -> None:
        """A server of the tier became usable; sets C{usable}."""

    def leave(self, server: Server) -> None:
        """A usable server is no longer so; clears C{usable}."""

    def take(self) -> Server | None:
        """Choose a usable server and count a connection on it."""

    def give(self, server: Server) -> None:
        """Count a connection less on a server, usable or not."""


class Lane:
    """
    The usable servers of similar weight, by load.

    @ivar cap: the largest weight of the lane's servers.
    @ivar size: the number of the lane's servers, usable or not.
    @ivar groups: load -> servers with that load.
    @ivar loads: a heap of the keys of C{groups}.
    """

    __slots__ = ("cap", "groups", "loads", "size")

    def __init__(self) -> None:
        self.cap = 0
        self.size = 0
        self.groups: dict[float, list[Server]] = {}
        self.loads: list[float] = []

    def place(self, server: Server, load: float) -> None:
        """Put a server that is in no group into that of a load."""
        group = self.groups.get(load)
        if group is None:
            group = self._open(load)
        server.group = group
        server.slot = len(group)
        group.append(server)

    def move(self, server: Server, load: float) -> None:
        """Put a server from its group into that of a load."""
        # take_out and place in one: this is done twice for each request.
        group = server.group
        last = group.pop()
        if last is not server:
            slot = server.slot
            group[slot] = last
            last.slot = slot
        target = self.groups.get(load)
        if target is None:
            target = self._open(load)
        server.group = target
        server.slot = len(target)
        target.append(server)

    @staticmethod
    def take_out(server: Server) -> None:
        """Take a server from its group: the group's last one gets its slot."""
        group = server.group
        last = group.pop()
        if last is not server:
            slot = server.slot
            group[slot] = last
            last.slot = slot

    def _open(self, load: float) -> list[Server]:
        if len(self.loads) > 2 * self.size + _SPARE_GROUPS:
            self.groups = {load: group for load, group in self.groups.items() if group}
            self.loads = list(self.groups)
            heapify(self.loads)
        group: list[Server] = []
        self.groups[load] = group
        heappush(self.loads, load)
        return group

    def least(self) -> list[Server] | None:
        """The group with the smallest load; C{None} when no server is here."""
        loads = self.loads
        groups = self.groups
        while loads:
            group = groups[loads[0]]
            if group:
                return group
            del groups[heappop(loads)]
        return None


class LeastConn:
    """
    The server with the fewest connections for its weight; of several, one at
    random, in proportion to the weights.
    """

    __slots__ = ("_lanes", "_only", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        """@param random: a number in [0, 1)."""
        self._random = random
        self._lanes: dict[int, Lane] = {}
        self._only: Lane | None = None

    def arrange(self, servers: Sequence[Server]) -> None:
        for lane in self._lanes.values():
            lane.cap = lane.size = 0
        for server in servers:
            # 1-3, 4-15, 16-63, ...
            rank = (server.weight.bit_length() - 1) // 2
            lane = self._lanes.setdefault(rank, Lane())
            lane.cap = max(lane.cap, server.weight)
            lane.size += 1
            server.lane = lane
        self._lanes = {rank: lane for rank, lane in self._lanes.items() if lane.size}
        self._only = next(iter(self._lanes.values())) if len(self._lanes) == 1 else None

    def enter(self, server: Server) -> None:
        server.usable = True
        server.lane.place(server, (server.held + server.others) / server.weight)

    def leave(self, server: Server) -> None:
        server.usable = False
        server.lane.take_out(server)

    def take(self) -> Server | None:
        lane = self._only
        if lane is not None:
            group = lane.least()
            if group is None:
                return None
            server = group[int(self._random() * len(group))]
            if server.weight != lane.cap:
                server = self._confirm(server, lane.cap, group)
        else:
            drawn = self._draw_from_lanes()
            if drawn is None:
                return None
            server = drawn
            lane = server.lane
        server.picks += 1
        held = server.held = server.held + 1
        count = held + server.others
        if count < server.limit:
            lane.move(server, count / server.weight)
        else:
            server.usable = False
            lane.take_out(server)
        return server

    def give(self, server: Server) -> None:
        held = server.held = server.held - 1
        count = held + server.others
        if server.usable:
            server.lane.move(server, count / server.weight)
        elif server.ready and count < server.limit:
            server.usable = True
            server.lane.place(server, count / server.weight)

    def _confirm(self, server: Server, cap: int, group: list[Server]) -> Server:
        """The server that was drawn, or after a second thought another one."""
        random = self._random
        for _ in range(_DRAWS):
            weight = server.weight
            if weight == cap or random() * cap < weight:
                break
            server = group[int(random() * len(group))]
        return server

    def _draw_from_lanes(self) -> Server | None:
        least = None
        tied: list[tuple[int, list[Server]]] = []
        share = 0
        for lane in self._lanes.values():
            group = lane.least()
            if group is None:
                continue
            load = lane.loads[0]
            if least is None or load < least:
                least = load
                tied = [(lane.cap, group)]
                share = lane.cap * len(group)
            elif load == least:
                tied.append((lane.cap, group))
                share += lane.cap * len(group)
        if least is None:
            return None
        random = self._random
        for _ in range(_DRAWS):
            point = int(random() * share)
            for cap, members in tied:
                if point < cap * len(members):
                    break
                point -= cap * len(members)
            # Which server, and which of the places that its weight may fill.
            server = members[point // cap]
            if point % cap < server.weight:
                break
        return server


class RoundRobin:
    """
    Smooth weighted round robin, in nginx's sequences.  Looks at each server
    for each choice.

    A server's C{effective} weight falls with its failures and comes back by
    one with each choice, whether or not the server is the one chosen.
    """

    __slots__ = ("_servers",)

    def __init__(self) -> None:
        self._servers: tuple[Server, ...] = ()

    def arrange(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    def enter(self, server: Server) -> None:
        server.usable = True

    def leave(self, server: Server) -> None:
        server.usable = False

    def take(self) -> Server | None:
        best = None
        highest = total = 0
        for server in self._servers:
            if not server.usable:
                continue
            effective = server.effective
            total += effective
            current = server.current = server.current + effective
            if effective < server.weight:
                server.effective = effective + 1
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

    def give(self, server: Server) -> None:
        server.held -= 1
        if server.ready and server.held + server.others < server.limit:
            server.usable = True


POLICIES: Mapping[str, Callable[[Callable[[], float]], Policy]] = {
    "least_conn": LeastConn,
    "round_robin": lambda random: RoundRobin(),
}
"""The policies by their names in the configuration, made from a random source."""
