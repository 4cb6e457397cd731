"""
One request in twenty goes to the new version.

    [upstreams.default]
    balancer = "canary:choose"

The new version is no server of the upstream, so that nothing else sends
anything there.  Where it fails, the request has one more attempt, with the
upstream's own servers.  A tester gets there every time with the field
X-Canary: 1.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random

from dynbalance.balancer.hook import HttpContext


class Canary:
    """
    A hook with a state of its own: anything that can be called is a hook.

    @param peer: where the new version listens.
    @param share: of the requests, 0 to 1.
    @param random: a number in [0, 1).
    """

    def __init__(self, peer: str, share: float, random: Callable[[], float]) -> None:
        self._peer = peer
        self._share = share
        self._random = random

    def __call__(self, balancer: HttpContext) -> None:
        if balancer.attempt > 1:
            return
        wanted = balancer.request.headers.get("X-Canary") == "1"
        if wanted or self._random() < self._share:
            balancer.set_current_peer(self._peer)
            balancer.set_more_tries(1)


choose = Canary("127.0.0.1:9100", 0.05, random)
