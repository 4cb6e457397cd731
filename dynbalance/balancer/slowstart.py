"""
Servers that are new or came back reach their weight by and by.

Knows when each one began and how far it is; refuses to know why it was out.
The weight grows in L{STEPS <dynbalance.balancer.server.STEPS>} equal steps,
from one of them to all.
"""

from __future__ import annotations

from collections.abc import Callable

from dynbalance.balancer.server import STEPS, Server


class SlowStart:
    """
    The slow starts of one upstream.

    @ivar seconds: how long one takes where the server's order does not say.
    """

    __slots__ = ("_begun", "_now", "seconds")

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        """
        @param seconds: 0 for none.
        @param now: seconds that never run backwards.
        """
        self.seconds = seconds
        self._now = now
        self._begun: dict[Server, float] = {}

    def begin(self, server: Server) -> None:
        """A server that is not with its policy yet starts now."""
        if server.policy.gradual and (server.slow_start or self.seconds):
            self._begun[server] = self._now()
            self._weigh(server, 1 / STEPS)

    def end(self, server: Server) -> None:
        """A server that is not with its policy any more does not start any more."""
        if self._begun.pop(server, None) is not None:
            self._weigh(server, 1)

    def end_all(self) -> None:
        """Likewise, of all that start now."""
        for server in list(self._begun):
            self.end(server)

    def move(self) -> None:
        """Let the weights grow as far as time has come."""
        if not self._begun:
            return
        now = self._now()
        for server, begun in list(self._begun.items()):
            seconds = server.slow_start or self.seconds
            step = int(STEPS * (now - begun) / seconds) if seconds else STEPS
            slow = max(1, step) / STEPS
            if slow >= 1:
                slow = 1
                del self._begun[server]
            if slow != server.slow:
                usable = server.usable
                if usable:
                    server.policy.leave(server)
                self._weigh(server, slow)
                if usable:
                    server.policy.enter(server)

    @staticmethod
    def _weigh(server: Server, slow: float) -> None:
        server.weigh(slow)
        server.policy.reweigh(server)
