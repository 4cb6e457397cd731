"""
Host names to what a socket connects to.

Knows caching, taking turns and looking again; asks a resolver, and refuses to
know what the addresses are for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import UnknownHostError
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from dynbalance.log import Logger
from dynbalance.net.dial import Target

if TYPE_CHECKING:
    from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IReactorTime

    from dynbalance.balancer.address import Address

NEGATIVE = 1.0
"""Seconds at most for which a name that was not found is not asked for again."""

KEPT = 3600.0
"""
Seconds for which the last answer is used while there is no other.  RFC 8767 has the
reasons and a day; HAProxy has half a minute (C{hold}), nginx C{resolve} forgets a name
that is denied, and keeps one that is not answered.
"""

UNUSED = 3600.0
"""Seconds for which a name that nobody asks for is looked up all the same: kept
connections ask for none."""

_LIMIT = 65536
"""Answers kept; with more servers than that each connection looks its own up."""


@define(slots=True, eq=False)
class _Answer:
    """
    What is known of one name.

    @ivar targets: in the resolver's order; none for an unknown name.
    @ivar until: when an unknown name is asked for again.
    @ivar found: when the targets were heard of last.
    @ivar used: when somebody asked last.
    @ivar moved: when one of them was left out last; C{None} for never.
    @ivar failing: whether the last question had no answer.
    @ivar turn: which of the targets is next.
    """

    targets: list[Target]
    until: float
    found: float
    used: float
    moved: float | None = None
    failing: bool = False
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

    def wait(self) -> Deferred[Target]:
        deferred: Deferred[Target] = Deferred(self.waiting.remove)
        self.waiting.append(deferred)
        return deferred

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to note: a wait is given up, not the question."""

    def addressResolved(self, address: Any) -> None:
        self.found.append(Target.of_twisted(address))

    def resolutionComplete(self) -> None:
        self.names.answered(self)


def _nobody(address: Address, targets: Collection[Target]) -> None:
    """For names in whose moves nobody is interested."""


class Names:
    """
    The targets of addresses.  Those of names are looked up again and again, and
    what was found last is used until something else is found: only who asks for a
    name first has to wait.

    @ivar moved: is called with an address and its targets after one was left out,
        and once more with each later answer for L{KEPT} seconds.
    """

    _log = Logger()

    def __init__(self, reactor: Any, clock: IReactorTime, ttl: float = 10.0) -> None:
        """
        @param reactor: has C{nameResolver}.
        @param ttl: seconds after which a name is looked up again; the system's
            resolver does not say how long an answer is good.
        """
        self._reactor = reactor
        self._clock = clock
        self._now = clock.seconds
        self._resolver: IHostnameResolver | None = None
        self._ttl = ttl
        self.moved: Callable[[Address, Collection[Target]], None] = _nobody
        # Ordered: a plain dict looks past all that was dropped to find its oldest.
        self._numeric: OrderedDict[Address, Target] = OrderedDict()
        self._answers: OrderedDict[Address, _Answer] = OrderedDict()
        self._questions: dict[Address, _Question] = {}

    def __repr__(self) -> str:
        return f"<Names {len(self._answers)} known, {len(self._questions)} asked>"

    def follow(self, resolver: IHostnameResolver | None, ttl: float) -> None:
        """
        Ask somebody else from now on.

        @param resolver: C{None} for the reactor's.
        """
        self._resolver, self._ttl = resolver, ttl

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
        answer = self._answers.get(address)
        if answer is not None:
            now = self._now()
            if answer.targets:
                answer.used = now
                return answer.next()
            if now < answer.until:
                return fail(UnknownHostError(string=address.host))
        elif address.is_numeric:
            try:
                target = Target.of(address)
            except OSError as failed:
                return fail(UnknownHostError(failed.errno, str(failed)))
            _keep(self._numeric, address, target)
            return target
        question = self._questions.get(address)
        if question is not None:
            return question.wait()
        question = _Question(self, address)
        # The answer may come at once.
        deferred = question.wait()
        self._ask(address, question)
        return deferred

    def _ask(self, address: Address, question: _Question) -> None:
        self._questions[address] = question
        resolver = self._resolver or self._reactor.nameResolver
        resolver.resolveHostName(question, address.host, address.port)

    def _again(self, address: Address, answer: _Answer) -> None:
        """Look a name up again, if it is still of use."""
        if self._answers.get(address) is not answer:
            return
        if self._now() - answer.used > UNUSED:
            del self._answers[address]
        elif address not in self._questions:
            self._ask(address, _Question(self, address))

    def answered(self, question: _Question) -> None:
        """The resolver has nothing more to say."""
        address, now = question.address, self._now()
        del self._questions[address]
        answer = self._answers.get(address)
        if answer is None or not answer.targets:
            until = now + min(NEGATIVE, self._ttl)
            answer = _Answer(question.found, until, now, now)
            self._answers.pop(address, None)
            _keep(self._answers, address, answer)
        elif question.found:
            self._found(address, answer, question.found)
        else:
            self._not_found(address, answer)
        if answer.targets:
            self._clock.callLater(self._ttl, self._again, address, answer)
        while question.waiting:
            # Who hears it may make others give up.
            deferred = question.waiting.pop(0)
            if answer.targets:
                deferred.callback(answer.next())
            else:
                deferred.errback(UnknownHostError(string=address.host))

    def _found(self, address: Address, answer: _Answer, targets: list[Target]) -> None:
        now = self._now()
        before, answer.targets, answer.found = answer.targets, targets, now
        if answer.failing:
            answer.failing = False
            self._log.info("{name} is found again", name=address.host)
        if set(before) != set(targets):
            self._log.info(
                "{name} is at {now} now; it was at {before}",
                name=address.host,
                now=_shown(targets),
                before=_shown(before),
            )
        if not set(before) <= set(targets):
            answer.moved = now
        if answer.moved is not None and now - answer.moved <= KEPT:
            self.moved(address, targets)

    def _not_found(self, address: Address, answer: _Answer) -> None:
        now = self._now()
        if now - answer.found > KEPT:
            answer.targets, answer.until = [], now + min(NEGATIVE, self._ttl)
            self._log.error(
                "{name} was not found for {kept:.0f} s: it has no address any more",
                name=address.host,
                kept=now - answer.found,
            )
        elif not answer.failing:
            answer.failing = True
            self._log.warn(
                "{name} is not found any more; it is taken to be at {at} still,"
                " for {kept:.0f} s at most",
                name=address.host,
                at=_shown(answer.targets),
                kept=KEPT,
            )


def _shown(targets: Collection[Target]) -> str:
    return ", ".join(sorted(target.sockaddr[0] for target in targets))


def _keep(cache: OrderedDict[Address, Any], address: Address, value: object) -> None:
    """Add to the cache, and drop its oldest when it is full."""
    if len(cache) >= _LIMIT:
        cache.popitem(last=False)
    cache[address] = value
