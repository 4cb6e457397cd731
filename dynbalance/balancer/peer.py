"""
The address of a peer as a balancer hook gives it, read by nginx's rules.

Knows which texts nginx takes for an address and in which words it refuses the
others; refuses to look up names, as nginx's balancer does.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from dynbalance.balancer.address import Address
from dynbalance.errors import BalancerError

_UNIX = "unix:"
_LONGEST_PATH = 107
_PORT = re.compile(r"[0-9]+\Z")
_NUMBER = re.compile(r"\s*(?:(0[xX][0-9A-Fa-f]+)|([0-9]+)(?:\.[0-9]*)?)\s*\Z")


def parse_peer(addr: str, port: float | str | None = 0) -> Address:
    """
    @param addr: an IPv4 address or an IPv6 address in brackets, each with or
        without C{:port}, or C{unix:/path}.
    @param port: for an address without one; C{None} is 0.  A number is cut to
        16 bits without a question, as nginx does.
    @return: port 0 when there was none anywhere: nobody can be reached there,
        and the attempt fails when it connects.
    @raise BalancerError: in nginx's words.
    @raise TypeError: C{addr} is no text, or C{port} no number.
    """
    if not isinstance(addr, str):
        raise TypeError(
            "bad argument #1 to 'set_current_peer'"
            f" (string expected, got {type(addr).__name__})"
        )
    return _read(addr, _default_port(port))


@lru_cache(maxsize=1024)
def _read(addr: str, default: int) -> Address:
    # Hooks name the same few peers again and again.
    if addr[: len(_UNIX)].lower() == _UNIX:
        return _unix_peer(addr[len(_UNIX) :])
    if addr.startswith("["):
        return _ipv6_peer(addr[1:], default)
    return _ipv4_peer(addr, default)


def _default_port(port: float | str | None) -> int:
    if port is None:
        return 0
    if isinstance(port, str):
        number = _NUMBER.match(port)
        if number is not None:
            return (int(number[1], 16) if number[1] else int(number[2])) & 0xFFFF
    elif not isinstance(port, bool) and abs(port) < 2**53:
        return int(port) & 0xFFFF
    raise TypeError(f"bad argument #2 to 'set_current_peer' (number expected, got {port!r})")


def _unix_peer(path: str) -> Address:
    if not path:
        raise BalancerError("no path in the unix domain socket")
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise BalancerError("too long path in the unix domain socket")
    return Address(_UNIX + path, 0)


def _ipv6_peer(rest: str, default: int) -> Address:
    """@param rest: what follows the bracket that opens."""
    host, closed, tail = rest.partition("]")
    if not closed or "/" in tail or (tail and not tail.startswith(":")):
        raise BalancerError("invalid host")
    port = _own_port(tail[1:]) if tail else default
    if not host:
        raise BalancerError("no host")
    try:
        if "%" in host:
            raise ValueError(host)
        ip = ipaddress.IPv6Address(host)
    except ValueError:
        raise BalancerError("invalid IPv6 address") from None
    # One way of writing an address, as in Address.of, so that a server that
    # the upstream knows is found.
    return Address(str(ip.ipv4_mapped or ip), port)


def _ipv4_peer(addr: str, default: int) -> Address:
    if "/" in addr or "?" in addr:
        raise BalancerError("invalid host")
    host, colon, tail = addr.partition(":")
    port = _own_port(tail) if colon else default
    if not host:
        raise BalancerError("no host")
    try:
        ip = ipaddress.IPv4Address(host)
    except ValueError:
        raise BalancerError("no host allowed") from None
    if int(ip) == 0xFFFFFFFF:
        # What nginx's reader of addresses says when it fails.
        raise BalancerError("no host allowed")
    return Address(str(ip), port)


def _own_port(text: str) -> int:
    if not _PORT.match(text) or len(text) > 9 or not 1 <= int(text) <= 65535:
        raise BalancerError("invalid port")
    return int(text)

