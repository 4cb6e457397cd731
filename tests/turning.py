"""
A clock for work in slices.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from dynbalance.slices import SLICE


class TurningClock(Clock):
    """Turns as a reactor does: what a turn asks for is done in a later one."""

    def turn(self) -> None:
        """One turn."""
        now = self.rightNow
        due = [call for call in self.calls if call.getTime() <= now]
        self.calls = [call for call in self.calls if call not in due]
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


class SlowClock(TurningClock):
    """Half a slice has passed each time that somebody looks."""

    def seconds(self) -> float:
        self.rightNow += SLICE / 2
        return super().seconds()
