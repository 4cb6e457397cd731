"""
All upstreams at a glance.
"""

from __future__ import annotations

from collections import Counter

from dynbalance.admin.answers import Answer, Json
from dynbalance.admin.scene import Ask, Scene
from dynbalance.balancer.server import State
from dynbalance.balancer.upstream import Upstream


class Overview:
    """What this node knows; the store is not asked."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def upstreams(self, ask: Ask) -> Answer:
        told: list[Json] = [await self._one(upstream) for upstream in self._scene.balancer]
        return Answer("Success", told)

    async def _one(self, upstream: Upstream) -> Json:
        known = self._scene.membership.known(upstream.name)
        lives = (await self._scene.lives(upstream)).values()
        states = Counter(live.state.value for live in lives)
        return {
            "name": upstream.name,
            "policy": upstream.policy,
            "revision": known.revision if known is not None else 0,
            "servers": len(upstream.servers),
            "usable": states[State.UP.value],
            "states": dict(sorted(states.items())),
            "connections": sum(server.load for server in upstream.servers),
            "node_connections": sum(live.held for live in lives),
            "waiting": upstream.waiting,
            "panic": upstream.panicking,
        }
