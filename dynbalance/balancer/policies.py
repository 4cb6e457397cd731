"""
How one server is chosen among the usable ones.

A policy serves one tier of one upstream: its primaries or its backups.  It is
told which servers are usable, and it counts the connection on the server that
it chose, because choosing and counting in one step is what the way of a
request can afford.  It refuses to know why a server is usable; being full is
the one reason that it applies itself, since its own counting causes it.

  - L{leastconn <dynbalance.balancer.leastconn>}: C{least_conn}
  - L{roundrobin <dynbalance.balancer.roundrobin>}: C{round_robin}
  - L{twodraws <dynbalance.balancer.twodraws>}: C{random_two} and C{ewma}
  - L{hashing <dynbalance.balancer.hashing>}: C{hash} and C{ip_hash}

nginx refuses backups with the last four.  Here a backup is welcome with every
policy: the tiers are apart, so that it is clear what it means (the backups
have a ring, or draws, of their own, used when no primary is left), and a
server can be registered as a backup at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, Protocol

from dynbalance.balancer.foresight import Foresight
from dynbalance.balancer.hashing import (
    ConsistentHash,
    WeightHash,
    numbers_of_address,
    numbers_of_key,
)
from dynbalance.balancer.leastconn import LeastConn
from dynbalance.balancer.means import Means
from dynbalance.balancer.roundrobin import RoundRobin
from dynbalance.balancer.server import Server
from dynbalance.balancer.twodraws import Ewma, RandomTwo


class Policy(Protocol):
    """
    What the upstream asks of a policy.

    @cvar wants_key: whether L{take_for} does other than L{take}.
    @cvar wants_times: whether L{answered} does anything.
    @cvar gradual: whether it follows C{Server.pull}, so that servers can
        start slowly.
    """

    wants_key: ClassVar[bool]
    wants_times: ClassVar[bool]
    gradual: ClassVar[bool]

    def arrange(self, servers: Sequence[Server]) -> None:
        """
        Hear which servers the tier has now, in their order.  Those that were
        dropped or got another weight have left before.
        """

    def reweigh(self, server: Server) -> None:
        """The C{pull} of a server of the tier that is not usable has changed."""

    def enter(self, server: Server) -> None:
        """A server of the tier became usable; sets C{usable}."""

    def leave(self, server: Server) -> None:
        """A usable server is no longer so; clears C{usable}."""

    def take(self) -> Server | None:
        """Choose a usable server and count a connection on it."""

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        """
        Likewise, for a request with this key.

        @param key: never empty.
        @param tried: servers that the request has tried, which are not usable
            while this runs.
        """

    def claim(self, server: Server) -> None:
        """Count a connection on a usable server that was chosen elsewhere."""

    def give(self, server: Server) -> None:
        """Count a connection less on a server, usable or not."""

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        """An attempt on a server of the tier took so long."""

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        """
        What L{take}, or with a key L{take_for}, would choose; nothing changes.

        @param usable: all usable servers of the tier, in their order; at least one.
        """


POLICIES: Mapping[str, Callable[[Means], Policy]] = {
    "least_conn": LeastConn,
    "round_robin": RoundRobin,
    "random_two": RandomTwo,
    "hash": lambda means: (
        ConsistentHash(means) if means.consistent else WeightHash(means, numbers_of_key)
    ),
    "ip_hash": lambda means: WeightHash(means, numbers_of_address),
    "ewma": Ewma,
}
"""The policies by their names in the configuration."""
