"""
Who a client is, by where its connection comes from.
"""

from __future__ import annotations

LOCAL = "127.0.0.1"
"""Who comes by a unix socket comes from here."""


def host_of(peer: object) -> str:
    """
    A client's address without port and scope; that of an IPv4 address in IPv6's
    clothes is an IPv4 address.

    @param peer: as the kernel or as Twisted has it.
    """
    host = peer[0] if isinstance(peer, tuple) else getattr(peer, "host", "")
    return str(host or LOCAL).partition("%")[0].removeprefix("::ffff:")
