"""
Which statuses are good.
"""

from __future__ import annotations

from attrs import frozen


@frozen(slots=True)
class Statuses:
    """
    @ivar ranges: first and last of each, both included.
    """

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Statuses:
        """
        @param text: such as C{200-299,304}.
        @raise ValueError: it is none, or a range ends before it begins.
        """
        ranges = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            ranges.append((int(first), int(last or first)))
            if ranges[-1][0] > ranges[-1][1]:
                raise ValueError(f"{part} ends before it begins")
        return cls(tuple(ranges))

    def __contains__(self, status: int) -> bool:
        return any(first <= status <= last for first, last in self.ranges)
