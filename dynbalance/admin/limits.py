"""
How much one client address may ask for.

Knows token buckets and forgets who asks for little; refuses to know what is
asked for.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000
"""Addresses that are remembered.  Beyond that those are forgotten that have not
come for the longest time, so that no flood of addresses fills the memory."""

_V6_SITE = 64
"""Bits of an IPv6 address that its owner does not choose (RFC 6177)."""


class Buckets:
    """
    A bucket for each client address.

    @param rate: what flows into each in a second.
    @param burst: what each holds at most; one may owe as much.
    @param now: seconds.
    """

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._now = now
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Buckets of {len(self._levels)} addresses>"

    def wait(self, address: str) -> float:
        """Seconds until there is something to take; 0 if there is now."""
        missing = 1.0 - self._level(_key(address))
        return max(0.0, missing / self._rate)

    def take(self, address: str, much: float = 1.0) -> None:
        """Take it, even if that is more than there is."""
        key = _key(address)
        left = max(-self._burst, self._level(key) - much)
        self._levels[key] = (left, self._now())
        self._levels.move_to_end(key)
        if len(self._levels) > _MOST:
            self._levels.popitem(last=False)

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (self._burst, 0.0))
        return min(self._burst, level + (self._now() - at) * self._rate)


def _key(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(ip), _V6_SITE), strict=False).network_address)
    return str(ip)
