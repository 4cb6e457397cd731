"""
Requests of one user go to one server.

    [upstreams.default]
    balancer = "sticky_by_header:choose"

The user is named by the field X-User.  Each server has a rank for each user
(rendezvous hashing), so that a server that comes or goes moves only its own
share of the users.  Requests without a user, and further attempts after a
failure, are left to the upstream's policy.
"""

from __future__ import annotations

from hashlib import blake2b

from dynbalance.balancer.hook import Candidate, HttpContext


def choose(balancer: HttpContext) -> None:
    """The hook."""
    user = balancer.request.headers.get("X-User")
    if not user or balancer.attempt > 1:
        return
    servers = [server for server in balancer.servers if not server.backup]
    if servers:
        balancer.set_current_peer(max(servers, key=lambda server: rank(user, server)))


def rank(user: str, server: Candidate) -> bytes:
    """The server with the highest one gets the user."""
    return blake2b(f"{user}\0{server.key}".encode(), digest_size=8).digest()
