from math import inf

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.net.deadlines import TICK, Deadlines


class Waiter:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadline = inf
        self.due = inf
        self.passed: list[float] = []

    def deadline_passed(self) -> None:
        self.passed.append(self.clock.seconds())


class DeadlinesTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1234.56)
        self.deadlines = Deadlines(self.clock)

    def waiter(self) -> Waiter:
        return Waiter(self.clock)

    def pass_time(self, seconds: float, step: float = 0.01) -> None:
        self.clock.pump([step] * round(seconds / step))

    def test_never_early_and_at_most_a_tick_late(self) -> None:
        """Whatever the wait, its end is told within one tick after it, once."""
        for delay in (0.0, 0.001, 0.1, TICK, 0.3, 1.0, 7.77):
            waiter = self.waiter()
            due = self.clock.seconds() + delay
            self.deadlines.set(waiter, delay)
            self.pass_time(delay + 2 * TICK)
            [when] = waiter.passed
            self.assertGreaterEqual(when, due)
            self.assertLessEqual(when, due + TICK + 0.011)

    def test_moved_away(self) -> None:
        """A wait that is set anew each time it is half over never ends."""
        waiter = self.waiter()
        for _ in range(20):
            self.deadlines.set(waiter, 1.0)
            self.pass_time(0.5)
        self.assertEqual(waiter.passed, [])
        self.pass_time(0.5 + 2 * TICK)
        self.assertEqual(len(waiter.passed), 1)

    def test_moved_closer(self) -> None:
        """A wait that is set to a shorter one ends after the shorter one."""
        waiter = self.waiter()
        self.deadlines.set(waiter, 100.0)
        self.deadlines.set(waiter, 1.0)
        self.pass_time(1.0 + 2 * TICK)
        self.assertEqual(len(waiter.passed), 1)

    def test_closer_than_all_others(self) -> None:
        """A new wait is told in time although a longer one was there first."""
        self.deadlines.set(self.waiter(), 100.0)
        waiter = self.waiter()
        self.deadlines.set(waiter, 0.5)
        self.pass_time(0.5 + 2 * TICK)
        self.assertEqual(len(waiter.passed), 1)

    def test_cleared(self) -> None:
        """A cleared wait is not told, and may be set again."""
        waiter = self.waiter()
        self.deadlines.set(waiter, 1.0)
        self.deadlines.clear(waiter)
        self.pass_time(2.0)
        self.assertEqual(waiter.passed, [])
        self.deadlines.set(waiter, 1.0)
        self.pass_time(1.0 + 2 * TICK)
        self.assertEqual(len(waiter.passed), 1)

    def test_forgotten(self) -> None:
        """Nothing is left of a forgotten wait, not even a call later."""
        waiter = self.waiter()
        self.deadlines.set(waiter, 1.0)
        self.deadlines.forget(waiter)
        self.deadlines.forget(waiter)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")

    def test_nothing_left(self) -> None:
        """When the last wait is over no call later is left."""
        for delay in (0.1, 0.2, 5.0):
            self.deadlines.set(self.waiter(), delay)
        self.pass_time(6.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long_sleep(self) -> None:
        """After a sleep over many deadlines all are told, the soonest first."""
        order: list[float] = []
        for delay in (30.0, 10.0, 20.0):
            waiter = self.waiter()
            waiter.deadline_passed = lambda d=delay: order.append(d)  # type: ignore[method-assign]
            self.deadlines.set(waiter, delay)
        self.clock.advance(3600.0)
        self.assertEqual(order, [10.0, 20.0, 30.0])

    def test_far_deadlines_do_not_wake(self) -> None:
        """While the next deadline is far away the clock calls nobody."""
        self.deadlines.set(self.waiter(), 600.0)
        [call] = self.clock.getDelayedCalls()
        self.assertGreater(call.getTime(), self.clock.seconds() + 599)

    def test_set_again_when_told(self) -> None:
        """A wait may be set anew by its own end."""
        waiter = self.waiter()
        ends: list[float] = []

        def again() -> None:
            ends.append(self.clock.seconds())
            if len(ends) < 3:
                self.deadlines.set(waiter, 0.0)

        waiter.deadline_passed = again  # type: ignore[method-assign]
        self.deadlines.set(waiter, 0.0)
        self.pass_time(1.0)
        self.assertEqual(len(ends), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_end_forgets_others(self) -> None:
        """The end of one wait may forget others that end at the same time."""
        waiters = [self.waiter() for _ in range(10)]
        told: list[Waiter] = []

        def end(me: Waiter) -> None:
            told.append(me)
            for waiter in waiters:
                self.deadlines.forget(waiter)

        for waiter in waiters:
            waiter.deadline_passed = lambda me=waiter: end(me)  # type: ignore[method-assign]
            self.deadlines.set(waiter, 1.0)
        self.pass_time(2.0)
        self.assertEqual(len(told), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mistake_at_an_end(self) -> None:
        """An exception at the end of one wait is logged and spares the others."""
        bad, good = self.waiter(), self.waiter()
        bad.deadline_passed = lambda: 1 / 0  # type: ignore[assignment, method-assign]
        self.deadlines.set(bad, 1.0)
        self.deadlines.set(good, 1.0)
        self.pass_time(2.0)
        self.assertEqual(len(good.passed), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_thousands(self) -> None:
        """Of thousands each is told once, and never early."""
        waiters = [self.waiter() for _ in range(5000)]
        due = {}
        for number, waiter in enumerate(waiters):
            delay = (number * 7919 % 5000) / 1000
            due[waiter] = self.clock.seconds() + delay
            self.deadlines.set(waiter, delay)
        self.pass_time(5.0 + 2 * TICK, 0.02)
        for waiter in waiters:
            [when] = waiter.passed
            self.assertGreaterEqual(when, due[waiter])
            self.assertLessEqual(when, due[waiter] + TICK + 0.021)
