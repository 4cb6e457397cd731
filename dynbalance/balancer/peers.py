"""
The servers that a balancer hook may name by their addresses.

Knows the upstream's servers and, beside them, strangers: addresses that only
the hook knows.  A stranger is an object like any other server, so that its
connections are made, kept and counted in the same way, but no policy has it and
nobody judges it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from dynbalance.balancer.address import Address
from dynbalance.balancer.foresight import Foresight
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.contract import ServerOrder

_STRANGERS = 1024


class _NoPolicy:
    """
    The L{Policy <dynbalance.balancer.policies.Policy>} of strangers: they only
    carry what they are given.
    """

    wants_key: ClassVar[bool] = False
    wants_times: ClassVar[bool] = False
    gradual: ClassVar[bool] = False

    def arrange(self, servers: Sequence[Server]) -> None:
        """Nothing: strangers have no order."""

    def reweigh(self, server: Server) -> None:
        """Nothing: nor weights."""

    def enter(self, server: Server) -> None:
        """Nothing: a stranger is never usable for a policy."""

    def leave(self, server: Server) -> None:
        """Nothing, as above."""

    def take(self) -> Server | None:
        return None

    def take_for(self, key: bytes, tried: Collection[Server]) -> Server | None:
        return None

    def claim(self, server: Server) -> None:
        server.picks += 1
        server.held += 1

    def give(self, server: Server) -> None:
        server.held -= 1

    def answered(self, server: Server, seconds: float, failed: bool) -> None:
        """Nothing: nobody compares them."""

    def foresee(self, usable: Sequence[Server], key: bytes) -> Foresight:
        return {}


class Peers:
    """
    @param upstream: whose servers come first.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._strangers: dict[Address, Server] = {}
        self._policy = _NoPolicy()
        # Servers whose key, written by others, is not how we write the address.
        self._oddly_named: dict[Address, Server] = {}
        self._revision: int | None = None

    def server(self, address: Address) -> Server:
        """The server that listens there: the upstream's, or else a stranger."""
        known = self._upstream.server(str(address)) or self._by_other_name(address)
        return known or self._stranger(address)

    def _by_other_name(self, address: Address) -> Server | None:
        upstream = self._upstream
        if self._revision != upstream.revision:
            self._revision = upstream.revision
            self._oddly_named = {
                server.address: server
                for server in upstream.servers
                if server.key != str(server.address)
            }
        return self._oddly_named.get(address)

    def _stranger(self, address: Address) -> Server:
        server = self._strangers.pop(address, None)
        if server is None:
            if len(self._strangers) >= _STRANGERS:
                # The one that was named longest ago.
                del self._strangers[next(iter(self._strangers))]
            order = ServerOrder(
                address=str(address),
                host=address.host,
                port=address.port,
                max_conns=0,
                heartbeat=False,
                max_fails=0,
            )
            server = Server(address, order, self._policy)
        self._strangers[address] = server
        return server

    def __repr__(self) -> str:
        return f"<Peers of {self._upstream.name} strangers={len(self._strangers)}>"
