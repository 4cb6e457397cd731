"""
Two servers are drawn at random, in proportion to their weights; the better one
is taken.

That is nearly as even as looking at all servers, does not grow with their
number, and many nodes that know the same do not all run to the same server.

  - C{random_two}: fewer connections for the weight are better.
  - C{ewma}: less waiting to be expected is better: the smoothed response
    time, times the connections that it would have with this one, for the
    weight.

Knows loads and times; refuses to know why a server is usable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp
from typing import ClassVar

from dynbalance.balancer.foresight import Foresight, better_of_two
from dynbalance.balancer.means import Means
from dynbalance.balancer.roundrobin import RoundRobin
from dynbalance.balancer.server import Server

_PAIR = 2
"""Servers from which on there is something to draw."""

_DRAWS = 22
"""Draws at most for one choice: the two, and 20 misses, as in nginx."""


class RandomTwo(RoundRobin):
    """The one with fewer connections for its weight; of equals the second."""

    __slots__ = ("_bounds", "_random")

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._random = means.random
        # Where each server's part of the sum of pulls ends; empty when it has
        # to be added up again.
        self._bounds: list[float] = []

    def arrange(self, servers: Sequence[Server]) -> None:
        super().arrange(servers)
        self._bounds = []

    def reweigh(self, server: Server) -> None:
        self._bounds = []

    def take(self) -> Server | None:
        servers = self._servers
        last = len(servers) - 1
        if last < 1:
            return super().take()
        bounds = self._bounds
        if not bounds:
            bounds = self._bounds = list(accumulate(server.pull for server in servers))
        random = self._random
        total = bounds[-1]
        first = None
        for _ in range(_DRAWS):
            server = servers[bisect_right(bounds, random() * total, 0, last)]
            if not server.usable or server is first:
                continue
            if first is None:
                first = server
                continue
            if self._is_worse(server, first):
                server = first
            break
        else:
            if first is None:
                return super().take()
            server = first
        self.claim(server)
        return server

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        if len(self._servers) < _PAIR:
            return super().foresee(usable, key)
        return better_of_two({server: self._score(server) for server in usable})

    def _score(self, server: Server) -> float:
        """Lower is better, as L{_is_worse} compares."""
        return server.load / server.pull

    def _is_worse(self, server: Server, first: Server) -> bool:
        return (server.held + server.others) * first.pull > (
            first.held + first.others
        ) * server.pull


MEMORY = 10.0
"""Seconds in which what was observed loses most (1 - 1/e) of its meaning."""

_FORGOTTEN = 4 * MEMORY
"""Seconds after which an observation means nothing at all."""

_MEAN_SHARE = 1 / 32
"""How much one good answer moves the mean of the tier."""

_PENALTY = 2.0
"""By how much each failure makes a server look slower than before."""

_WORST = 60.0
"""
Seconds that a server that fails fast may come to look like.  It is not a
multiple of the mean: the others' times are weighed with all their connections.
"""

_FLOOR = 0.001
"""The mean, in seconds, where not one good answer has ever come."""


class Ewma(RandomTwo):
    """
    The one with less waiting to be expected.

    A server's time is a moving average that rises to a peak at once and comes
    down slowly.  What it says wears off while nothing is heard, towards the
    mean of the tier, which is also what is assumed of a new server: it is
    neither flooded nor avoided.

    A failure, however fast, makes the server look at least twice as slow as
    it or the mean was; so a server that answers errors in no time draws less
    traffic with each of them, and is tried again when they are long past.
    """

    __slots__ = ("_mean", "_now")

    wants_times: ClassVar[bool] = True

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._now = means.now
        self._mean = 0.0

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        now = self._now()
        expected = self._expected(server, now)
        if failed:
            worse = _PENALTY * max(expected, self._mean, _FLOOR)
            seconds = max(seconds, min(worse, _WORST))
        elif self._mean:
            self._mean += (seconds - self._mean) * _MEAN_SHARE
        else:
            self._mean = seconds
        if server.timed_at is not None and seconds < server.time:
            kept = exp((server.timed_at - now) / MEMORY)
            seconds += (server.time - seconds) * kept
        server.time = seconds
        server.timed_at = now

    def _score(self, server: Server) -> float:
        return self._expected(server, self._now()) * (server.load + 1) / server.pull

    def _is_worse(self, server: Server, first: Server) -> bool:
        now = self._now()
        return (
            self._expected(server, now) * (server.held + server.others + 1) * first.pull
            > self._expected(first, now) * (first.held + first.others + 1) * server.pull
        )

    def _expected(self, server: Server, now: float) -> float:
        """Seconds that one answer of the server is expected to take."""
        mean = self._mean
        if server.timed_at is None:
            return mean
        silent = now - server.timed_at
        if silent >= _FORGOTTEN:
            return mean
        return mean + (server.time - mean) * exp(-silent / MEMORY)
