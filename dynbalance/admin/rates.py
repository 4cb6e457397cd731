"""
What the servers of an upstream do, in figures.

Pure.  Knows what was counted at the last few looks, and makes rates and times of
it; refuses to know who looks and who is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dynbalance.admin.answers import Json, Written, compact
from dynbalance.admin.crew import Counted, Lives
from dynbalance.admin.views import moment
from dynbalance.balancer.latency import BUCKETS, quantile
from dynbalance.balancer.upstream import Upstream

LOOKS = 10
"""Looks over which latencies are told: of one alone, p99 would be the slowest answer."""


class Rates:
    """Those of one upstream."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[str, Counted]]] = deque(maxlen=LOOKS)

    def look(self, lives: Lives, now: float) -> None:
        """@param now: in seconds."""
        self._looks.append((now, {key: live.counted for key, live in lives.items()}))

    def telling(self, upstream: Upstream, lives: Lives, now: float) -> Telling | None:
        """
        Connections now, the rest a second since the last look, and latencies over
        the last L{LOOKS}; this is a look, too.

        @return: C{None} when no time has passed.
        """
        since, last = self._looks[-1]
        if now <= since:
            return None
        looks = [look for _, look in self._looks]
        self.look(lives, now)
        return Telling(upstream, lives, looks, last, now - since)


class Telling:
    """
    Figures that are being told, server by server.

    @param looks: from the oldest on.
    @param last: the newest of them.
    @param seconds: since that one.
    """

    def __init__(
        self,
        upstream: Upstream,
        lives: Lives,
        looks: Sequence[Mapping[str, Counted]],
        last: Mapping[str, Counted],
        seconds: float,
    ) -> None:
        self._upstream = upstream
        self._lives = lives
        self._looks = looks
        self._last = last
        self._seconds = seconds
        self._times = [0] * BUCKETS

    def servers(self) -> Iterator[str]:
        """JSON of the members that are servers, in pieces."""
        for server in list(self._upstream.servers):
            live = self._lives.get(server.key)
            if live is None:
                continue
            counted = live.counted
            latency: dict[str, Json] = {}
            first = self._first(server.key, counted).times
            # Of many servers most have nothing to do.
            if first != counted.times:
                times = _since(counted.times, first)
                self._times = [sum(each) for each in zip(self._times, times, strict=True)]
                latency = _latency(times)
            fields: dict[str, Json] = {
                "connections": server.load,
                "node_connections": live.held,
                **_rates(counted, self._last.get(server.key, counted), self._seconds),
                "latency": latency,
            }
            yield f"{compact(server.key)}:{compact(fields)}"

    def whole(self, servers: Iterable[str]) -> Written:
        """@param servers: all that L{servers} gave."""
        head = compact({"waiting": self._upstream.waiting, "latency": _latency(self._times)})
        return Written(f'{head[:-1]},"servers":{{{",".join(servers)}}}}}')

    def _first(self, key: str, counted: Counted) -> Counted:
        """Of a server, at the oldest look that found it there; C{counted} before the first."""
        return next((look[key] for look in self._looks if key in look), counted)


def _since(now: Sequence[int], before: Sequence[int]) -> list[int]:
    """A worker that starts anew counts from 0."""
    return [max(0, count - was) for count, was in zip(now, before, strict=True)]


def _latency(times: Sequence[int]) -> dict[str, Json]:
    """Seconds; nothing when nothing was answered."""
    told: dict[str, Json] = {}
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        seconds = quantile(times, part)
        if seconds is not None:
            told[name] = round(seconds, 6)
    return told


def _rates(counted: Counted, last: Counted, seconds: float) -> dict[str, Json]:
    """What was counted in a second; likewise."""

    def rate(now: int, before: int) -> Json:
        return moment(max(0, now - before) / seconds)

    return {
        "requests": rate(counted.answers, last.answers),
        "picks": rate(counted.picks, last.picks),
        "errors": rate(counted.errors, last.errors),
        "bytes_in": rate(counted.bytes_in, last.bytes_in),
        "bytes_out": rate(counted.bytes_out, last.bytes_out),
    }
