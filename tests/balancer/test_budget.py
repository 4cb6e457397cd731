"""Retries as a share of the requests of the last ten seconds, and three a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.budget import RetryBudget
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import Upstream


class RetryBudgetTests(TestCase):
    """A budget of a fifth."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.3)
        self.budget = RetryBudget(0.2, self.clock.seconds)

    def spend(self, wanted: int = 10_000) -> int:
        """How many of so many retries are allowed now."""
        return sum(self.budget.allow_retry() for _ in range(wanted))

    def test_three_a_second(self) -> None:
        """Without requests there are three retries in each second."""
        for _ in range(5):
            self.assertEqual(self.spend(), 3)
            self.clock.advance(1)

    def test_share(self) -> None:
        """Of a thousand requests two hundred may be tried again, and three."""
        for _ in range(1000):
            self.budget.note_request()
        self.assertEqual(self.spend(), 203)
        self.assertEqual(self.spend(), 0)
        self.clock.advance(1)
        self.assertEqual(self.spend(), 3)

    def test_requests_count_for_ten_seconds(self) -> None:
        """What was not spent can be spent in the window, and is gone after it."""
        for wait, allowed in ((9, 203), (10, 3), (1000, 3)):
            budget = self.budget = RetryBudget(0.2, self.clock.seconds)
            budget.requests += 1000
            budget.turn()
            self.clock.advance(wait)
            self.assertEqual(self.spend(), allowed, wait)

    def test_retries_count_for_ten_seconds(self) -> None:
        """What was spent is missing as long as it is in the window."""
        self.budget.requests += 1000
        self.assertEqual(self.spend(), 203)
        for _ in range(9):
            self.clock.advance(1)
            self.budget.turn()
            self.budget.requests += 100
            self.assertEqual(self.spend(), 23)
        self.clock.advance(1)
        self.budget.turn()
        self.budget.requests += 100
        # 1,000 requests and 200 retries have left the window, 100 have come.
        self.assertEqual(self.spend(), 23)

    def test_without_turning(self) -> None:
        """Requests that nobody sorted for a long time are taken as spread evenly."""
        self.budget.requests += 60_000
        self.clock.advance(60)
        self.assertApproximates(self.spend(), 0.2 * 9_000 + 3, 1)

    def test_turned_by_the_upstream(self) -> None:
        """An upstream's tick keeps apart what was before and after a pause."""
        made = Upstream(
            "api", "least_conn", (), self.clock.seconds, lambda: 0.5,
            UpstreamOptions(retry_budget=0.5),
        )  # fmt: skip
        made.budget.note_request()
        made.budget.requests += 999
        made.tick()
        self.clock.advance(9)
        self.budget = made.budget
        self.assertEqual(self.spend(), 503)
        self.assertEqual(repr(made.budget), "<RetryBudget 500 retries of 1000 requests at 0.5>")

    def test_no_budget(self) -> None:
        """A share of 0 is no budget: everything is allowed."""
        self.budget = RetryBudget(0, self.clock.seconds)
        self.assertEqual(self.spend(), 10_000)

    @given(
        st.lists(
            st.tuples(st.floats(0, 3), st.integers(0, 300), st.integers(0, 100)), max_size=40
        )
    )
    def test_never_more_than_allowed(self, steps: list[tuple[float, int, int]]) -> None:
        """Over any time the retries stay below the share of the requests and three a second."""
        clock = Clock()
        budget = RetryBudget(0.2, clock.seconds)
        requests = allowed = 0
        for seconds, arriving, failing in steps:
            clock.advance(seconds)
            requests += arriving
            budget.requests += arriving
            allowed += sum(budget.allow_retry() for _ in range(failing))
            self.assertLessEqual(allowed, 0.2 * requests + 3 * (int(clock.seconds()) + 1))
