"""
What this node knows of one upstream in the store.

Knows what is agreed, what has to be told and what was lost; refuses to know when
anything is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from dynbalance.balancer.upstream import Applied, Upstream
from dynbalance.store.asking import Asking
from dynbalance.store.contract import Snapshot
from dynbalance.store.reports import Report, SyncAnswer


class View:
    """
    What this node knows of one upstream in the store.

    @ivar asking: what asks the store about each choice, if it is asked.
    @ivar checked: whether what health checks have found counts here.
    @ivar snapshot: the last one applied; C{None} before the first.
    @ivar remembered: what an earlier process knew last, until the store or
        its absence says what to do with it.
    @ivar seen: the C{seq} of the last answer whose totals were applied.
    @ivar full: whether the next report has to tell everything.
    @ivar stale: whether the servers have to be loaded again whatever the
        revision says: after an outage the store may be another one.
    """

    __slots__ = (
        "_refused",
        "asking",
        "checked",
        "full",
        "remembered",
        "seen",
        "snapshot",
        "stale",
        "upstream",
    )

    def __init__(self, upstream: Upstream, checked: bool) -> None:
        self.upstream = upstream
        self.asking: Asking | None = None
        self.checked = checked
        self.snapshot: Snapshot | None = None
        self.remembered: Snapshot | None = None
        self.seen = 0
        self.full = True
        self.stale = True
        self._refused: set[str] = set()

    def restart(self) -> None:
        """Forget what was agreed: nobody knows what the store still has."""
        self.seen = 0
        self.full = True
        self.stale = True

    def report(self, number: int) -> Report:
        """
        What this node has to tell.

        @param number: of the call.
        """
        return Report(
            held=self.upstream.report(self.full),
            full=self.full,
            seen=self.seen,
            number=number,
            settled=number if self.asking is None else self.asking.settled(number),
            hungry=self.asking is not None and self.asking.hungry(),
        )

    def hear(self, report: Report, answer: SyncAnswer, sent: float) -> None:
        """
        Take over the counts of an answer to C{report}.

        @param sent: when that was.
        """
        if answer.late:
            return
        if answer.lapsed:
            # The totals are without our own numbers: of no use until the
            # store has taken these.
            self.full, self.seen = True, 0
            if self.asking is not None:
                self.asking.heard(True, sent)
            return
        self.upstream.acknowledge(report.held)
        self.upstream.apply_totals(answer.totals, answer.complete)
        self.full, self.seen = False, answer.seq
        if self.asking is not None:
            self.asking.seen = answer.seq
            self.asking.share(answer, report.hungry)
            self.asking.heard(False, sent)

    def is_behind(self, revision: int, era: str) -> bool:
        """Whether the servers have to be loaded."""
        known = self.snapshot
        return self.stale or known is None or (known.revision, known.era) != (revision, era)

    def lost_by(self, snapshot: Snapshot) -> Snapshot | None:
        """What the store knew once and does not any more; C{None} if that is not so."""
        known = self.snapshot or self.remembered
        # Without an era it was never agreed upon, and nothing is no loss.
        if known is None or not (known.era and known.revision):
            return None
        lost = known.era != snapshot.era or snapshot.revision < known.revision
        return known if lost else None

    def apply(self, snapshot: Snapshot) -> Applied:
        """
        Bring the live servers in line, if anything changed.

        @return: what changed; C{refused} holds only what is news.
        """
        applied = Applied()
        if self.is_behind(snapshot.revision, snapshot.era):
            applied = self.upstream.apply(snapshot)
            if self.checked:
                self._hear_checks(snapshot.unhealthy)
            self.stale = False
        self.snapshot = snapshot
        self.remembered = None
        news = tuple(line for line in applied.refused if line not in self._refused)
        self._refused.update(news)
        return evolve(applied, refused=news)

    def check(self, checked: bool) -> None:
        """Whether what health checks have found counts from now on."""
        if checked is not self.checked:
            self.checked = checked
            known = self.snapshot.unhealthy if self.snapshot is not None and checked else {}
            self._hear_checks(known)

    @property
    def is_empty(self) -> bool:
        """Whether this node carries nothing, and the store knows."""
        return not self.upstream.report(full=True)

    def _hear_checks(self, unhealthy: Mapping[str, str]) -> None:
        for server in self.upstream.servers:
            cause = unhealthy.get(server.key, "")
            if cause or server.checked_down:
                self.upstream.set_checked(server.key, bool(cause), cause)
