"""
What a worker sees of its servers, as it is said over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import astuple

from dynbalance.admin.crew import Counted, Live, Lives, Matter
from dynbalance.balancer.server import State


def lives_to_json(lives: Lives) -> dict[str, Any]:
    """By the servers' keys."""
    return {
        key: [live.state.value, live.held, live.slow, live.why, astuple(live.counted)]
        for key, live in lives.items()
    }


def lives_from_json(data: Mapping[str, Any]) -> dict[str, Live]:
    """The reverse of L{lives_to_json}."""
    return {
        key: Live(
            state=State(state), held=held, slow=slow, why=why, counted=Counted(*counted)
        )
        for key, (state, held, slow, why, counted) in data.items()
    }


def matter_to_json(matter: Matter) -> list[Any]:
    """What a worker is asked to foretell a choice by."""
    return [matter.upstream, matter.key.decode("latin-1"), matter.route, matter.hooked]


def matter_from_json(data: list[Any]) -> Matter:
    """The reverse of L{matter_to_json}."""
    upstream, key, route, hooked = data
    return Matter(upstream, key.encode("latin-1"), route, hooked)
