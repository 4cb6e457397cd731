"""
What changes servers and what remains of it: updates, edits, and the history.

Plain values; what a change does to a server is said in
L{dynbalance.store.transitions}, and how it is kept by each store.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import fields, frozen

from dynbalance.store.contract import ENDLESS, Drain, Intent, ServerOrder, ServerRecord

HISTORY = 10_000
"""Lines of an upstream's history that are kept, or a few more."""

HEALTH_ACTIONS = frozenset({"unhealthy", "healthy"})
"""Lines that tell what a health check found: they change no server's order."""


@frozen(slots=True, kw_only=True)
class Update:
    """
    What is to become of a server's order; see L{ServerOrder
    <dynbalance.store.contract.ServerOrder>}.  C{None} leaves as it is.
    """

    weight: int | None = None
    max_conns: int | None = None
    heartbeat: bool | None = None
    backup: bool | None = None
    max_fails: int | None = None
    fail_timeout: float | None = None
    slow_start: float | None = None

    def items(self) -> Iterator[tuple[str, bool | int | float]]:
        """The names and values that are to change."""
        for each in fields(Update):
            value = getattr(self, each.name)
            if value is not None:
                yield each.name, value


@frozen(slots=True, kw_only=True)
class Edit:
    """
    How one server is to be.

    @ivar order: C{None}: it is to be no server.
    @ivar drain: of L{Intent.DRAIN}.
    """

    address: str
    order: ServerOrder | None
    intent: Intent = Intent.ENABLE
    drain: Drain = ENDLESS


@frozen(slots=True, kw_only=True)
class Change:
    """
    Edits of one upstream, made all together or not at all.

    @ivar only_at: the revision that they were made for; C{None} for any.
    """

    edits: tuple[Edit, ...]
    only_at: int | None = None


@frozen(slots=True, kw_only=True)
class Line:
    """
    One line of an upstream's history: one server, changed once.

    @ivar id: grows from line to line; C{MILLISECONDS-NUMBER}.
    @ivar at: when, in seconds of the store's clock.
    @ivar revision: to which the change led.  What was changed together has
        one revision, and a line for each server.
    @ivar part: which of these lines it is, from 1.
    @ivar by: who: a user, a token, an address, or the part of dynbalance.
    @ivar action: such as C{add} or C{expire}.
    @ivar before: the server before it; C{None} if it was none.
    @ivar after: likewise.
    @ivar cause: of L{HEALTH_ACTIONS}, what the check found.
    """

    id: str
    at: float
    revision: int
    part: int = 1
    by: str
    action: str
    address: str
    before: ServerRecord | None = None
    after: ServerRecord | None = None
    cause: str = ""


@frozen(slots=True, kw_only=True)
class History:
    """
    A part of the history.

    @ivar lines: those that were asked for.
    @ivar oldest: the C{id} of the oldest line that is kept; empty without one.
    """

    lines: tuple[Line, ...] = ()
    oldest: str = ""
