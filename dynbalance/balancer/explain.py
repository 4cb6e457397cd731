"""
Why a server would be chosen, or not.

Pure: nothing is counted, drawn or moved on.  Knows the order of what decides:
a cookie, the primaries, the backups, the last resort; refuses to know requests.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from dynbalance.balancer.foresight import Foresight, certain
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream


class Decided(Enum):
    """What decides about a request."""

    COOKIE = "cookie"
    HOOK = "hook"
    POLICY = "policy"
    PANIC = "panic"
    NOBODY = "nobody"


@frozen(slots=True, kw_only=True)
class Outlook:
    """
    One server's.

    @ivar why_not: why it would not be chosen; C{None} when it might be.
    @ivar score: by which the policy goes; C{None} where it does not.
    @ivar chance: that it is chosen, 0 to 1; C{None} where that is not known.
    """

    server: Server
    why_not: str | None
    score: float | None
    chance: float | None


@frozen(slots=True, kw_only=True)
class Explanation:
    """
    @ivar decided: what decides.
    @ivar outlooks: of all servers, in their order.
    """

    decided: Decided
    outlooks: tuple[Outlook, ...]

    @property
    def chosen(self) -> Server | None:
        """The server that is certain to be chosen."""
        for outlook in self.outlooks:
            if outlook.chance == 1:
                return outlook.server
        return None


def explain(
    upstream: Upstream, key: bytes = b"", route: str = "", hooked: bool = False
) -> Explanation:
    """
    @param key: as for L{Upstream.choose}.
    @param route: what the request's cookie names; empty without one.
    @param hooked: a hook decides: the policy is what it may fall back to.
    """
    servers = tuple(upstream.servers)
    decided, foresight = _foresee(upstream, servers, key, route)
    if hooked:
        decided = Decided.HOOK
    known = decided in (Decided.COOKIE, Decided.POLICY, Decided.NOBODY)
    return Explanation(
        decided=decided,
        outlooks=tuple(_outlook(server, foresight, known) for server in servers),
    )


def _foresee(
    upstream: Upstream, servers: tuple[Server, ...], key: bytes, route: str
) -> tuple[Decided, Foresight]:
    named = upstream.by_route(route) if route else None
    if named is not None and named.usable:
        return Decided.COOKIE, certain(named)
    for backup in (False, True):
        usable = [server for server in servers if server.usable and server.backup is backup]
        if usable:
            return Decided.POLICY, usable[0].policy.foresee(usable, key)
    return Decided.PANIC if upstream.panicking else Decided.NOBODY, {}


def _outlook(server: Server, foresight: Foresight, known: bool) -> Outlook:
    prospect = foresight.get(server)
    chance = 0.0 if prospect is None else prospect.chance
    why_not = server.why_not
    if why_not is None and not chance:
        why_not = _passed_over(server, foresight)
    return Outlook(
        server=server,
        why_not=why_not if known or server.why_not else None,
        score=None if prospect is None else prospect.score,
        chance=chance if known else None,
    )


def _passed_over(server: Server, foresight: Foresight) -> str:
    """Why a server that is well is not chosen."""
    if server in foresight and foresight[server].score is not None:
        return "another one has a better score"
    if server.backup and any(not other.backup for other in foresight):
        return "it is a backup, and others can serve"
    return "the request belongs to another one"
