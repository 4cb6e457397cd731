"""
How many retries a group of servers can bear.

When many servers fail, each request that is tried again is one more request
for those that are left.  So retries may be a share of the requests of the last
seconds, and a few more each second, for groups with little traffic.

Knows numbers; refuses to know what a retry is made for.
"""

from __future__ import annotations

from collections.abc import Callable

WINDOW = 10
"""Seconds, in as many buckets, over which requests and retries are counted."""

FREE = 3
"""Retries in each second that cost nothing."""


class RetryBudget:
    """
    Retries as a share of the requests of the last L{WINDOW} seconds, and
    L{FREE} a second.

    @ivar share: of the requests that may be retried; 0 for no budget: every
        retry is allowed.
    @ivar refused: retries so far that were not allowed.
    @ivar requests: those since the buckets were turned last.  Whoever counts
        each request may add to it without a call.
    """

    __slots__ = (
        "_before", "_free", "_now", "_requested", "_retried", "_second", "refused", "requests",
        "share",
    )  # fmt: skip

    def __init__(self, share: float, now: Callable[[], float]) -> None:
        """@param now: seconds that never run backwards."""
        self.share = share
        self.requests = 0
        self.refused = 0
        self._before = 0
        self._now = now
        self._second = int(now())
        self._requested = [0.0] * WINDOW
        self._retried = [0] * WINDOW
        self._free = FREE

    def note_request(self) -> None:
        """A request begins.  Its retries are not requests."""
        self.requests += 1

    @property
    def total(self) -> int:
        """All requests so far."""
        return self._before + self.requests

    def turn(self) -> None:
        """
        Sort what was counted into the buckets.  To be called about once a
        second; when it was not, the requests are taken to have come evenly.
        """
        second = int(self._now())
        passed = second - self._second
        if passed <= 0:
            self._requested[self._second % WINDOW] += self.requests
        else:
            # The second in which this is called has hardly begun: nothing is its.
            each = self.requests / passed
            self._requested[self._second % WINDOW] += each
            for later in range(max(self._second + 1, second - WINDOW + 1), second + 1):
                self._requested[later % WINDOW] = each if later < second else 0.0
                self._retried[later % WINDOW] = 0
            self._second = second
            self._free = FREE
        self._before += self.requests
        self.requests = 0

    def allow_retry(self) -> bool:
        """
        Whether one more retry may be made; it is counted if so.
        """
        if not self.share:
            return True
        self.turn()
        if self._free:
            self._free -= 1
            return True
        if sum(self._retried) + 1 > self.share * sum(self._requested):
            self.refused += 1
            return False
        self._retried[self._second % WINDOW] += 1
        return True

    def __repr__(self) -> str:
        self.turn()
        return (
            f"<RetryBudget {sum(self._retried)} retries of"
            f" {sum(self._requested):.0f} requests at {self.share}>"
        )
