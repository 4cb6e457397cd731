"""
Who serves, if it is not the process that the API is in.

Knows what the API asks of such processes, and makes one answer of theirs;
refuses to know how they are asked (L{dynbalance.workers}).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from attrs import astuple, field, frozen
from prometheus_client.metrics_core import Metric

from dynbalance.admin.answers import Answer
from dynbalance.balancer.latency import BUCKETS
from dynbalance.balancer.server import Server, State

_WORST_FIRST = list(State)


def _whole(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(numbers)


@frozen(slots=True)
class Counted:
    """
    What was counted of a server until now.

    @ivar answers: of any status.
    @ivar picks: how often it was chosen.
    @ivar errors: answers of 500 and above, and attempts that were judged failed.
    @ivar bytes_in: from clients to it.
    @ivar bytes_out: from it to clients.
    @ivar times: its answers by how long they took; see
        L{dynbalance.balancer.latency.BOUNDS}.
    """

    answers: int = 0
    picks: int = 0
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    times: tuple[int, ...] = field(default=(0,) * BUCKETS, converter=_whole)

    @classmethod
    def of(cls, server: Server) -> Counted:
        """By this process."""
        errors = server.failures + server.responses[5]
        carried = server.bytes_in, server.bytes_out
        times = tuple(server.times.counts)
        return cls(sum(server.responses), server.picks, errors, *carried, times)

    @classmethod
    def together(cls, counts: Iterable[Counted]) -> Counted:
        """By all of them."""
        return cls(*(_sum(each) for each in zip(*map(astuple, counts), strict=True)))


@frozen(slots=True, kw_only=True)
class Live:
    """
    What only those that serve can tell of a server.

    @ivar held: connections that are theirs.
    @ivar slow: the part of its weight that it has reached, 0 to 1.
    @ivar why: it gets no connection; C{None} when it may get one.
    """

    state: State
    held: int
    slow: float
    why: str | None
    counted: Counted = Counted()

    @classmethod
    def of(cls, server: Server) -> Live:
        """As this process sees it."""
        return cls(
            state=server.state,
            held=server.held,
            slow=server.slow,
            why=server.why_not,
            counted=Counted.of(server),
        )


def _sum(each: tuple[Any, ...]) -> Any:
    if isinstance(each[0], int):
        return sum(each)
    return tuple(map(sum, zip(*each, strict=True)))


Lives = Mapping[str, Live]
"""By the servers' keys."""


def together(by_worker: Mapping[int, Lives]) -> dict[str, Live]:
    """
    What all say, as one: connections added up, and for the rest the worst that
    any of them says, with its number if others say better.

    @param by_worker: what each says, by their numbers.
    """
    keys = {key for lives in by_worker.values() for key in lives}
    return {
        key: _one({number: lives[key] for number, lives in by_worker.items() if key in lives})
        for key in keys
    }


def _one(lives: Mapping[int, Live]) -> Live:
    worst = min(lives.values(), key=lambda live: _WORST_FIRST.index(live.state))
    why = worst.why
    whose = [number for number, live in sorted(lives.items()) if live.state is worst.state]
    if why and len(whose) < len(lives):
        why = f"{why} (worker {', '.join(map(str, whose))} of {len(lives)})"
    return Live(
        state=worst.state,
        held=sum(live.held for live in lives.values()),
        slow=min(live.slow for live in lives.values()),
        why=why,
        counted=Counted.together(live.counted for live in lives.values()),
    )


@frozen(slots=True)
class Matter:
    """
    What of a request matters to the choice of a server.

    @ivar upstream: its name.
    @ivar key: what the policy goes by; empty where it goes by none.
    @ivar route: what the sticky cookie says; empty without one.
    @ivar hooked: whether a hook decides.
    """

    upstream: str
    key: bytes
    route: str
    hooked: bool


class Crew(Protocol):
    """
    The processes.

    @ivar serving: how many do so now.
    """

    @property
    def serving(self) -> int: ...

    def traffic(
        self, is_known: Callable[[Mapping[str, str]], bool]
    ) -> Awaitable[Iterable[Metric]]:
        """
        What they all count.

        @param is_known: whether what has such labels still is.
        """

    def lives(self, upstream: str) -> Awaitable[Lives]:
        """What they see of an upstream's servers; nothing while none answers."""

    def see(self, upstream: str) -> Awaitable[None]:
        """Have them see at once what was changed; never fails."""

    def foretell(self, matter: Matter) -> Awaitable[Answer | None]:
        """What one of them would choose; C{None} if none can say."""
