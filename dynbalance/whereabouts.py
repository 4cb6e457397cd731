"""
Who knows where names are, and what follows when a name moves.

Knows the table and the connections that are kept; refuses to know when names are
looked up (L{dynbalance.net.names}).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from dynbalance.http.connection import ServerConnection

if TYPE_CHECKING:
    from twisted.internet.interfaces import IHostnameResolver

    from dynbalance.balancer.address import Address
    from dynbalance.config import ResolverConfig
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.dial import Target
    from dynbalance.net.hub import Hub


def resolver_of(
    table: ResolverConfig, randomness: Callable[[int], bytes], reactor: Any
) -> IHostnameResolver | None:
    """The resolver that a table asks for; C{None} for the system's."""
    if not table.servers:
        return None
    # Few need it, and everybody would wait for it.
    from dynbalance.net.dns import DnsResolver

    servers = [(address.host, address.port) for address in table.servers]
    return DnsResolver(servers, table.ipv6, randomness, reactor)


def leave(
    upstreams: Iterable[HttpUpstream], hub: Hub, address: Address, targets: Collection[Target]
) -> None:
    """
    Keep no connection to where a name is not any more: what is under way ends there,
    and what comes begins elsewhere.

    @param targets: where the name is.
    """
    places = {target.as_twisted() for target in targets}
    for upstream in upstreams:
        for server in [server for server in upstream.idle if server.address == address]:
            for connection in list(upstream.idle.get(server, ())):
                if connection.transport.getPeer() not in places:
                    connection.close()
    for transport in {*hub.getReaders(), *hub.getWriters()}:
        protocol = getattr(transport, "protocol", None)
        if (
            isinstance(protocol, ServerConnection)
            and protocol.server.address == address
            and protocol.transport.getPeer() not in places
        ):
            # Too old to be kept.
            protocol.born = -math.inf
