"""
What the answers to health checks mean: streaks, and when they tip.

Pure: knows numbers of good and bad answers in a row; refuses to know what was
asked, of whom, and when.
"""

from __future__ import annotations

from attrs import frozen


@frozen(slots=True)
class Finding:
    """
    What one check found.

    @ivar cause: why the answer was bad; empty for a good one.
    @ivar of_server: whether anything was found of the server; not when this
        process had no means to ask.
    """

    cause: str = ""
    of_server: bool = True

    @property
    def good(self) -> bool:
        return not self.cause


class Judge:
    """
    One server's streaks.

    @ivar down: whether the server is out.
    """

    __slots__ = ("_fails", "_passes", "_streak", "down")

    def __init__(self, passes: int, fails: int, down: bool = False) -> None:
        """
        @param passes: good answers in a row that bring a server back.
        @param fails: bad answers in a row that take it out.
        @param down: what others have concluded before.
        """
        self.down = down
        self._passes = passes
        self._fails = fails
        # Answers in a row that speak against the present state.
        self._streak = 0

    def hear(self, finding: Finding) -> bool:
        """@return: whether that has changed the state."""
        if not finding.of_server:
            return False
        if finding.good is not self.down:
            self._streak = 0
            return False
        self._streak += 1
        if self._streak < (self._passes if self.down else self._fails):
            return False
        self._streak = 0
        self.down = not self.down
        return True

    def __repr__(self) -> str:
        return f"<Judge {'down' if self.down else 'up'} {self._streak} against>"
