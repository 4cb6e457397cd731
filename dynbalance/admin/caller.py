"""
Who calls the API.

One value goes from the front, which knows connections and credentials, to
whoever carries out an order and writes down who gave it.
"""

from __future__ import annotations

import ipaddress
from enum import Enum

from attrs import frozen


class Role(Enum):
    """
    What a caller may do; see the page about the admin API.  Each may do what
    those before it may.
    """

    READ = "read"
    AGENT = "agent"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether who has this role may do what C{other} may."""
        return _ROLES.index(self) >= _ROLES.index(other)


_ROLES = list(Role)


@frozen(slots=True, kw_only=True)
class Holder:
    """
    Whose a credential is.

    @ivar name: of the user, the token, or whom a certificate is for.
    @ivar hosts: whose servers it is for, beside its holder's own.
    @ivar lasts: seconds for which it is good from now on; C{None} for no end.
    """

    name: str
    role: Role
    hosts: frozenset[str] = frozenset()
    lasts: float | None = None


@frozen(slots=True, kw_only=True)
class Caller:
    """
    @ivar address: where the request came from; empty when that has none.
    @ivar name: of the user or token; empty without authentication.
    @ivar hosts: whose servers an agent may manage beside its own.
    @ivar lasts: seconds for which an answer may go on; C{None} for no end.
    """

    address: str
    role: Role
    name: str = ""
    hosts: frozenset[str] = frozenset()
    lasts: float | None = None

    def __str__(self) -> str:
        """As logs and the history write it."""
        return f"{self.name}@{self.address}" if self.name else self.address

    def may_manage(self, host: str) -> bool:
        """
        Whether servers with this host are the caller's.

        @param host: as an L{Address<dynbalance.balancer.address.Address>} has it.
        """
        return (
            self.role is Role.ADMIN
            or host in self.hosts
            or (bool(self.address) and host == plain(self.address))
        )


def plain(address: str) -> str:
    """
    An IP address in its shortest form, and as an IPv4 address if it is one in
    IPv6's clothes; any other text as it is.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
