"""
The attempts of one request under a balancer hook.

Knows the order of things: a context for each attempt, the hook's call, waiting
for what it awaits, and the outcome; and what persists from one attempt to the
next.  Refuses to know connections and the clock: it never does what it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause, RetryPolicy, failure_status
from dynbalance.balancer.hook import Context, Decision, Exited, HttpContext, StreamContext
from dynbalance.balancer.hookload import HookFunction
from dynbalance.balancer.hookoutcome import (
    Failed,
    Fallback,
    Outcome,
    PeerChosen,
    Timeouts,
    exit_outcome,
)
from dynbalance.balancer.hookrequest import HttpRequest, StreamRequest
from dynbalance.balancer.peers import Peers
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import BalancerError
from dynbalance.log import Logger

_CONTEXTS: dict[str, type[Context]] = {"http": HttpContext, "stream": StreamContext}

_PASSED_OVER = frozenset({Cause.HTTP_403, Cause.HTTP_404})
"""Answers that say nothing against the server (nginx's C{NGX_PEER_NEXT})."""

_NOT_RECREATED = "failed to recreate the upstream request"

Recreate = Callable[[bytes, bytes | None], None]
"""
Takes a request's new head, with its empty line, and its new body, C{None} for
the body as it was; from then on these are sent.  What it raises tells the hook
why not.
"""


@frozen(slots=True, kw_only=True)
class Hook:
    """
    An upstream's hook in one subsystem.

    @ivar call: what is called for each attempt.
    @ivar retry: the upstream's.
    @ivar timeout: seconds that each call may take to decide.
    """

    call: HookFunction
    upstream: Upstream
    peers: Peers
    subsystem: Literal["http", "stream"]
    retry: RetryPolicy = field(factory=RetryPolicy)
    timeout: float = 10.0
    log: Logger = field(factory=lambda: Logger(namespace="dynbalance.hook"))

    @property
    def first_tries(self) -> int:
        """
        The tries that a request begins with: the servers of the upstream that
        are not out, at most C{next_upstream_tries}.  An upstream without any
        server, whose hook knows where to go, counts like nginx's with its
        usual placeholder: 1.
        """
        upstream = self.upstream
        return self.retry.first_tries(upstream.tries if upstream.servers else 1)


class HookRun:
    """
    One request's, or one connection's, dealings with the hook.

    @ivar request: what the hook sees; the same over all attempts.
    @ivar ctx: the hook's own notes.
    @ivar attempts: calls of the hook so far.
    @ivar timeouts: what the hook has set for this request so far.
    @ivar last_failure: see L{Context.get_last_failure}.
    """

    __slots__ = ("_by_hook", "_recreate", "_state", "_status", "attempts", "ctx", "hook",
                 "request", "timeouts")

    def __init__(
        self,
        hook: Hook,
        request: HttpRequest | StreamRequest,
        recreate: Recreate | None = None,
    ) -> None:
        """@param recreate: takes over a changed request (HTTP)."""
        self.hook = hook
        # The context's subsystem says which of the two it is.
        self.request: Any = request
        self.ctx: dict[Any, Any] = {}
        self.attempts = 0
        self.timeouts = Timeouts()
        self._recreate = recreate
        self._by_hook = False
        self._state: str | None = None
        self._status = 0

    # From the subsystem

    def attempt(self, tries: int) -> Outcome | Deferred[Outcome]:
        """
        Call the hook for the next attempt.

        @param tries: that the request has left, with this attempt.
        @return: the outcome, or a Deferred of it when the hook waits for
            something.  Cancelling that gives the hook's wait up and fails
            with L{CancelledError}; nothing else makes it fail.
        """
        self.attempts += 1
        decision = Decision()
        context = _CONTEXTS[self.hook.subsystem](self, decision, tries)
        try:
            result = self.hook.call(context)
            work = None if result is None else _waited_for(result)
        except BaseException:  # noqa: BLE001 - whatever it is, it ends this request only
            return self.conclude(decision, Failure())
        if work is None:
            return self.conclude(decision, None)
        return _Wait(self, decision, work).begin()

    def attempt_failed(self, cause: Cause) -> None:
        """
        The attempt that the last outcome led to has failed.

        @param cause: C{Cause.ERROR} also when a kept connection had died and
            the next try is free.
        """
        if self.hook.subsystem == "http":
            self._status = failure_status(cause)
        if self._by_hook:
            self._state = "next" if cause in _PASSED_OVER else "failed"

    def overdue(self) -> str:
        """
        Say in the log that the hook's wait was given up for its length.

        @return: the same for people.
        """
        why = f"the balancer hook did not decide within {self.hook.timeout:g} s"
        self.hook.log.error(
            "{upstream}: {why}", upstream=self.hook.upstream.name, why=why, attempt=self.attempts
        )
        return why

    # From the context

    @property
    def last_failure(self) -> tuple[str, int] | None:
        return None if self._state is None else (self._state, self._status)

    def set_timeouts(
        self, connect: float | None, send: float | None, read: float | None
    ) -> None:
        """@param connect: seconds, as the others; C{None} for no change."""
        if self.hook.subsystem == "stream" and (send or read):
            send = read = max(send or 0.0, read or 0.0)
        old = self.timeouts
        self.timeouts = Timeouts(
            connect or old.connect, send or old.send, read or old.read
        )

    def recreate_request(self) -> None:
        """@raise BalancerError: the request says what cannot be sent."""
        request: HttpRequest = self.request
        if self._recreate is None:
            raise BalancerError(_NOT_RECREATED)
        head = request.head()
        try:
            self._recreate(head, request.replaced_body)
        except Exception as error:
            raise BalancerError(str(error) or _NOT_RECREATED) from error

    # The end of one call

    def conclude(self, decision: Decision, failure: Failure | None) -> Outcome:
        """
        The hook has ended; its context is dead from now on.

        @param failure: what it has raised.
        """
        decision.ended = True
        outcome = _outcome(decision, failure)
        self._by_hook = isinstance(outcome, PeerChosen)
        if isinstance(outcome, Failed):
            self.hook.log.failure(
                "failed to run the balancer hook of {upstream}: {why}",
                failure=outcome.failure,
                upstream=self.hook.upstream.name,
                attempt=self.attempts,
                why=outcome.failure.getErrorMessage(),
            )
        return outcome

    def __repr__(self) -> str:
        return f"<HookRun {self.hook.upstream.name} attempts={self.attempts}>"


def _outcome(decision: Decision, failure: Failure | None) -> Outcome:
    code = decision.code
    if failure is not None and (code is None or failure.check(Exited) is None):
        return Failed(failure)
    left = None if code is None else exit_outcome(code)
    if left is not None:
        return left
    if decision.server is None:
        return Fallback()
    return PeerChosen(
        server=decision.server, more_tries=decision.more_tries, keepalive=decision.keepalive
    )


def _waited_for(result: object) -> Deferred[Any] | None:
    """
    @return: C{None} for a result that means nothing.
    @raise TypeError: it is something to be waited for, but not here.
    """
    if isinstance(result, Deferred):
        return result
    if isinstance(result, Coroutine):
        return Deferred.fromCoroutine(result)
    if isinstance(result, Awaitable | Generator):
        kind = type(result).__name__
        raise TypeError(f"a hook is waited for as a coroutine or a Deferred, not as a {kind}")
    return None


class _Wait:
    """
    A hook that has not ended.

    @param work: ends with it.
    """

    __slots__ = ("_answer", "_cancelled", "_decision", "_outcome", "_run", "_work")

    def __init__(self, run: HookRun, decision: Decision, work: Deferred[Any]) -> None:
        self._run = run
        self._decision = decision
        self._work = work
        self._cancelled = False
        self._outcome: Outcome | None = None
        self._answer: Deferred[Outcome] | None = None

    def begin(self) -> Outcome | Deferred[Outcome]:
        """@return: the outcome itself if the hook did not have to wait."""
        self._work.addBoth(self._ended)
        if self._outcome is not None:
            return self._outcome
        self._answer = Deferred(self._cancel)
        return self._answer

    def _ended(self, result: object) -> None:
        failure = result if isinstance(result, Failure) else None
        if self._cancelled:
            if failure is not None and failure.check(CancelledError, Exited) is None:
                self._run.hook.log.failure(
                    "the balancer hook of {upstream} failed while it was given up",
                    failure=failure,
                    upstream=self._run.hook.upstream.name,
                )
            return
        outcome = self._run.conclude(self._decision, failure)
        if self._answer is None:
            self._outcome = outcome
        else:
            self._answer.callback(outcome)

    def _cancel(self, answer: Deferred[Outcome]) -> None:
        # A hook that goes on all the same finds its context ended.
        self._cancelled = True
        self._decision.ended = True
        self._work.cancel()
