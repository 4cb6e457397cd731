"""
The one object that both subsystems share: all upstreams by name.

Knows the upstreams; refuses to know who asks for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from attrs import frozen

from dynbalance.balancer.options import DEFAULTS, UpstreamOptions
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.errors import UnknownUpstream


@frozen(slots=True, kw_only=True)
class UpstreamOrder:
    """
    What an upstream is made from.

    @ivar policy: one of L{dynbalance.balancer.policies.POLICIES}.
    @ivar servers: those that the configuration file names.
    @ivar options: how it is to be run.
    """

    name: str
    policy: str = "least_conn"
    servers: tuple[FileServer, ...] = ()
    options: UpstreamOptions = DEFAULTS


class Balancer:
    """
    The upstreams of this node.  Iterates over them.

    @ivar upstreams: by name; not to be changed.
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
        self.upstreams: Mapping[str, Upstream] = MappingProxyType(
            {
                order.name: Upstream(
                    order.name, order.policy, order.servers, now, random, order.options
                )
                for order in orders
            }
        )

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
