"""
What a balancer hook decided for one attempt, as values.

Knows the decisions; refuses to know how they came about and who carries them
out.
"""

from __future__ import annotations

from attrs import frozen
from twisted.python.failure import Failure

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server

OK = 0
ERROR = -1
BUSY = -3
DECLINED = -5
"""nginx's return codes that C{exit} understands."""

_FIRST_ANSWER = 300
_LAST_ANSWER = 999


@frozen(slots=True)
class Timeouts:
    """
    Seconds, or C{None} for the upstream's (or the listener's) own option.  In
    a stream, C{send} and C{read} are the same number: how long both directions
    may be silent.
    """

    connect: float | None = None
    send: float | None = None
    read: float | None = None


@frozen(slots=True)
class Keepalive:
    """
    How the attempt's connection is kept afterwards.

    @ivar idle_timeout: seconds without a request; 0 for no limit.
    @ivar max_requests: over the connection; 0 for no limit.
    """

    idle_timeout: float
    max_requests: int


@frozen(slots=True, kw_only=True)
class PeerChosen:
    """
    Connect to this server, whatever is known of its health and its limits.
    Failures of the attempt are not judged (C{max_fails}): that is the hook's.

    @ivar server: one of the upstream's, or a stranger to it that only this
        hook named; C{server.address} is where it listens.
    @ivar more_tries: to be added to the tries that are left.
    @ivar keepalive: C{None} for the upstream's options.
    """

    server: Server
    more_tries: int = 0
    keepalive: Keepalive | None = None

    def hold(self) -> Lease:
        """Count a connection on the server, like any other's."""
        return Lease.force(self.server)


@frozen(slots=True)
class Fallback:
    """No peer was set: the upstream's policy chooses among its own servers."""


@frozen(slots=True)
class Declined:
    """
    The attempt failed before it began, like a refused connection: the next
    one may follow, and this one is counted among the tries.
    """


@frozen(slots=True)
class Exit:
    """
    No attempt and no further one.

    @ivar status: for the client of a request, and for the log of a session,
        whose connection is closed with nothing sent.
    """

    status: int


@frozen(slots=True)
class Failed:
    """
    The hook did not do its work: 500, or a closed connection.  It has been
    logged.
    """

    failure: Failure

    @property
    def status(self) -> int:
        return 500


Outcome = PeerChosen | Fallback | Declined | Exit | Failed


def exit_outcome(code: int) -> Declined | Exit | None:
    """
    What nginx makes of the code that a hook ended with.

    @return: C{None} for L{OK}: the attempt goes on with what was set.
    """
    if code == OK:
        return None
    if code == BUSY:
        return Exit(502)
    if code == DECLINED:
        return Declined()
    return Exit(code if _FIRST_ANSWER <= code <= _LAST_ANSWER else 500)
