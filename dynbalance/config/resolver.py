"""
C{[resolver]}: who knows where names are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import Attribute, field, frozen

from dynbalance.balancer.address import Address
from dynbalance.config.ranges import seconds


def _numeric(
    instance: Any, attribute: Attribute[Any], value: Sequence[Address]
) -> None:
    """Addresses that nobody has to look up."""
    for address in value:
        if address.is_unix or not address.is_numeric:
            raise ValueError(f"{str(address)!r} is not an IP address with a port")


@frozen(slots=True, kw_only=True)
class ResolverConfig:
    """
    @ivar servers: name servers, asked in this order; none for the system's resolver.
    @ivar valid: seconds after which a name is looked up again.
    @ivar ipv6: whether the name servers are asked for IPv6 addresses, too.
    """

    servers: tuple[Address, ...] = field(default=(), validator=_numeric)
    valid: float = field(default=10.0, validator=seconds(0.1))
    ipv6: bool = True
