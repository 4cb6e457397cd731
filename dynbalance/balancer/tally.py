"""
What is counted of an upstream beside what its servers carry: what failed, what
was tried again, who waited, and what the servers had done that are gone.

Knows numbers, each of which only grows; refuses to know who reads them.  Nothing
here is on the way of a request that goes well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from dynbalance.balancer.latency import Times
from dynbalance.balancer.server import Server

CLIENT_GONE = 499
"""The status, as nginx has it, of who left before an answer."""


class Carried:
    """
    What some servers have done, together.

    @ivar picks, failures, responses, bytes_in, bytes_out, times, connects: see
        L{Server}.
    """

    __slots__ = (
        "bytes_in", "bytes_out", "connects", "failures", "picks", "responses", "times",
    )  # fmt: skip

    def __init__(self) -> None:
        self.picks = self.failures = self.bytes_in = self.bytes_out = 0
        self.responses = [0, 0, 0, 0, 0, 0]
        self.times = Times()
        self.connects = Times()

    def add(self, other: Server | Carried) -> None:
        """What another has done, too."""
        self.picks += other.picks
        self.failures += other.failures
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        pairs = zip(self.responses, other.responses, strict=True)
        self.responses = [mine + its for mine, its in pairs]
        self.times.add(other.times)
        self.connects.add(other.connects)

    def adding(self, servers: Iterable[Server]) -> Iterator[None]:
        """What each of these has done, too, one after the other."""
        for server in servers:
            self.add(server)
            yield

    def __repr__(self) -> str:
        return f"<Carried {self.picks} picks, {self.bytes_in} bytes in, {self.bytes_out} out>"


class Tally:
    """
    @ivar failed: attempts that failed, by the name of the
        L{Cause<dynbalance.balancer.attempts.Cause>}.
    @ivar retries: attempts that followed another one, by what made them
        necessary: likewise, or C{stale} for a kept connection that was dead.
    @ivar unanswered: requests and streams that got nothing of a server, by the
        status that the client got instead; L{CLIENT_GONE} for none.
    @ivar waits: of those in the line that got a slot.
    @ivar vain: those in the line that got none in time.
    @ivar turned_away: those for whom there was no place in the line.
    """

    __slots__ = (
        "_past", "_servers", "failed", "retries", "turned_away", "unanswered", "vain", "waits",
    )  # fmt: skip

    def __init__(self, servers: Callable[[], Iterable[Server]]) -> None:
        """@param servers: those that are there."""
        self._servers = servers
        # The usual ones are told before the first, or their rate would miss it.
        self.failed: Counter[str] = Counter({"error": 0, "timeout": 0})
        self.retries: Counter[str] = Counter({"error": 0, "timeout": 0})
        self.unanswered: Counter[int] = Counter({502: 0, 504: 0})
        self.waits = Times()
        self.vain = 0
        self.turned_away = 0
        self._past = Carried()

    def remember(self, gone: Iterable[Server]) -> None:
        """Servers will not be there any more; the sums stay."""
        for server in gone:
            self._past.add(server)

    @property
    def carried(self) -> Carried:
        """What the servers have done, those included that are gone."""
        both, adding = self.adding()
        for _ in adding:
            pass
        return both

    def adding(self) -> tuple[Carried, Iterator[None]]:
        """
        Likewise, in pieces.  A server that is forgotten meanwhile is there once.

        @return: what has everything when the iterator is at its end.
        """
        both = Carried()
        both.add(self._past)
        return both, both.adding(list(self._servers()))

    def __repr__(self) -> str:
        return f"<Tally {sum(self.failed.values())} failed, {sum(self.retries.values())} retries>"
