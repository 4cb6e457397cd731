"""
An exchange whose attempts are decided by the upstream's balancer hook.

Knows how an outcome of the hook is carried out in HTTP, and how a request is
written again; the rest is any exchange's, and nothing here is on the way of a
request without a hook.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause, Sent, failure_status
from dynbalance.balancer.hookoutcome import Declined, Exit, Failed, Fallback, Outcome, PeerChosen
from dynbalance.balancer.hookrequest import HttpRequest
from dynbalance.balancer.hookrun import HookRun
from dynbalance.balancer.place import OnlyThat, Place
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.http.buffered import BufferedExchange
from dynbalance.http.chunked import ChunkedDecoder
from dynbalance.http.exchange import Exchange
from dynbalance.http.request import parse_request
from dynbalance.http.requestbody import RequestBody
from dynbalance.http.tries import Tries

if TYPE_CHECKING:
    from dynbalance.balancer.server import Server
    from dynbalance.http.connection import ServerConnection
    from dynbalance.http.forwarded import Origin
    from dynbalance.http.front import Front
    from dynbalance.http.request import RequestHead
    from dynbalance.http.upstream import HttpUpstream

IN_A_ROW = 16
"""Attempts that may fail at once before all others have their turn."""

_YEAR = 365 * 86400.0
_NO_LIMIT = 2**31 - 1

Write = Callable[["RequestHead"], bytes]
"""What is sent to a server first for a head that was changed."""


def hooked(
    front: Front, to: HttpUpstream, head: RequestHead, origin: Origin, write: Write
) -> Exchange:
    """The exchange for a request to an upstream with a hook."""
    kind = _OfBuffered if head.length and to.spool is not None else _OfFlowing
    exchange = kind(front, to, head, write(head))
    exchange.follow_hook(origin, write)
    return exchange


class HookTries(Tries):
    """
    @ivar by_hook: whether the attempt under way goes where the hook said.
    """

    by_hook = False

    def judge(self, server: Server, cause: Cause, why: str) -> None:
        if self.by_hook:
            # Such servers are the hook's to judge.
            self.tried += (server,)
        else:
            super().judge(server, cause, why)


class HookedExchange(Exchange):
    """
    What both kinds have in common.  (Without slots, so that it can be a base
    beside another one.)
    """

    _run: HookRun
    _hook_tries: HookTries | None
    _outcome: Outcome | None
    _plain: HttpUpstream
    _origin: Origin
    _write: Write
    _in_a_row: int
    # While the hook waits; see L{dynbalance.net.deadlines.Timed}.
    deadline = inf
    due = inf

    def follow_hook(self, origin: Origin, write: Write) -> None:
        """To be called before L{start}, with what L{hooked} knows."""
        head, hook = self.head, self._to.hook
        assert hook is not None
        request = HttpRequest(
            method=head.method,
            target=head.target,
            fields=head.fields,
            client=origin.client,
            host=head.host,
            minor=head.minor,
            read_body=self._whole_body,
        )
        self._run = HookRun(hook, request, self._recreate)
        self._hook_tries = None
        self._outcome = None
        self._plain = self._to
        self._origin = origin
        self._write = write
        self._in_a_row = 0
        self._take_key()

    # Each attempt

    def _attempt(self) -> None:
        if self._lease is not None:
            # The end of a wait in the line, which was decided before.
            super()._attempt()
            return
        if self._in_a_row >= IN_A_ROW:
            self._waits_for = self._to.hub.callLater(0, self._go_on)
            return
        self._in_a_row += 1
        tries = self._hook_tries
        if tries is None:
            tries = self._tries = self._hook_tries = HookTries(self._to, self._begun)
            tries.left = self._run.hook.first_tries
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            decided = self._run.attempt(tries.left)
            if isinstance(decided, Deferred):
                self._waits_for = decided
                self._to.deadlines.set(self, self._run.hook.timeout)
                decided.addCallbacks(self._decided, self._given_up)
                return
            outcome = decided
        self._carry_out(outcome, tries)

    def deadline_passed(self) -> None:
        """The hook took too long."""
        waits, self._waits_for = self._waits_for, None
        assert waits is not None
        waits.cancel()
        self._run.overdue()
        self._answer(failure_status(Cause.TIMEOUT))

    def _given_up(self, failure: Failure) -> None:
        # Whoever cancelled the wait knows why.
        self._to.deadlines.forget(self)

    def _decided(self, outcome: Outcome) -> None:
        self._to.deadlines.forget(self)
        self._outcome = outcome
        self._go_on()

    def _go_on(self) -> None:
        self._waits_for = None
        self._in_a_row = 0
        if not self._over:
            self.start()

    def _carry_out(self, outcome: Outcome, tries: HookTries) -> None:
        if isinstance(outcome, Exit | Failed):
            self._answer(outcome.status)
        elif isinstance(outcome, Declined):
            tries.by_hook = False
            self._run.attempt_failed(Cause.ERROR)
            if self._may_retry(Cause.ERROR, Sent.NOTHING):
                self._try_again()
            else:
                self._answer(failure_status(Cause.ERROR))
        else:
            self._go(outcome, tries)

    def _go(self, outcome: PeerChosen | Fallback, tries: HookTries) -> None:
        to, timeouts = self._plain, self._run.timeouts
        changes: dict[str, Any] = {}
        for name, value in (
            ("connect_timeout", timeouts.connect),
            ("send_timeout", timeouts.send),
            ("read_timeout", timeouts.read),
        ):
            if value is not None:
                changes[name] = min(value, _YEAR)
        tries.by_hook = isinstance(outcome, PeerChosen)
        ask = None
        if isinstance(outcome, PeerChosen):
            if isinstance(to.upstream, StrictUpstream) and to.upstream.asks_for(outcome.server):
                ask = to.upstream
            else:
                self._lease = outcome.hold()
            tries.left += outcome.more_tries
            keepalive = outcome.keepalive
            if keepalive is not None:
                idle = min(keepalive.idle_timeout or _YEAR, _YEAR)
                changes["max_idle_time"] = max(idle, 0.001)
                changes["keepalive_requests"] = min(keepalive.max_requests or _NO_LIMIT, _NO_LIMIT)
        settings = evolve(to.settings, **changes) if changes else to.settings
        # A cookie would bring the client back to where the hook sent it once.
        sticky = None if tries.by_hook else to.sticky
        if changes or sticky is not to.sticky:
            to = to.variant(settings, sticky)
        self._to = to
        if ask is None or not isinstance(outcome, PeerChosen):
            super()._attempt()
            return
        place = self._waits_for = Place(ask, to.deadlines, OnlyThat(self))
        place.ask(ask, settings.queue_timeout, only=outcome.server)

    def chosen_is_full(self) -> None:
        """As if the hook's server had refused."""
        self._waits_for = None
        self._run.attempt_failed(Cause.ERROR)
        if self._may_retry(Cause.ERROR, Sent.NOTHING):
            self._try_again()
        else:
            self._answer(failure_status(Cause.ERROR))

    def connected(self, connection: ServerConnection) -> None:
        # One that was kept knows what held for its last request.
        connection.upstream = self._to
        super().connected(connection)

    def _works(self, server: Server) -> None:
        tries = self._hook_tries
        if tries is None or not tries.by_hook:
            super()._works(server)

    # Failing

    def _attempt_failed(self, cause: Cause, why: str, sent: Sent, stale: bool = False) -> None:
        if not self._responding:
            self._run.attempt_failed(cause)
        super()._attempt_failed(cause, why, sent, stale)

    def _discard(self, status: int) -> bool:
        cause = Cause.of_status(status)
        assert cause is not None
        self._run.attempt_failed(cause)
        return super()._discard(status)

    # The request, read and written again

    def _whole_body(self) -> bytes | None:
        body = self._body
        if body is None:
            return b""
        if not body.complete or not body.is_replayable:
            return None
        sent = body.so_far()
        return sent if self.head.length >= 0 else ChunkedDecoder().feed(sent)[0]

    def _recreate(self, block: bytes, body: bytes | None) -> None:
        head = parse_request(block)
        if body is not None:
            self._replace_body(body)
        self.head = head
        self._first = self._write(head)
        self._take_key()

    def _take_key(self) -> None:
        to = self._plain
        if to.upstream.wants_key:
            self.key = to.key(self.head, self._origin)

    def _replace_body(self, data: bytes) -> None:
        body = self._body = RequestBody(False, max(len(data), self._to.settings.body_buffer))
        body.add(data)
        body.end()


class _OfFlowing(HookedExchange):
    """Of a request whose body, if any, is passed on as it comes."""


class _OfBuffered(HookedExchange, BufferedExchange):
    """Of a request that is here before the hook is asked."""

    def _whole_body(self) -> bytes | None:
        body = self._spooled
        if not body.complete:
            return None
        pieces = [body.so_far()]
        while body.left:
            pieces.append(body.read())
        return b"".join(pieces)

    def _recreate(self, block: bytes, body: bytes | None) -> None:
        super()._recreate(block, body)
        self._state_length()

    def _replace_body(self, data: bytes) -> None:
        self._spooled.replace(data)
