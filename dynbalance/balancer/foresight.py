"""
What a policy would choose, without choosing.

Pure: how likely each server is, by the rules of the policies.  Chance is
reckoned with, and not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from dynbalance.balancer.server import Server


@frozen(slots=True)
class Prospect:
    """
    @ivar score: by which the policy goes; C{None} where it goes by no number.
    @ivar chance: that the server is the next one chosen, 0 to 1.
    """

    score: float | None
    chance: float


Foresight = Mapping[Server, Prospect]
"""For usable servers of one tier; the others have no prospect."""


def certain(server: Server) -> Foresight:
    """This one and no other, for a reason that is no number."""
    return {server: Prospect(None, 1.0)}


def highest_current(servers: Sequence[Server]) -> Foresight:
    """Smooth weighted round robin: the first of those with the highest weight now."""
    scores = {server: server.current + server.effective for server in servers}
    best = max(scores, key=lambda server: scores[server])
    return {s: Prospect(score, float(s is best)) for s, score in scores.items()}


def least_load(servers: Sequence[Server]) -> Foresight:
    """The least loaded, and among equals as their weights are."""
    loads = {server: server.load / server.pull for server in servers}
    least = min(loads.values())
    share = sum(server.pull for server, load in loads.items() if load == least)
    return {
        server: Prospect(load, server.pull / share if load == least else 0.0)
        for server, load in loads.items()
    }


def better_of_two(scores: Mapping[Server, float]) -> Foresight:
    """
    Two are drawn as their weights are; the lower score wins, and of equals the
    second.

    @param scores: of at least one server.
    """
    total = sum(server.pull for server in scores)
    if len(scores) == 1:
        return {server: Prospect(score, 1.0) for server, score in scores.items()}
    drawn = {server: server.pull / total for server in scores}
    # How often a server comes second after this one, for its share.
    after = {server: share / (1 - share) for server, share in drawn.items()}
    prospects: dict[Server, Prospect] = {}
    worse_drawn = worse_after = 0.0
    for group in _groups(scores):
        alike = sum(after[server] for server in group)
        for server in group:
            share = drawn[server]
            beaten = worse_drawn / (1 - share) + worse_after + alike - after[server]
            prospects[server] = Prospect(scores[server], share * beaten)
        worse_drawn += sum(drawn[server] for server in group)
        worse_after += alike
    return prospects


def _groups(scores: Mapping[Server, float]) -> Iterable[list[Server]]:
    """The servers with the same score, the worst ones first."""
    by_score: dict[float, list[Server]] = {}
    for server, score in scores.items():
        by_score.setdefault(score, []).append(server)
    return [by_score[score] for score in sorted(by_score, reverse=True)]
