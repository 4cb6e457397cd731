"""
How it goes with the store: whether it answers, since when, and if not, why.

Knows what became of the exchanges; refuses to know what they carry.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from twisted.internet.interfaces import IReactorTime

from dynbalance.balancer.latency import Times
from dynbalance.errors import StoreUnavailable


class Finding(Enum):
    """How the last exchange went."""

    UNTRIED = "untried"
    FINE = "fine"
    AWAY = "away"
    BROKEN = "broken"


class Contact:
    """
    @ivar exchanges: how long those took that went well.
    @ivar failures: of exchanges, by what they showed.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.exchanges = Times()
        self.failures = Counter({Finding.AWAY: 0, Finding.BROKEN: 0})
        self._clock = clock
        self._finding = Finding.UNTRIED
        self._why = "the store was not reached yet"
        self.begin()

    def __repr__(self) -> str:
        return f"<Contact {self._finding.value}>"

    def begin(self) -> None:
        """Time counts from here."""
        self._since = self._last = self._clock.seconds()

    @property
    def available(self) -> bool:
        """Whether the last exchange went well."""
        return self._finding is Finding.FINE

    @property
    def available_for(self) -> float:
        """Seconds since when every exchange went well; 0 while they fail."""
        return self._clock.seconds() - self._since if self.available else 0.0

    @property
    def stale_for(self) -> float:
        """Seconds since the last good exchange; 0 while they go well."""
        return 0.0 if self.available else self.synced_ago

    @property
    def synced_ago(self) -> float:
        """Seconds since the last good exchange, or since the start."""
        return self._clock.seconds() - self._last

    def require(self) -> None:
        """
        To be called before an order is given to the store: what it has has to
        be agreed upon first, for it may be about to be given back.

        @raise StoreUnavailable: the last exchange failed, or there was none.
        """
        if not self.available:
            raise StoreUnavailable(self._why)

    def lost(self, finding: Finding, why: str) -> bool:
        """
        An exchange failed.

        @return: whether it is news.
        """
        self._why = why
        self.failures[finding] += 1
        news, self._finding = self._finding is not finding, finding
        return news

    def found(self) -> float | None:
        """
        An exchange went well.

        @return: the seconds for which none did, if that is news.
        """
        before, self._finding = self._finding, Finding.FINE
        now = self._clock.seconds()
        away, self._last = now - self._last, now
        if before is Finding.FINE:
            return None
        self._since = now
        return None if before is Finding.UNTRIED else away
