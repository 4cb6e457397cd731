"""The attempts of one request under a hook: what persists, and hooks that wait."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.balancer.attempts import Cause
from dynbalance.balancer.hook import Context
from dynbalance.balancer.hookoutcome import Failed, Fallback
from dynbalance.errors import BalancerError
from tests.balancer.hooked import decided, now, peer, run


class OverAttemptsTests(TestCase):
    """What one attempt leaves to the next."""

    def test_ctx(self) -> None:
        """The dict is kept over the attempts of a request, and each has its own."""
        seen: list[int] = []

        def choose(balancer: Context) -> None:
            balancer.ctx["count"] = balancer.ctx.get("count", 0) + 1
            seen.append(balancer.ctx["count"])

        for _ in range(2):
            made = run(choose)
            for _ in range(3):
                decided(made.attempt(1))
        self.assertEqual(seen, [1, 2, 3, 1, 2, 3])

    def test_attempts(self) -> None:
        """Each call of the hook is counted, also one after a free try."""
        seen: list[int] = []
        made = run(lambda b: seen.append(b.attempt))
        decided(made.attempt(1))
        made.attempt_failed(Cause.ERROR)
        # The tries are the same: the connection had been kept and was dead.
        decided(made.attempt(1))
        self.assertEqual(seen, [1, 2])
        self.assertEqual(made.attempts, 2)
        self.assertEqual(repr(made), "<HookRun api attempts=2>")

    def test_free_try(self) -> None:
        """A dead kept connection is a failure to the hook: three calls for two requests."""
        seen: list[Any] = []

        def choose(balancer: Context) -> None:
            seen.append(balancer.get_last_failure())
            balancer.set_current_peer("127.0.0.2", 1)

        decided(run(choose).attempt(1))
        second = run(choose)
        tries = second.hook.first_tries
        decided(second.attempt(tries))
        second.attempt_failed(Cause.ERROR)
        tries = second.hook.retry.tries_after(tries, Cause.ERROR, reused=True)
        self.assertEqual(tries, 1)
        decided(second.attempt(tries))
        self.assertEqual(seen, [None, None, ("failed", 502)])


class FailingTests(TestCase):
    """Hooks that do not do their work."""

    def test_raises(self) -> None:
        """An exception is the outcome, logged once with its traceback; it is a 500."""

        def choose(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", 1)
            raise KeyError("tenant")

        for subsystem in ("http", "stream"):
            with capturedLogs() as events:
                outcome = now(run(choose, subsystem=subsystem).attempt(1))
            assert isinstance(outcome, Failed)
            self.assertEqual(outcome.status, 500)
            self.assertEqual([event["log_failure"] for event in events], [outcome.failure])
            self.assertEqual(events[0]["upstream"], "api")
            self.assertIn("test_hook_run.py", outcome.failure.getTraceback())
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_unread_address_error(self) -> None:
        """A refused call that the hook does not catch is such an exception."""
        outcome = now(run(lambda b: b.set_current_peer("a.example")).attempt(1))
        assert isinstance(outcome, Failed)
        self.assertEqual(str(outcome.failure.value), "no host allowed")
        self.assertEqual(len(self.flushLoggedErrors(BalancerError)), 1)

    def test_leaves_the_process(self) -> None:
        """Not even an exit of the process is one: it ends this request only."""

        def choose(balancer: Context) -> None:
            raise SystemExit(1)

        self.assertIsInstance(now(run(choose).attempt(1)), Failed)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_raises_after_exit(self) -> None:
        """An exception in place of the exit is what counts."""

        def choose(balancer: Context) -> None:
            try:
                balancer.exit(403)
            finally:
                raise KeyError("tenant")

        self.assertIsInstance(now(run(choose).attempt(1)), Failed)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_raises_while_waiting(self) -> None:
        """A hook that waits fails in the same way, and its Deferred does not."""
        gate: Deferred[None] = Deferred()

        async def choose(balancer: Context) -> None:
            await gate
            raise KeyError("tenant")

        waiting = run(choose).attempt(1)
        assert isinstance(waiting, Deferred)
        gate.callback(None)
        self.assertIsInstance(self.successResultOf(waiting), Failed)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_nobody_runs_it(self) -> None:
        """A generator, or what else is not for this reactor, is a mistake that is told."""

        def generator(balancer: Context) -> Generator[None, None, None]:
            balancer.set_current_peer("127.0.0.2", 1)
            yield

        class Foreign:
            def __await__(self) -> Generator[None, None, None]:
                yield

        for choose in (generator, lambda b: Foreign()):
            outcome = now(run(choose).attempt(1))
            assert isinstance(outcome, Failed)
            self.assertIn("a hook is waited for as", str(outcome.failure.value))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_dead_after_failure(self) -> None:
        """A context outlives neither its hook's end nor its failure."""
        kept: list[Any] = []

        def choose(balancer: Context) -> None:
            kept.append(balancer)
            raise KeyError("tenant")

        run(choose).attempt(1)
        self.assertRaises(BalancerError, kept[0].get_last_failure)
        self.flushLoggedErrors(KeyError)


class WaitingTests(TestCase):
    """Hooks that wait for something."""

    def test_plain(self) -> None:
        """Nothing waits for a plain function: the outcome is there at once."""
        self.assertEqual(now(run(lambda b: None).attempt(1)), Fallback())

    def test_ready_at_once(self) -> None:
        """Nor for a coroutine or a Deferred that had nothing to wait for."""

        async def coroutine(balancer: Context) -> None:
            balancer.set_current_peer("127.0.0.2", int(await succeed("7")))

        def deferred(balancer: Context) -> Deferred[None]:
            return succeed("7").addCallback(lambda p: balancer.set_current_peer("127.0.0.2", p))

        @inlineCallbacks
        def generator(balancer: Context) -> Generator[Any, Any, None]:
            port = yield succeed("7")
            balancer.set_current_peer("127.0.0.2", port)

        for choose in (coroutine, deferred, generator):
            self.assertEqual(peer(now(run(choose).attempt(1))), "127.0.0.2:7")

    def test_waits(self) -> None:
        """The outcome comes when the hook has ended, and its context lives so long."""
        clock = Clock()

        async def coroutine(balancer: Context) -> None:
            await deferLater(clock, 1)
            balancer.set_current_peer("127.0.0.2", 7)
            await deferLater(clock, 1)

        def deferred(balancer: Context) -> Deferred[None]:
            return deferLater(clock, 2).addCallback(
                lambda _: balancer.set_current_peer("127.0.0.2", 7)
            )

        for choose in (coroutine, deferred):
            waiting = run(choose).attempt(1)
            assert isinstance(waiting, Deferred)
            clock.advance(1)
            self.assertNoResult(waiting)
            clock.advance(1)
            self.assertEqual(peer(self.successResultOf(waiting)), "127.0.0.2:7")

    def test_slow_hook_holds_up_its_own_request(self) -> None:
        """Other requests go on meanwhile, each with its own state."""
        gates: list[Deferred[str]] = [Deferred(), Deferred()]
        taken = iter(gates)

        async def choose(balancer: Context) -> None:
            balancer.ctx["addr"] = await next(taken)
            balancer.set_current_peer(balancer.ctx["addr"], 1)

        first, second = run(choose).attempt(1), run(choose).attempt(1)
        assert isinstance(first, Deferred) and isinstance(second, Deferred)
        gates[1].callback("127.0.0.3")
        self.assertEqual(peer(self.successResultOf(second)), "127.0.0.3:1")
        self.assertNoResult(first)
        gates[0].callback("127.0.0.2")
        self.assertEqual(peer(self.successResultOf(first)), "127.0.0.2:1")

    def test_cancelled(self) -> None:
        """The client is gone: what the hook waits for is given up, nothing is logged."""
        cancelled: list[object] = []
        kept: list[Any] = []
        gate: Deferred[None] = Deferred(cancelled.append)

        async def choose(balancer: Context) -> None:
            kept.append(balancer)
            await gate

        waiting = run(choose).attempt(1)
        assert isinstance(waiting, Deferred)
        with capturedLogs() as events:
            waiting.cancel()
        self.assertEqual(cancelled, [gate])
        self.failureResultOf(waiting, CancelledError)
        self.assertRaises(BalancerError, kept[0].set_current_peer, "127.0.0.2")
        self.assertEqual(list(events), [])

    def test_hook_that_does_not_give_up(self) -> None:
        """A hook that goes on after that finds nobody, and its end changes nothing."""
        gate: Deferred[None] = Deferred()
        told: list[str] = []

        async def choose(balancer: Context) -> None:
            try:
                await Deferred()
            except CancelledError:
                await gate
            try:
                balancer.set_current_peer("127.0.0.2")
            except BalancerError as error:
                told.append(str(error))

        waiting = run(choose).attempt(1)
        assert isinstance(waiting, Deferred)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        gate.callback(None)
        self.assertEqual(told, ["API disabled in the current context"])

    def test_mistake_while_given_up(self) -> None:
        """What a hook does wrong on being given up is logged all the same."""

        async def choose(balancer: Context) -> None:
            try:
                await Deferred()
            except CancelledError:
                raise KeyError("tenant") from None

        waiting = run(choose).attempt(1)
        assert isinstance(waiting, Deferred)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_own_cancelling(self) -> None:
        """A hook that gives up its own wait, with nothing for it, has failed."""
        gate: Deferred[None] = Deferred()
        waiting = run(lambda b: gate).attempt(1)
        assert isinstance(waiting, Deferred)
        gate.cancel()
        self.assertIsInstance(self.successResultOf(waiting), Failed)
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
