"""
The figures that are kept, and what has got worse since.

Knows ratios and how sure they are; refuses to know where they come from.
"""

from __future__ import annotations

import json
import statistics
from math import hypot, sqrt
from pathlib import Path

from attrs import asdict, frozen

PATH = Path(__file__).resolve().parents[1] / "kept.json"

LEAST = 0.03
"""A change that is smaller, as a share, is nobody's fault."""

BUSY = 0.1
"""With so much waiting nothing is sure: others' work costs Python more than nginx."""

_SURE = 3 * 1.2533 * 1.4826
"""Three standard errors of a median, from the median distance to it."""


@frozen
class Figure:
    """
    What a case costs.

    @ivar ratio: of our cost to nginx's, the median of the rounds.
    @ivar noise: how far from it the truth may well be.
    @ivar waited: the share of the time in which a balancer could have run, and
        others had its core.
    """

    ratio: float
    noise: float
    waited: float

    @classmethod
    def of(cls, ours: list[float], theirs: list[float], waited: float) -> Figure:
        """From rounds that took turns."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        middle = statistics.median(ratios)
        distance = statistics.median(abs(ratio - middle) for ratio in ratios)
        return cls(middle, _SURE * distance / sqrt(len(ratios)), waited)

    def margin(self, kept: Figure) -> float:
        """By how much it may differ from C{kept} by chance, as a share of that."""
        return max(LEAST, hypot(self.noise, kept.noise) / kept.ratio)


@frozen
class Verdict:
    """
    @ivar worse: whether the case costs more than it did.
    @ivar sure: whether others left the machine to us.
    @ivar text: for the table.
    """

    worse: bool
    sure: bool
    text: str


def judge(now: Figure, kept: Figure | None) -> Verdict:
    """Compare a case with what it did cost."""
    if kept is None:
        return Verdict(False, True, "nothing kept")
    change, margin = now.ratio / kept.ratio - 1, now.margin(kept)
    worse = change > margin
    sure = now.waited <= BUSY
    word = "WORSE" if worse else "better" if change < -margin else "as before"
    if worse and not sure:
        word = "worse, or the machine was busy"
    elif kept.waited > BUSY:
        word += " (kept on a busy machine: keep it anew)"
    said = f"{kept.ratio:.2f} kept, {change:+.0%}, noise {margin:.0%}: {word}"
    return Verdict(worse, sure, said)


def status(verdicts: list[Verdict]) -> int:
    """
    Of the command.

    @return: 0 when nothing got worse, 1 when something did, 2 when only a busy
        machine says so.
    """
    worse = [verdict for verdict in verdicts if verdict.worse]
    return 0 if not worse else 1 if any(verdict.sure for verdict in worse) else 2


def load(path: Path = PATH) -> dict[str, Figure]:
    """By the cases' names."""
    if not path.exists():
        return {}
    return {name: Figure(**each) for name, each in json.loads(path.read_text()).items()}


def save(figures: dict[str, Figure], path: Path = PATH) -> None:
    """Keep these, and those of other cases that were kept before."""
    rounded = {
        name: {key: round(value, 4) for key, value in asdict(figure).items()}
        for name, figure in (load(path) | figures).items()
    }
    path.write_text(json.dumps(rounded, indent=1) + "\n")
