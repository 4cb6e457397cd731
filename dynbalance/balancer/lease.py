"""
A connection's slot on a server: taken when the server is chosen, given back
exactly once.

Knows that; refuses to know why it is given back.
"""

from __future__ import annotations

from dynbalance.balancer.server import Server
from dynbalance.errors import LeaseError


class Lease:
    """
    One connection counted on one server.

    @ivar server: stays readable after the release.
    @ivar released: whether the slot was given back.
    """

    __slots__ = ("released", "server")

    def __init__(self, server: Server) -> None:
        """@param server: has counted the connection already."""
        self.server = server
        self.released = False

    @classmethod
    def force(cls, server: Server) -> Lease:
        """Count a connection on a server, usable or not."""
        if server.usable:
            server.policy.claim(server)
        else:
            # No policy keeps it in order now.
            server.held += 1
            server.picks += 1
        return cls(server)

    def release(self) -> None:
        """
        Give the slot back.

        @raise LeaseError: it was given back before.
        """
        if self.released:
            raise LeaseError(f"{self!r} was released before")
        self.released = True
        server = self.server
        server.policy.give(server)

    def __repr__(self) -> str:
        return f"<Lease on {self.server.key} {'released' if self.released else 'held'}>"
