"""
A session whose attempts are decided by the upstream's balancer hook.

Knows how an outcome of the hook is carried out for a connection; how bytes are
moved is still the two kinds' of sessions, each of which has one of this sort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynbalance.balancer.attempts import Cause, failure_status
from dynbalance.balancer.hookoutcome import Declined, Exit, Failed, Fallback, Outcome, PeerChosen
from dynbalance.balancer.hookrequest import StreamRequest
from dynbalance.balancer.hookrun import HookRun
from dynbalance.balancer.place import OnlyThat, Place
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.stream.leaving import LOOK
from dynbalance.stream.session import Session

if TYPE_CHECKING:
    from dynbalance.balancer.server import Server
    from dynbalance.stream.options import StreamOptions

IN_A_ROW = 16
"""Attempts that may fail at once before all others have their turn."""

_YEAR = 365 * 86400.0


class HookedSession(Session):
    """
    What both kinds have in common.  (Without slots, so that it can be a base
    beside another one.)
    """

    _run: HookRun
    _outcome: Outcome | None
    _plain: StreamOptions
    _by_hook: bool
    _in_a_row: int
    _asked_until: float | None

    def start(self) -> None:
        """As any session's, with the hook's tries."""
        hook = self.options.hook
        assert hook is not None
        peer, here = self.ends()
        request = StreamRequest(
            client=self.client,
            client_port=getattr(peer, "port", 0),
            local=str(getattr(here, "host", "")),
            local_port=getattr(here, "port", 0),
            server_name=self.server_name or None,
        )
        self._run = HookRun(hook, request)
        self._outcome = None
        self._plain = self.options
        self._by_hook = False
        self._in_a_row = 0
        self._asked_until = None
        self.upstream.budget.note_request()
        self._tries = hook.first_tries
        self._connect()

    def _attempt(self) -> bool:
        if self.lease is not None:
            # The end of a wait in the line, which was decided before.
            return super()._attempt()
        if self._in_a_row >= IN_A_ROW:
            self._lookup = self.listener.hub.callLater(0, self._go_on)
            return False
        self._in_a_row += 1
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            decided = self._run.attempt(self._tries)
            if isinstance(decided, Deferred):
                self._wait_for_hook(decided)
                return False
            outcome = decided
        return self._carry_out(outcome)

    def _wait_for_hook(self, decided: Deferred[Outcome]) -> None:
        deadlines, patience = self.listener.deadlines, self._run.hook.timeout
        self._lookup = decided
        self._asked_until = deadlines.now() + patience
        deadlines.set(self, min(LOOK, patience))
        decided.addCallbacks(self._decided, _given_up)

    def _decided(self, outcome: Outcome) -> None:
        self._asked_until = None
        self.listener.deadlines.clear(self)
        self._outcome = outcome
        self._go_on()

    def deadline_passed(self) -> None:
        """Also: time to look after the client, or the hook took too long."""
        if self._asked_until is None:
            super().deadline_passed()
            return
        left = self._asked_until - self.listener.deadlines.now()
        if left > 0:
            self._look_after_client(left)
        else:
            self._stop_calling()
            self._give_up(self._run.overdue(), failure_status(Cause.TIMEOUT))

    def _go_on(self) -> None:
        self._lookup = None
        self._in_a_row = 0
        self._connect()

    def _carry_out(self, outcome: Outcome) -> bool:
        """@return: as L{Session._attempt}."""
        self._by_hook = False
        if isinstance(outcome, Exit | Failed):
            why = "the balancer hook failed"
            if isinstance(outcome, Exit):
                why = f"the balancer hook said {outcome.status}"
                self.listener.no_server(self.upstream, why)
            self._give_up(why, outcome.status)
            return False
        if isinstance(outcome, Declined):
            self._failed = False
            self._attempt_failed(Cause.ERROR, "the balancer hook declined")
            failed, self._failed = self._failed, False
            return failed
        return self._go(outcome)

    def _go(self, outcome: PeerChosen | Fallback) -> bool:
        plain, timeouts = self._plain, self._run.timeouts
        self.options = evolve(
            plain,
            connect_timeout=min(timeouts.connect or plain.connect_timeout, _YEAR),
            timeout=min(timeouts.read or plain.timeout, _YEAR),
        )
        if isinstance(outcome, PeerChosen):
            self._by_hook = True
            self._tries += outcome.more_tries
            upstream = self.upstream
            if isinstance(upstream, StrictUpstream) and upstream.asks_for(outcome.server):
                deadlines = self.listener.deadlines
                place = self._place = Place(upstream, deadlines, OnlyThat(self))
                place.ask(upstream, self.options.queue_timeout, only=outcome.server)
                deadlines.set(self, LOOK)
                return False
            self.lease = outcome.hold()
        return super()._attempt()

    def chosen_is_full(self) -> None:
        """As if the hook's server had refused."""
        self._place = None
        self.listener.deadlines.clear(self)
        self._attempt_failed(Cause.ERROR, "the server that the balancer hook chose is full")

    def _judge(self, server: Server, failed: bool) -> None:
        # Servers that the hook named are the hook's to judge.
        if not self._by_hook:
            super()._judge(server, failed)

    def _attempt_failed(self, cause: Cause, why: str) -> None:
        self._run.attempt_failed(cause)
        super()._attempt_failed(cause, why)


def _given_up(failure: Failure) -> None:
    """Whoever cancelled the wait knows."""
