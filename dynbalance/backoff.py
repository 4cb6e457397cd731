"""
How long to wait before something that ended is started again.

Knows numbers; refuses to know clocks and processes.
"""

from __future__ import annotations

FIRST_DELAY, LAST_DELAY = 0.1, 5.0
"""Seconds before it is started again: doubled each time, up to the last."""

STEADY = 10.0
"""Seconds after which it is taken to have run well."""


class BackOff:
    """The ends of one thing, in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def delay(self, lived: float) -> float:
        """
        It ended.

        @param lived: seconds that it had run.
        @return: seconds until it is to be started again.
        """
        if lived >= STEADY:
            self._failures = 0
        delay: float = min(LAST_DELAY, FIRST_DELAY * 2 ** min(self._failures, 10))
        self._failures += 1
        return delay
