"""
Keeping what stays out of the garbage collector's way.

Of each server there are a dozen objects that the collector would walk over again and
again, with everything standing still meanwhile: 60 ms with ten thousand servers.  They
are freed without it when the server goes, since they hold each other in no circle.

Knows when there is much more of that than before; refuses to know what it is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

LEAST = 1000
"""Servers for which it is worth the while."""

GROWTH = 1.5
"""
How many times as many servers there are before it is done again: what is garbage
just then is kept for ever, so that shall be seldom.
"""


class Stays:
    """
    @ivar most: servers, when it was done last.
    """

    def __init__(
        self, count: Callable[[], int], freeze: Callable[[], object] = gc.freeze
    ) -> None:
        """
        @param count: how many servers there are.
        @param freeze: has the collector forget all that there is.
        """
        self.most = 0
        self._count = count
        self._freeze = freeze

    def __repr__(self) -> str:
        return f"<Stays: {self.most} servers>"

    def look(self) -> None:
        """The servers have changed."""
        servers = self._count()
        if servers >= max(LEAST, GROWTH * self.most):
            self.most = servers
            self._freeze()
