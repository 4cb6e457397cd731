"""
Host names to what a socket connects to.

Knows caching and taking turns; asks the reactor's resolver, and refuses to
know what the addresses are for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import UnknownHostError
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from dynbalance.net.dial import Target

if TYPE_CHECKING:
    from twisted.internet.interfaces import IHostResolution, IReactorTime

    from dynbalance.balancer.address import Address

NEGATIVE = 1.0
"""Seconds at most for which a name that was not found is not asked for again."""

_LIMIT = 65536
"""Answers kept; with more servers than that each connection looks its own up."""


@define(slots=True, eq=False)
class _Answer:
    """
    What is known of one name.

    @ivar targets: in the resolver's order; none for an unknown name.
    @ivar until: when to ask again.
    @ivar turn: which of the targets is next.
    """

    targets: list[Target]
    until: float
    turn: int = 0

    def next(self) -> Target:
        self.turn += 1
        return self.targets[self.turn % len(self.targets)]


@implementer(IResolutionReceiver)
@define(slots=True, eq=False)
class _Question:
    """
    One name that is being asked for.

    @ivar waiting: who gets the answer.
    """

    names: Names
    address: Address
    waiting: list[Deferred[Target]] = field(factory=list)
    found: list[Target] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to note: a wait is given up, not the question."""

    def addressResolved(self, address: Any) -> None:
        self.found.append(Target.of_twisted(address))

    def resolutionComplete(self) -> None:
        self.names.answered(self)


class Names:
    """
    The targets of addresses; those of names are looked up, and kept for a while.

    @param reactor: has C{nameResolver}.
    @param clock: tells the time.
    @param ttl: seconds for which an answer is kept; the resolver does not
        say how long it is good.
    """

    def __init__(self, reactor: Any, clock: IReactorTime, ttl: float = 10.0) -> None:
        self._reactor = reactor
        self._now = clock.seconds
        self._ttl = ttl
        # Ordered: a plain dict looks past all that was dropped to find its oldest.
        self._numeric: OrderedDict[Address, Target] = OrderedDict()
        self._answers: OrderedDict[Address, _Answer] = OrderedDict()
        self._questions: dict[Address, _Question] = {}

    def __repr__(self) -> str:
        return f"<Names {len(self._answers)} known, {len(self._questions)} asked>"

    def target(self, address: Address) -> Target | Deferred[Target]:
        """
        Where C{address} is: at once if that is known, and of several targets
        of a name each in its turn.

        @return: the target, or a Deferred of it that fails with
            L{UnknownHostError} and may be cancelled.
        """
        target = self._numeric.get(address)
        if target is not None:
            return target
        if address.is_numeric:
            try:
                target = Target.of(address)
            except OSError as failed:
                return fail(UnknownHostError(failed.errno, str(failed)))
            _keep(self._numeric, address, target)
            return target
        answer = self._answers.get(address)
        if answer is not None and self._now() < answer.until:
            if answer.targets:
                return answer.next()
            return fail(UnknownHostError(string=address.host))
        return self._ask(address)

    def _ask(self, address: Address) -> Deferred[Target]:
        question = self._questions.get(address)
        new = question is None
        if question is None:
            question = self._questions[address] = _Question(self, address)
        waiting = question.waiting
        deferred: Deferred[Target] = Deferred(waiting.remove)
        waiting.append(deferred)
        if new:
            self._reactor.nameResolver.resolveHostName(question, address.host, address.port)
        return deferred

    def answered(self, question: _Question) -> None:
        """The resolver has nothing more to say."""
        address = question.address
        del self._questions[address]
        keep = self._ttl if question.found else min(NEGATIVE, self._ttl)
        answer = _Answer(question.found, self._now() + keep)
        self._answers.pop(address, None)
        _keep(self._answers, address, answer)
        while question.waiting:
            # Who hears it may make others give up.
            deferred = question.waiting.pop(0)
            if answer.targets:
                deferred.callback(answer.next())
            else:
                deferred.errback(UnknownHostError(string=address.host))


def _keep(cache: OrderedDict[Address, Any], address: Address, value: object) -> None:
    """Add to the cache, and drop its oldest when it is full."""
    if len(cache) >= _LIMIT:
        cache.popitem(last=False)
    cache[address] = value
