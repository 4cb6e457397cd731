"""
Least connections, ordered by load: never looks through the servers.

  - Servers of similar pull share a L{Lane}.  In a lane, the servers with the
    same load, connections / pull, share a group, which is a plain list.
    Equal fractions give equal floats, so the load itself is the group's name.
  - A heap of the lane's loads has the smallest on top.  Groups that ran empty
    stay in the heap until they come to the top, or until there are many.
  - Of several servers with the smallest load one is drawn in proportion to the
    pulls: a draw that takes each server as if it had the lane's largest pull,
    and is repeated when a second draw says that it has not.  Pulls within a
    lane differ less than four-fold, so few draws are repeated.

The work for one choice thus grows with the number of lanes, which is the
logarithm of the largest weight, and not with the number of servers.

Knows loads and pulls; refuses to know why a server is usable, and who asks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from typing import ClassVar

from dynbalance.balancer.foresight import Foresight, least_load
from dynbalance.balancer.means import Means
from dynbalance.balancer.server import Server

_DRAWS = 64
"""
Draws at most for one choice.  Each succeeds with a chance of more than 1/4, so
that the last is reached once in 10**8 choices, and then it is taken as it is.
"""

_SPARE_GROUPS = 64
"""Empty groups that a lane keeps in any case."""


class Lane:
    """
    The usable servers of similar pull, by load.

    @ivar rank: which lane it is.
    @ivar cap: the largest C{Server.steps} of the lane's servers; or a little
        more than that, while they change.
    @ivar size: the number of the lane's servers, usable or not.
    @ivar groups: load -> servers with that load.
    @ivar loads: a heap of the keys of C{groups}.
    """

    __slots__ = ("cap", "groups", "loads", "rank", "size")

    def __init__(self, rank: int) -> None:
        self.rank = rank
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

    __slots__ = ("_freed", "_lanes", "_only", "_random")

    wants_key: ClassVar[bool] = False
    wants_times: ClassVar[bool] = False
    gradual: ClassVar[bool] = True

    def __init__(self, means: Means) -> None:
        self._random = means.random
        self._freed = means.freed
        self._lanes: dict[int, Lane] = {}
        self._only: Lane | None = None

    def arrange(self, servers: Sequence[Server]) -> None:
        for lane in self._lanes.values():
            lane.cap = lane.size = 0
        for server in servers:
            self._join(server)
        self._lanes = {rank: lane for rank, lane in self._lanes.items() if lane.size}
        self._note_only()

    def reweigh(self, server: Server) -> None:
        lane = server.lane
        lane.size -= 1
        self._join(server)
        if not lane.size:
            del self._lanes[lane.rank]
        self._note_only()

    def _join(self, server: Server) -> None:
        # 1-3, 4-15, 16-63, ...; those below 1 are there while they start slowly.
        rank = (server.steps.bit_length() - 1) // 2
        lane = self._lanes.get(rank)
        if lane is None:
            lane = self._lanes[rank] = Lane(rank)
        lane.cap = max(lane.cap, server.steps)
        lane.size += 1
        server.lane = lane

    def _note_only(self) -> None:
        self._only = next(iter(self._lanes.values())) if len(self._lanes) == 1 else None

    def enter(self, server: Server) -> None:
        server.usable = True
        server.lane.place(server, (server.held + server.others) / server.pull)

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
            if server.steps != lane.cap:
                server = self._confirm(server, lane.cap, group)
        else:
            drawn = self._draw_from_lanes()
            if drawn is None:
                return None
            server = drawn
            lane = server.lane
        # As in claim, without a call: this is the way of each request.
        server.picks += 1
        held = server.held = server.held + 1
        count = held + server.others
        if count < server.limit:
            lane.move(server, count / server.pull)
        else:
            server.usable = False
            lane.take_out(server)
        return server

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        return self.take()

    def claim(self, server: Server) -> None:
        server.picks += 1
        server.held += 1
        if server.held + server.others < server.limit:
            server.lane.move(server, (server.held + server.others) / server.pull)
        else:
            self.leave(server)

    def give(self, server: Server) -> None:
        held = server.held = server.held - 1
        count = held + server.others
        if server.usable:
            server.lane.move(server, count / server.pull)
        elif server.ready and count < server.limit:
            server.usable = True
            server.lane.place(server, count / server.pull)
            self._freed()

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        return least_load(usable)

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        """Nothing: times do not matter."""

    def _confirm(self, server: Server, cap: int, group: list[Server]) -> Server:
        """The server that was drawn, or after a second thought another one."""
        random = self._random
        for _ in range(_DRAWS):
            steps = server.steps
            if steps == cap or random() * cap < steps:
                break
            server = group[int(random() * len(group))]
        return server

    def _draw_from_lanes(self) -> Server | None:
        least = None
        # In whole numbers, so that no rounding can miss.
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
            # Which server, and which of the places that its pull may fill.
            server = members[point // cap]
            if point % cap < server.steps:
                break
        return server
