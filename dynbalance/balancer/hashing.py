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
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, islice
from typing import ClassVar
from zlib import crc32

from dynbalance.balancer.address import Address
from dynbalance.balancer.foresight import Foresight, certain, highest_current
from dynbalance.balancer.means import Means
from dynbalance.balancer.roundrobin import RoundRobin
from dynbalance.balancer.server import Server

_MISSES = 20
"""Misses that do not yet lead to round robin."""

POINTS = 160
"""Points on the ring for each unit of weight."""

MOST_POINTS = 2_000_000
"""Points on a ring at most: servers of enormous weights get fewer points each."""


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

    The ring is made when it is first needed after a change.  The points of a
    server depend on its address and weight alone.  Servers with one address
    have the points of the heaviest of them together, and serve in turn there.
    """

    __slots__ = ("_alike", "_means", "_members", "_owners", "_points", "_ring", "_shared")

    wants_key: ClassVar[bool] = True
    gradual: ClassVar[bool] = False

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._means = means
        # Of several servers with one address the heaviest -> all of them.
        self._alike: dict[Server, RoundRobin] = {}
        # Each server's points; of those that stayed they are not made again.
        self._members: dict[Server, tuple[int, ...]] = {}
        self._owners: dict[int, Server] = {}
        # Points that more than one server has.
        self._shared: set[int] = set()
        self._points: list[int] = []
        self._ring = False

    def arrange(self, servers: Sequence[Server]) -> None:
        super().arrange(servers)
        self._ring = False

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        if len(self._servers) < 2:
            return self.take()
        if not self._ring:
            self._make_ring()
        points, owners, alike = self._points, self._owners, self._alike
        place = bisect_left(points, crc32(key))
        for step in range(_MISSES + 1):
            server = owners[points[(place + step) % len(points)]]
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
        if not self._ring:
            self._make_ring()
        place = bisect_left(self._points, crc32(key))
        for step in range(_MISSES + 1):
            server = self._owners[self._points[(place + step) % len(self._points)]]
            among = self._alike[server].members if server in self._alike else (server,)
            good = [member for member in among if member.usable]
            if good:
                return certain(server) if len(among) == 1 else highest_current(good)
        return super().foresee(usable, key)

    def _make_ring(self) -> None:
        heaviest = self._heaviest()
        wanted = sum(server.weight for server in heaviest) * POINTS
        part = min(1.0, MOST_POINTS / wanted)
        former, self._members = self._members, {}
        for server in heaviest:
            count = max(1, int(server.weight * POINTS * part))
            points = former.get(server)
            if points is None or len(points) != count:
                points = _points_of(server.address, count)
            self._members[server] = points
        gone = [s for s, points in former.items() if self._members.get(s) is not points]
        fresh = [s for s, points in self._members.items() if former.get(s) is not points]
        few = 4 * (len(gone) + len(fresh)) <= len(former)
        if not (few and self._mend([former[server] for server in gone], fresh)):
            self._make_anew()
        self._ring = True

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

    def _mend(self, gone: list[tuple[int, ...]], fresh: list[Server]) -> bool:
        """
        Take points out of the ring and put some in.

        @return: whether that was possible; not where servers share a point,
            since then their order decides.
        """
        owners = self._owners
        out = {point for points in gone for point in points}
        into = {point: server for server in fresh for point in self._members[server]}
        unique = len(into) == sum(len(self._members[server]) for server in fresh)
        if not (unique and owners.keys().isdisjoint(into) and self._shared.isdisjoint(out)):
            return False
        if out:
            for point in out:
                del owners[point]
            self._points = [point for point in self._points if point not in out]
        if into:
            owners.update(into)
            self._points.extend(into)
            # What was in order stays so, which makes this a merge.
            self._points.sort()
        return True

    def _make_anew(self) -> None:
        owners: dict[int, Server] = {}
        self._shared = set()
        # Backwards, since of two servers with the same point the first has it.
        for server in reversed(self._members):
            mine = dict.fromkeys(self._members[server], server)
            if not owners.keys().isdisjoint(mine):
                self._shared.update(owners.keys() & mine.keys())
            owners.update(mine)
        self._owners = owners
        self._points = sorted(owners)


def _points_of(address: Address, count: int) -> tuple[int, ...]:
    if address.is_unix:
        name = address.path.encode() + b"\0"
    else:
        host, _, port = str(address).rpartition(":")
        name = host.encode() + b"\0" + port.encode()
    base = crc32(name)
    points = []
    point = 0
    for _ in range(count):
        point = crc32(point.to_bytes(4, "little"), base)
        points.append(point)
    return tuple(points)
