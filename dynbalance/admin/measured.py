"""
What there is to measure in a process.

Knows where the numbers stand; refuses to know who reads them, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import frozen

from dynbalance.balancer.balancer import Balancer
from dynbalance.inventory import Inventory
from dynbalance.lag import Lag
from dynbalance.store.membership import Membership


class Door(Protocol):
    """
    A listener, with what stands before it.

    @ivar kind: C{http} or C{stream}.
    @ivar listen: its endpoint.
    @ivar waiting: connections whose PROXY header or TLS is not done.
    @ivar broken_headers: see L{dynbalance.entrance.Entrance}.
    @ivar failed_handshakes: likewise.
    @ivar requests: likewise.
    @ivar bad_requests: likewise.
    @ivar unserved: likewise.
    """

    kind: str
    listen: str

    @property
    def listener(self) -> Counts: ...

    @property
    def waiting(self) -> int: ...

    @property
    def broken_headers(self) -> int: ...

    @property
    def failed_handshakes(self) -> int: ...

    @property
    def requests(self) -> int: ...

    @property
    def bad_requests(self) -> int: ...

    @property
    def unserved(self) -> int: ...


class Counts(Protocol):
    """
    What a listener counts.

    @ivar accepted: connections so far.
    @ivar rejected: others, closed for C{max_connections}.
    """

    accepted: int
    rejected: int

    @property
    def active(self) -> int:
        """Connections now."""


def no_doors() -> Iterable[Door]:
    """There are no listeners."""
    return ()


@frozen(slots=True, kw_only=True)
class Measured:
    """
    @ivar doors: the listeners there are now.
    @ivar lag: of the process's reactor, if somebody looks.
    @ivar inventory: likewise.
    """

    balancer: Balancer
    membership: Membership
    doors: Callable[[], Iterable[Door]] = no_doors
    lag: Lag | None = None
    inventory: Inventory | None = None
