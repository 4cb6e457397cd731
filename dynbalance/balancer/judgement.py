"""
What failures and successes of real traffic say of a server, as in nginx.

A server that failed C{max_fails} times is out for C{fail_timeout} seconds.
Then one request is let through to it, the probe, while the others go on
elsewhere: its success brings the server back, its failure costs as long again.
Without a probe no success forgives anything, so that failures add up.

Knows C{max_fails} and C{fail_timeout}; refuses to know which outcomes count as
failures, which is decided in L{dynbalance.balancer.attempts}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush

from dynbalance.balancer.server import Server


class Judgement:
    """
    The passive judgement over the servers of one upstream.

    @ivar out: a heap of (when it may be probed, key, server): empty while no
        server is out, so that a choice costs no look at the clock.  An entry
        may be out of date; the server tells when its turn comes.
    """

    __slots__ = ("_alone", "_changed", "_now", "out")

    def __init__(self, now: Callable[[], float], changed: Callable[[], None]) -> None:
        """
        @param now: seconds that never run backwards.
        @param changed: is called when a server is taken out or let in.
        """
        self.out: list[tuple[float, str, Server]] = []
        self._now = now
        self._changed = changed
        self._alone = True

    def failed(self, server: Server) -> bool:
        """
        An attempt on the server failed in a way that counts.

        @return: whether that took the server out.
        """
        server.failures += 1
        if not server.max_fails or server.removed:
            return False
        server.fails += 1
        server.accessed = server.checked = self._now()
        lost = server.weight // server.max_fails
        server.effective = max(0, server.effective - lost)
        was_out = server.failed
        if self.is_condemned(server):
            self._take_out(server)
        return server.failed and not was_out

    def succeeded(self, server: Server) -> bool:
        """
        An attempt on the server succeeded.

        @return: whether that brought the server back.
        """
        # Only a success that follows a probe proves anything: others may have
        # begun before the failure, or be the lucky ones of a flapping server.
        if not server.fails or server.accessed >= server.checked:
            return False
        was_out = self.is_condemned(server)
        server.fails = 0
        self._let_in(server)
        return was_out

    def picked(self, server: Server) -> None:
        """A server with failures was chosen; this may be its probe."""
        now = self._now()
        if server.checked + server.fail_timeout < now:
            server.checked = now
            if self.is_condemned(server):
                # The others wait for what the probe finds.
                self._take_out(server)

    def let_probe(self) -> None:
        """Make usable again whose C{fail_timeout} has passed, for one probe each."""
        now = self._now()
        out = self.out
        while out and out[0][0] < now:
            _, key, server = heappop(out)
            if not server.failed:
                continue
            due = server.checked + server.fail_timeout
            if due < now:
                self._let_in(server)
            else:
                heappush(out, (due, key, server))

    def forget(self, server: Server) -> None:
        """The server was removed; when it comes again it begins anew."""
        server.fails = 0
        self._let_in(server)

    def arrange(self, servers: Collection[Server]) -> None:
        """Hear which servers there are now, with what C{max_fails} and C{fail_timeout}."""
        self._alone = len(servers) == 1
        for server in servers:
            if server.failed and not self.is_condemned(server):
                self._let_in(server)
        self.out[:] = [
            (server.checked + server.fail_timeout, server.key, server)
            for server in servers
            if server.failed
        ]
        heapify(self.out)

    def is_condemned(self, server: Server) -> bool:
        """Whether its failures keep a server out; a probe may be let through."""
        # As in nginx, the only server is never taken out: it would help nobody.
        return 0 < server.max_fails <= server.fails and not self._alone

    def _take_out(self, server: Server) -> None:
        if not server.failed:
            server.failed = True
            heappush(self.out, (server.checked + server.fail_timeout, server.key, server))
        self._changed()
        server.settle()

    def _let_in(self, server: Server) -> None:
        """Give back a place that failures have taken; what was ordered still holds."""
        server.failed = False
        self._changed()
        server.settle()
