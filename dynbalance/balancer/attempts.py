"""
Whether a request that failed on one server may be tried on another, and what
the client hears when not.

Knows nginx's rule for it (C{proxy_next_upstream}); refuses to know who asks,
which server comes next, and the clock.
"""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

from dynbalance.errors import EXHAUSTED


class Cause(Enum):
    """
    How an attempt ended badly, by the name that C{next_upstream} has for it;
    L{NO_SERVER} and L{NO_MEANS} have none.
    """

    ERROR = "error"
    """Refused, reset, closed before the head of the answer, TLS failed."""

    TIMEOUT = "timeout"
    """Connecting, sending or the head of the answer took too long."""

    INVALID_HEADER = "invalid_header"
    """The head of the answer is no HTTP, or too large."""

    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_429 = "http_429"
    HTTP_500 = "http_500"
    HTTP_502 = "http_502"
    HTTP_503 = "http_503"
    HTTP_504 = "http_504"

    NO_SERVER = "no_server"
    """No server could be chosen."""

    NO_MEANS = "no_means"
    """This process has nothing left to connect with; it tells nothing of the server."""

    @property
    def is_answer(self) -> bool:
        """Whether the server did answer, with this status."""
        return self in _STATUS_OF_ANSWER

    @classmethod
    def of_error(cls, number: int | None) -> Cause:
        """
        Why there is no connection.

        @param number: of C{errno}, if there is one.
        """
        return cls.NO_MEANS if number in EXHAUSTED else cls.ERROR

    @classmethod
    def of_status(cls, status: int) -> Cause | None:
        """The cause that an answer's status may be; C{None} for all other answers."""
        return _CAUSE_OF_STATUS.get(status)


_STATUS_OF_ANSWER = {
    cause: int(cause.value[len("http_") :])
    for cause in Cause
    if cause.value.startswith("http_")
}

_CAUSE_OF_STATUS = {status: cause for cause, status in _STATUS_OF_ANSWER.items()}

_STATUS = {
    Cause.ERROR: 502,
    Cause.TIMEOUT: 504,
    Cause.INVALID_HEADER: 502,
    Cause.NO_SERVER: 502,
    Cause.NO_MEANS: 503,
    **_STATUS_OF_ANSWER,
}

_NEVER_BLAMED = frozenset(
    {Cause.HTTP_403, Cause.HTTP_404, Cause.NO_SERVER, Cause.NO_MEANS}
)

_ALWAYS_BLAMED = frozenset({Cause.ERROR, Cause.TIMEOUT, Cause.INVALID_HEADER})

NON_IDEMPOTENT = "non_idempotent"
"""The name in C{next_upstream} that lets L{UNSAFE_METHODS} be sent twice."""

CONDITIONS = frozenset(
    {cause.value for cause in Cause if cause not in (Cause.NO_SERVER, Cause.NO_MEANS)}
) | {NON_IDEMPOTENT}
"""Every name that C{next_upstream} may hold."""

UNSAFE_METHODS = frozenset({b"POST", b"LOCK", b"PATCH"})
"""Methods whose request must not reach two servers; nginx's list."""


class Sent(Enum):
    """What the server of the failed attempt can have got of the request."""

    NOTHING = auto()
    SOMETHING = auto()


def failure_status(cause: Cause) -> int:
    """
    The status for the client when nothing else is tried: 502 or 504, or that
    of the server's own answer, which is then passed on with its body.
    """
    return _STATUS[cause]


def is_blamed(cause: Cause, retried: bool) -> bool:
    """
    Whether the failure counts towards the server's C{max_fails}.

    @param retried: whether another attempt follows.  An answer that is passed
        on to the client is no failure, whatever its status.
    """
    if cause in _ALWAYS_BLAMED:
        return True
    return retried and cause not in _NEVER_BLAMED


@frozen(slots=True)
class RetryPolicy:
    """
    An upstream's C{next_upstream} options.

    @ivar conditions: of L{CONDITIONS}; empty for no retry.
    @ivar tries: attempts for one request at most; 0 for no limit but the
        number of servers.
    @ivar timeout: seconds since the request first looked for a server, after
        which no further attempt begins; 0 for never.
    """

    conditions: frozenset[str] = frozenset({"error", "timeout"})
    tries: int = 0
    timeout: float = 0.0

    def first_tries(self, servers: int) -> int:
        """
        The tries that a request begins with.

        @param servers: C{Upstream.tries}.
        """
        return min(servers, self.tries) if self.tries else servers

    def tries_after(self, tries: int, cause: Cause, reused: bool) -> int:
        """
        The tries that are left when an attempt is over.

        @param tries: those before it.
        @param reused: whether it used a connection kept from an earlier
            request.  That one has died says nothing of the server: such an
            attempt is free.
        """
        left = max(0, tries - 1)
        return left + 1 if reused and cause is Cause.ERROR else left

    def allows(
        self,
        cause: Cause,
        *,
        method: bytes,
        sent: Sent,
        replayable: bool,
        tries: int,
        elapsed: float,
    ) -> bool:
        """
        Whether another attempt may be made.  Only to be asked while the
        client has got nothing of an answer.

        @param replayable: whether all that was read of the request's body is
            still here.
        @param tries: those left now, as L{tries_after} says.
        @param elapsed: seconds since the request first looked for a server.
        """
        if tries <= 0 or not replayable or cause.value not in self.conditions:
            return False
        if (
            sent is Sent.SOMETHING
            and method in UNSAFE_METHODS
            and NON_IDEMPOTENT not in self.conditions
        ):
            return False
        return not self.timeout or elapsed < self.timeout
