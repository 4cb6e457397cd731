"""
A ring of points, each of which is a server's, that changes by a few servers at a time.

Points are kept in buckets by their first bits, so that a change concerns the buckets of
its own points only, whatever else there is.  A server that leaves is gone at once; its
points are swept out later, a piece at a time, and passed over until then.

Knows points; refuses to know keys, and who may be chosen.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from zlib import crc32

from dynbalance.balancer.address import Address
from dynbalance.balancer.server import Server

BITS = 32
"""Of a point."""

BUCKET = 32
"""Points in a bucket, when the ring has as many as it was made for."""

STRETCH = 16
"""How many times as many points, or as few, a ring bears."""

PIECE = 256
"""Points after which somebody else may have a turn."""

_SLOT_BITS = 24
_SLOT_MASK = (1 << _SLOT_BITS) - 1


class Ring:
    """
    @ivar size: points that are there, swept out or not.
    """

    __slots__ = (
        "_before", "_buckets", "_free", "_mask", "_servers", "_shift", "_slots", "_wanted", "size",
    )  # fmt: skip

    def __init__(self, wanted: int, before: Callable[[Server], int]) -> None:
        """
        @param wanted: points, more or less.
        @param before: of two servers with the same point the one has it of which
            this is smaller.
        """
        bits = (max(wanted, BUCKET) // BUCKET).bit_length() - 1
        self._shift = BITS - bits
        self._mask = (1 << bits) - 1
        self._buckets: list[list[int]] = [[] for _ in range(1 << bits)]
        self._before = before
        self._wanted = wanted
        # Each point is one number with its server's slot, and in order by itself.
        self._servers: list[Server | None] = []
        self._slots: dict[Server, int] = {}
        self._free: list[int] = []
        self.size = 0

    def __repr__(self) -> str:
        return f"<Ring of {len(self._slots)} servers, {self.size} points>"

    def bears(self, wanted: int) -> bool:
        """Whether it is made for so many points, more or less."""
        return self._wanted <= STRETCH * wanted and wanted <= STRETCH * max(self._wanted, BUCKET)

    def fill(self, counts: Mapping[Server, int]) -> None:
        """Put many servers in at once, into a ring without points."""
        buckets, shift = self._buckets, self._shift
        for server, count in counts.items():
            slot = self._slot(server)
            for point in points_of(server.address, count):
                buckets[point >> shift].append(point << _SLOT_BITS | slot)
            self.size += count
        for bucket in buckets:
            bucket.sort()

    def put(self, server: Server, count: int) -> Iterator[None]:
        """Put a server in, in pieces; one that is taken out meanwhile is swept out later."""
        return self._put(self._slot(server), server.address, count)

    def _put(self, slot: int, address: Address, count: int) -> Iterator[None]:
        buckets, shift = self._buckets, self._shift
        for number, point in enumerate(points_of(address, count), 1):
            insort(buckets[point >> shift], point << _SLOT_BITS | slot)
            self.size += 1
            if not number % PIECE:
                yield
        yield

    def _slot(self, server: Server) -> int:
        if self._free:
            slot = self._free.pop()
            self._servers[slot] = server
        else:
            slot = len(self._servers)
            self._servers.append(server)
        self._slots[server] = slot
        return slot

    def drop(self, server: Server) -> int | None:
        """
        Take a server out.

        @return: what L{sweep} is to be given; C{None} if it was not there.
        """
        slot = self._slots.pop(server, None)
        if slot is not None:
            self._servers[slot] = None
        return slot

    def sweep(self, slot: int, address: Address, count: int) -> Iterator[None]:
        """Forget the points of a server that was taken out, in pieces."""
        for number, point in enumerate(points_of(address, count), 1):
            bucket = self._buckets[point >> self._shift]
            del bucket[bisect_left(bucket, point << _SLOT_BITS | slot)]
            self.size -= 1
            if not number % PIECE:
                yield
        self._free.append(slot)
        yield

    def at(self, point: int) -> Server | None:
        """The first of L{after}, in a hurry; C{None} where it takes a second look."""
        bucket = self._buckets[point >> self._shift]
        place = bisect_left(bucket, point << _SLOT_BITS)
        if place + 1 >= len(bucket):
            return None
        entry = bucket[place]
        if entry >> _SLOT_BITS == bucket[place + 1] >> _SLOT_BITS:
            return None
        return self._servers[entry & _SLOT_MASK]

    def after(self, point: int) -> Iterator[Server]:
        """The servers of the points from here on, once around."""
        servers, last = self._servers, -1
        index = point >> self._shift
        start = bisect_left(self._buckets[index], point << _SLOT_BITS)
        for step in range(len(self._buckets) + 1):
            bucket = self._buckets[(index + step) & self._mask]
            for place in range(start, len(bucket)):
                entry = bucket[place]
                server = servers[entry & _SLOT_MASK]
                if server is not None and entry >> _SLOT_BITS != last:
                    last = entry >> _SLOT_BITS
                    rivals = self._with(bucket, place + 1, last)
                    yield min((server, *rivals), key=self._before) if rivals else server
            start = 0

    def _with(self, bucket: list[int], place: int, point: int) -> list[Server]:
        """Further servers that have a point."""
        rivals = []
        while place < len(bucket) and bucket[place] >> _SLOT_BITS == point:
            server = self._servers[bucket[place] & _SLOT_MASK]
            if server is not None:
                rivals.append(server)
            place += 1
        return rivals

    @property
    def owned(self) -> dict[int, Server]:
        """Each point that somebody has, in their order."""
        owned: dict[int, Server] = {}
        for bucket in self._buckets:
            for place, entry in enumerate(bucket):
                point, server = entry >> _SLOT_BITS, self._servers[entry & _SLOT_MASK]
                if server is not None and point not in owned:
                    rivals = self._with(bucket, place + 1, point)
                    owned[point] = min((server, *rivals), key=self._before)
        return owned


def points_of(address: Address, count: int) -> Iterable[int]:
    """
    Those of a server: C{crc32(HOST \\0 PORT PREVIOUS)}, as in nginx.

    @param count: how many.
    """
    if address.is_unix:
        name = address.path.encode() + b"\0"
    else:
        host, _, port = str(address).rpartition(":")
        name = host.encode() + b"\0" + port.encode()
    base = crc32(name)
    point = 0
    for _ in range(count):
        point = crc32(point.to_bytes(4, "little"), base)
        yield point
