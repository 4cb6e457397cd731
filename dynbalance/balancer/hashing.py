"""
Policies by which requests with the same key go to the same server.

The formulas are nginx's, so that a client finds the same server behind either:

  - C{hash}: C{((crc32([REHASH] KEY) >> 16) & 0x7fff) + PREVIOUS}, over the sum
    of the weights.
  - C{hash} made consistent: the ketama ring, 160 points for each unit of
    weight, C{crc32(HOST \\0 PORT PREVIOUS)}.
  - C{ip_hash}: three octets of an IPv4 address, all of an IPv6 address.

Servers that are not usable keep their part of the keys, which go elsewhere
only as long as that lasts.  After more than 20 misses, without a key, and where
there are fewer than two servers, it is round robin.

Knows keys and where they lead; refuses to know what a key is made of.  The
weights are those that were ordered: a server that took up its keys bit by bit
would move each of them twice.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import ClassVar
from zlib import crc32

from dynbalance.balancer.address import Address
from dynbalance.balancer.foresight import Foresight, certain, highest_current
from dynbalance.balancer.means import Means
from dynbalance.balancer.ring import Ring
from dynbalance.balancer.roundrobin import RoundRobin
from dynbalance.balancer.server import Server

_MISSES = 20
"""Misses that do not yet lead to round robin."""

POINTS = 160
"""Points on the ring for each unit of weight."""

MOST_POINTS = 2_000_000
"""Points on a ring at most: servers of enormous weights get fewer points each."""

_PART, _LONG_PART = 0.001, 0.01
"""Seconds for which one request works on a ring that has changed."""

_SELDOM = 0.1
"""Seconds between two requests with which there are few, so that each may work longer."""


class WeightHash(RoundRobin):
    """
    A key gives a sequence of numbers, and a number modulo the sum of the
    weights a server.

    The sequence begins anew for each attempt of a request.  That comes to the
    same as going on where the last attempt ended: the servers that were tried
    are met again where they were met first, which is no miss.
    """

    __slots__ = ("_bounds", "_numbers")

    wants_key: ClassVar[bool] = True
    gradual: ClassVar[bool] = False

    def __init__(self, means: Means, numbers: Callable[[bytes], Iterator[int]]) -> None:
        """@param numbers: the sequence of a key, without end."""
        super().__init__(means)
        self._numbers = numbers
        self._bounds: list[int] = []

    def arrange(self, servers: Sequence[Server]) -> None:
        super().arrange(servers)
        self._bounds = list(accumulate(server.weight for server in servers))

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        servers, bounds = self._servers, self._bounds
        if len(servers) < 2:
            return self.take()
        misses = 0
        met: list[Server] = []
        for number in self._numbers(key):
            server = servers[bisect_right(bounds, number % bounds[-1])]
            if server.usable:
                self.claim(server)
                return server
            if server in tried and server not in met:
                met.append(server)
                continue
            misses += 1
            if misses > _MISSES:
                break
        return self.take()

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        if key and len(self._servers) > 1:
            numbers = islice(self._numbers(key), _MISSES + 1)
            for number in numbers:
                server = self._servers[bisect_right(self._bounds, number % self._bounds[-1])]
                if server.usable:
                    return certain(server)
        return super().foresee(usable, key)


def numbers_of_key(key: bytes) -> Iterator[int]:
    """What C{hash} makes of a key, without end."""
    number = (crc32(key) >> 16) & 0x7FFF
    rehash = 0
    while True:
        yield number
        rehash += 1
        number += (crc32(b"%d%b" % (rehash, key)) >> 16) & 0x7FFF


def numbers_of_address(key: bytes) -> Iterator[int]:
    """
    What C{ip_hash} makes of a client's address, without end.

    Unlike in nginx, an IPv4 address in IPv6's clothes (C{::ffff:192.0.2.1}) is
    an IPv4 address: how a listener was opened is nothing to go by.
    """
    octets = _octets(key)
    number = 89
    while True:
        for octet in octets:
            number = (number * 113 + octet) % 6271
        yield number


def _octets(key: bytes) -> bytes:
    """What nginx looks at: of a client without an address, three zeros."""
    try:
        ip = ipaddress.ip_address(key.decode("ascii"))
    except ValueError:
        return bytes(3)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ip.packed
        ip = ip.ipv4_mapped
    return ip.packed[:3]


class ConsistentHash(RoundRobin):
    """
    C{hash} with C{consistent}.

    The points of a server depend on its address and weight alone.  Servers with one
    address have the points of the heaviest of them together, and serve in turn there.

    Until the first request the ring is made whole at each change, since nobody waits
    for a node that begins.  Afterwards those who ask do a small part of what has
    changed each: servers that left have no keys any more, and those that came get theirs
    one after the other.
    """

    __slots__ = (
        "_alike", "_asked", "_by_address", "_counts", "_last", "_means", "_ring", "_weights",
        "_work",
    )  # fmt: skip

    wants_key: ClassVar[bool] = True
    gradual: ClassVar[bool] = False

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._means = means
        # Of several servers with one address the heaviest -> all of them.
        self._alike: dict[Server, RoundRobin] = {}
        self._weights: dict[Server, int] = {}
        self._by_address: dict[Address, Server] = {}
        # The servers that have points, or will have them, and how many.
        self._counts: dict[Server, int] = {}
        self._ring = Ring(0, self._rank)
        self._work: deque[Iterator[None]] = deque()
        self._asked = False
        self._last = 0.0

    def arrange(self, servers: Sequence[Server]) -> None:
        super().arrange(servers)
        weights = {server: server.weight for server in servers}
        former, self._weights = self._weights, weights
        changed = [server for server, weight in former.items() if weights.get(server) != weight]
        changed += [server for server in weights if server not in former]
        # One after the other where that is all there is to it, as it mostly is.
        most = max(sum(former.values()), sum(weights.values())) * POINTS
        news = None if self._alike or most > MOST_POINTS else self._recount(changed)
        if news is None:
            news = self._count_anew()
        if news:
            self._follow(news)
        if not self._asked:
            self._finish()

    def _recount(self, changed: list[Server]) -> dict[Server, int] | None:
        """
        @return: the points of those that have others now; C{None} where that depends
            on more than each of them: some have the same address.
        """
        here = self._weights
        for server in changed:
            self._by_address.pop(server.address, None)
        for server in changed:
            if server in here and self._by_address.setdefault(server.address, server) != server:
                return None
        return {server: here.get(server, 0) * POINTS for server in changed}

    def _count_anew(self) -> dict[Server, int]:
        """Likewise, of all."""
        wanted = self._wanted_counts()
        self._by_address = {server.address: server for server in wanted}
        gone = {server: 0 for server in self._counts if server not in wanted}
        return gone | {s: count for s, count in wanted.items() if self._counts.get(s) != count}

    def _follow(self, news: Mapping[Server, int]) -> None:
        """@param news: servers and the points that they have now; none for those that left."""
        before = {server: self._counts.pop(server, 0) for server in news}
        stay = dict(self._counts) if not self._ring.bears(self._sum(news)) else None
        self._counts.update((server, count) for server, count in news.items() if count)
        if stay is not None:
            # Few, beside those that come or left.
            self._work.clear()
            self._ring = Ring(sum(self._counts.values()), self._rank)
            self._ring.fill(stay if self._asked else self._counts)
            if not self._asked:
                return
        else:
            for server, count in before.items():
                self._take_out(server, count)
        for server, count in news.items():
            if count:
                self._work.append(self._ring.put(server, count))

    def _sum(self, news: Mapping[Server, int]) -> int:
        return sum(self._counts.values()) + sum(news.values())

    def _take_out(self, server: Server, count: int) -> None:
        slot = self._ring.drop(server)
        if slot is not None:
            self._work.append(self._ring.sweep(slot, server.address, count))

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        if len(self._servers) < 2:
            return self.take()
        self._asked = True
        if self._work:
            self._go_on()
        alike = self._alike
        point = crc32(key)
        first = None if alike else self._ring.at(point)
        if first is not None and first.usable:
            self.claim(first)
            return first
        for server in islice(self._ring.after(point), _MISSES + 1):
            if alike and server in alike:
                next_one = alike[server].take()
                if next_one is not None:
                    return next_one
            elif server.usable:
                self.claim(server)
                return server
        return self.take()

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        if not key or len(self._servers) < 2:
            return super().foresee(usable, key)
        for server in islice(self._ring.after(crc32(key)), _MISSES + 1):
            among = self._alike[server].members if server in self._alike else (server,)
            good = [member for member in among if member.usable]
            if good:
                return certain(server) if len(among) == 1 else highest_current(good)
        return super().foresee(usable, key)

    def _go_on(self) -> None:
        """Do a part of what has changed; a larger one where few ask."""
        now = self._means.now
        seldom = now() - self._last > _SELDOM
        end = now() + (_LONG_PART if seldom else _PART)
        while self._work:
            for _ in self._work[0]:
                if now() >= end:
                    self._last = now()
                    return
            self._work.popleft()

    def _finish(self) -> None:
        for work in self._work:
            for _ in work:
                pass
        self._work.clear()

    def _rank(self, server: Server) -> int:
        """The place in the list, of those with one address that of the first."""
        first = self._alike[server].members[0] if server in self._alike else server
        return self._servers.index(first)

    def _wanted_counts(self) -> dict[Server, int]:
        heaviest = self._heaviest()
        wanted = sum(server.weight for server in heaviest) * POINTS
        part = min(1.0, MOST_POINTS / wanted) if wanted else 1.0
        return {server: max(1, int(server.weight * POINTS * part)) for server in heaviest}

    def _heaviest(self) -> list[Server]:
        """Of each address one server; notes those that have an address together."""
        by_address: dict[Address, list[Server]] = {}
        for server in self._servers:
            by_address.setdefault(server.address, []).append(server)
        self._alike = {}
        heaviest: list[Server] = []
        for servers in by_address.values():
            first = max(servers, key=lambda server: server.weight)
            heaviest.append(first)
            if len(servers) > 1:
                turns = self._alike[first] = RoundRobin(self._means)
                turns.arrange(servers)
        return heaviest
