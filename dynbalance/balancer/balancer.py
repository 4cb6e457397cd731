"""
The one object that both subsystems share: all upstreams by name.

Knows the upstreams; refuses to know who asks for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from dynbalance.balancer.options import UpstreamOrder
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import UnknownUpstream
from dynbalance.store.contract import Snapshot

__all__ = ["Balancer", "UpstreamOrder"]


class Balancer:
    """
    The upstreams of this node.  Iterates over them.

    @ivar upstreams: by name; another mapping after each L{follow}.
    @ivar retired: those that the configuration names no more; whoever finds
        that nothing is left of one takes it out.
    """

    def __init__(
        self,
        orders: Iterable[UpstreamOrder],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """
        @param now: seconds that never run backwards.
        @param random: a number in [0, 1).
        @raise BadAddress: of one of the servers.
        """
        self._now = now
        self._random = random
        self.retired: dict[str, Upstream] = {}
        self.upstreams: Mapping[str, Upstream] = {}
        self.follow(orders, {})

    def follow(
        self, orders: Iterable[UpstreamOrder], snapshots: Mapping[str, Snapshot | None]
    ) -> None:
        """
        Go on with these upstreams.  Those that are here already, or were until
        a moment ago, keep what they carry and know.

        @param snapshots: what the store said last of each.
        @raise BadAddress: of one of the servers.
        """
        before = {**self.retired, **self.upstreams}
        after: dict[str, Upstream] = {}
        for order in orders:
            upstream = before.pop(order.name, None)
            if upstream is not None:
                upstream.follow(order, snapshots.get(order.name))
            else:
                upstream = self._made(order, snapshots.get(order.name))
            after[order.name] = upstream
        self.retired = before
        self.upstreams = MappingProxyType(after)

    def _made(self, order: UpstreamOrder, snapshot: Snapshot | None) -> Upstream:
        kind = StrictUpstream if order.options.strict else Upstream
        upstream = kind(
            order.name, order.policy, order.servers, self._now, self._random, order.options
        )
        if snapshot is not None:
            upstream.apply(snapshot)
        return upstream

    def upstream(self, name: str) -> Upstream:
        """@raise UnknownUpstream: no upstream has that name."""
        try:
            return self.upstreams[name]
        except KeyError:
            raise UnknownUpstream(name) from None

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self.upstreams.values())

    def __repr__(self) -> str:
        return f"<Balancer {' '.join(self.upstreams)}>"
