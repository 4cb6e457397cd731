"""
The table of what is served under C{/upstream/}.

Knows which parameters each endpoint takes and what it is for; refuses to know
how a request comes and what is done.
"""

from __future__ import annotations

from dynbalance.admin import parameters as p
from dynbalance.admin.api import Api, Endpoint
from dynbalance.admin.backup import Backups
from dynbalance.admin.caller import Role
from dynbalance.admin.explaining import Explaining
from dynbalance.admin.feed import Feed
from dynbalance.admin.guard import OPEN, Guard
from dynbalance.admin.happenings import Happenings
from dynbalance.admin.history import Histories
from dynbalance.admin.operations import Operations
from dynbalance.admin.overview import Overview
from dynbalance.admin.trail import NO_TRAIL, Trail

_GET, _POST, _BOTH = (b"GET",), (b"POST",), (b"GET", b"POST")

_ONE = (p.UPSTREAM,)
_SERVER = (p.PORT, p.HOST, p.UPSTREAM)

_ADDED = (
    *(p.WEIGHT, p.MAX_CONNS, p.HEARTBEAT, p.BACKUP),
    *(p.MAX_FAILS, p.FAIL_TIMEOUT, p.SLOW_START),
)
_UPDATED = (
    *(p.NEW_WEIGHT, p.NEW_MAX_CONNS, p.NEW_HEARTBEAT, p.NEW_BACKUP),
    *(p.NEW_MAX_FAILS, p.NEW_FAIL_TIMEOUT, p.NEW_SLOW_START),
)


class UpstreamApi(Api):
    """What is served under C{/upstream/}."""

    def __init__(
        self,
        operations: Operations,
        feed: Feed | None = None,
        guard: Guard = OPEN,
        trail: Trail = NO_TRAIL,
    ) -> None:
        """@param feed: where events can be told; not by the traffic listeners."""
        scene = operations.scene
        super().__init__(
            (
                *_servers(operations),
                *_upstreams(operations, Overview(scene)),
                *_past(Histories(scene)),
                *_backups(Backups(scene)),
                _events(Happenings(scene, feed)),
                _explain(operations.explaining),
            ),
            guard,
            trail,
        )


def _servers(operations: Operations) -> tuple[Endpoint, ...]:
    """What is about one server."""
    return (
        Endpoint(
            b"/upstream/add",
            _POST,
            (*_SERVER, *_ADDED),
            operations.add,
            "Register a server",
            needs=Role.AGENT,
        ),
        Endpoint(
            b"/upstream/update",
            _POST,
            (*_SERVER, *_UPDATED),
            operations.update,
            "Change what is ordered of a server while it serves",
            needs=Role.ADMIN,
        ),
        Endpoint(
            b"/upstream/remove",
            _POST,
            (*_SERVER, p.DRAIN),
            operations.remove,
            "Remove a server, at once or when it has drained",
            needs=Role.AGENT,
        ),
        Endpoint(
            b"/upstream/toggle",
            _POST,
            (*_SERVER, p.ACTION, p.DEADLINE, p.THEN),
            operations.toggle,
            "Enable, disable or drain a server",
            needs=Role.AGENT,
        ),
        Endpoint(
            b"/upstream/refresh",
            _POST,
            (*_SERVER, p.NEW_WEIGHT, p.DRAINING),
            operations.refresh,
            "Send a server's heartbeat",
            needs=Role.AGENT,
            is_routine=True,
        ),
    )


def _upstreams(operations: Operations, overview: Overview) -> tuple[Endpoint, ...]:
    """What is about all servers of an upstream."""
    return (
        Endpoint(
            b"/upstream/upstreams",
            _GET,
            (),
            overview.upstreams,
            "List the upstreams",
            needs=Role.READ,
        ),
        Endpoint(
            b"/upstream/status",
            _GET,
            _ONE,
            operations.status,
            "List the servers of an upstream",
            has_revision=True,
            needs=Role.READ,
        ),
        Endpoint(
            b"/upstream/health",
            _GET,
            _ONE,
            operations.health,
            "Count the servers that are alive",
            needs=Role.READ,
        ),
        Endpoint(
            b"/upstream/reset",
            _POST,
            _ONE,
            operations.reset,
            "Count the connections anew",
            needs=Role.ADMIN,
        ),
        Endpoint(
            b"/upstream/cleanup",
            _BOTH,
            _ONE,
            operations.cleanup,
            "Take out the servers that send no heartbeats",
            needs=Role.ADMIN,
        ),
    )


def _past(histories: Histories) -> tuple[Endpoint, ...]:
    """What is about earlier revisions."""
    return (
        Endpoint(
            b"/upstream/history",
            _GET,
            (p.UPSTREAM, p.LIMIT, p.BEFORE, p.ADDRESS),
            histories.history,
            "Tell who changed what, the newest first",
            needs=Role.READ,
        ),
        Endpoint(
            b"/upstream/rollback",
            _POST,
            (p.UPSTREAM, p.REVISION, p.DRY_RUN),
            histories.rollback,
            "Undo all changes made after a revision",
            needs=Role.ADMIN,
        ),
    )


def _explain(explaining: Explaining) -> Endpoint:
    return Endpoint(
        b"/upstream/explain",
        _GET,
        (p.UPSTREAM, p.URI, p.CLIENT, p.HEADER),
        explaining.explain,
        "Say which server a request would go to, and why not to the others",
        needs=Role.READ,
    )


def _events(happenings: Happenings) -> Endpoint:
    return Endpoint(
        b"/upstream/events",
        _GET,
        _ONE,
        happenings.events,
        "Tell what happens to the servers while it happens",
        produces="text/event-stream",
        needs=Role.READ,
    )


def _backups(backups: Backups) -> tuple[Endpoint, ...]:
    """What is about the membership as a document."""
    return (
        Endpoint(
            b"/upstream/export",
            _GET,
            (p.UPSTREAM, p.ALL),
            backups.export,
            "Write down the servers of one or all upstreams",
            needs=Role.READ,
        ),
        Endpoint(
            b"/upstream/import",
            _POST,
            (p.ONLY, p.DATA, p.DRY_RUN, p.CODE, p.MESSAGE),
            backups.load,
            "Make the servers those of a document",
            needs=Role.ADMIN,
        ),
    )
