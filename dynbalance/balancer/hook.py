"""
The balancer hook: C{njt.balancer} in Python.

A hook is called once for each attempt with a L{Context}, tells it where to
connect, and is done; the context is dead afterwards.  What persists from one
attempt to the next is the L{HookRun <dynbalance.balancer.hookrun.HookRun>}'s.

Knows what a hook may say and in which words it is refused; refuses to know who
calls the hook, and what becomes of what it said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from attrs import define

from dynbalance.balancer import hookoutcome
from dynbalance.balancer.hookoutcome import Keepalive
from dynbalance.balancer.peer import parse_peer
from dynbalance.errors import BalancerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.logger import Logger

    from dynbalance.balancer.hookrequest import HttpRequest, StreamRequest
    from dynbalance.balancer.hookrun import HookRun
    from dynbalance.balancer.server import Server

_REDUCED = "reduced tries due to limit"


class Exited(BaseException):
    """
    Ends a hook that has called C{exit}.  No L{Exception}, so that a hook's own
    C{except Exception} lets it through.
    """


@define(slots=True, eq=False)
class Decision:
    """
    What a hook has said so far in one attempt.

    @ivar server: the peer that it set.
    @ivar more_tries: beside those that the request has.
    @ivar code: what it has called C{exit} with.
    @ivar ended: nothing more is heard.
    """

    server: Server | None = None
    more_tries: int = 0
    keepalive: Keepalive | None = None
    code: int | None = None
    ended: bool = False


class Candidate:
    """
    A server of the upstream, as a hook sees it: it can be looked at, and what
    it shows is always as of now.
    """

    __slots__ = ("_server",)

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def address(self) -> str:
        """C{host:port}, C{[v6]:port} or C{unix:/path}."""
        return str(self._server.address)

    @property
    def key(self) -> str:
        """
        What logs and the status call it: the address, with C{#2} for the
        second of the file's servers with one address.
        """
        return self._server.key

    @property
    def host(self) -> str:
        return self._server.address.host

    @property
    def port(self) -> int:
        return self._server.address.port

    @property
    def weight(self) -> int:
        return self._server.weight

    @property
    def slow_start(self) -> float:
        """The part of its weight that it has reached: 1, or less in a slow start."""
        return self._server.slow

    @property
    def backup(self) -> bool:
        return self._server.backup

    @property
    def max_conns(self) -> int:
        """0 for no limit."""
        return self._server.max_conns

    @property
    def connections(self) -> int:
        """Over all nodes, as far as this one knows."""
        return self._server.load

    @property
    def node_connections(self) -> int:
        """Of this node."""
        return self._server.held

    @property
    def full(self) -> bool:
        return self._server.load >= self._server.limit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and other._server is self._server

    def __hash__(self) -> int:
        return hash(self._server)

    def __repr__(self) -> str:
        return f"<Candidate {self.key} connections={self.connections} weight={self.weight}>"


class Context:
    """
    One attempt, for the hook to decide about.  Each method raises
    L{BalancerError} when the attempt's hook has ended.

    @cvar subsystem: C{"http"} or C{"stream"}.
    @ivar upstream: the upstream's name.
    @ivar ctx: a dict that is kept over the attempts of one request.
    @ivar attempt: 1, 2, ...
    @ivar log: a L{twisted.logger.Logger}.
    """

    OK = hookoutcome.OK
    ERROR = hookoutcome.ERROR
    BUSY = hookoutcome.BUSY
    DECLINED = hookoutcome.DECLINED

    subsystem: ClassVar[str]

    __slots__ = ("_decision", "_run", "_tries", "attempt", "ctx", "log", "upstream")

    def __init__(self, run: HookRun, decision: Decision, tries: int) -> None:
        """
        @param decision: where the hook's words go.
        @param tries: that the request has left, with this attempt.
        """
        self._run = run
        self._decision = decision
        self._tries = tries
        self.upstream: str = run.hook.upstream.name
        self.ctx: dict[Any, Any] = run.ctx
        self.attempt: int = run.attempts
        self.log: Logger = run.hook.log

    def _check(self) -> None:
        if self._decision.ended:
            raise BalancerError("API disabled in the current context")

    @property
    def servers(self) -> Sequence[Candidate]:
        """
        The servers that neither the file, an operator, missing heartbeats nor
        failures keep out; backups and full ones are among them and say so.
        """
        self._check()
        return [Candidate(server) for server in self._run.hook.upstream.servers if server.ready]

    def set_current_peer(self, addr: str | Candidate, port: float | str | None = 0) -> None:
        """
        Choose this attempt's peer; the last call counts.  Nothing is
        connected yet: a peer that does not listen is a failed attempt.

        @param addr: an IP address (IPv6 in brackets), with or without
            C{:port}, C{unix:/path}, or one of L{servers}, which may have a
            name.  Other names are not looked up.
        @param port: for an address without one.
        @raise BalancerError: in nginx's words.
        @raise TypeError: C{addr} is no text or C{port} no number.
        """
        self._check()
        if isinstance(addr, Candidate):
            self._decision.server = addr._server
        else:
            self._decision.server = self._run.hook.peers.server(parse_peer(addr, port))

    def set_more_tries(self, count: int) -> str | None:
        """
        Allow further attempts, this one not counted, beside those that the
        request has.  Has no effect unless a peer is set in the same attempt;
        the last call counts.

        @return: C{"reduced tries due to limit"} when C{next_upstream_tries}
            allows fewer.
        """
        self._check()
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"bad number of tries: {count!r}")
        self._decision.more_tries = count
        limit = self._run.hook.retry.tries
        total = self._run.attempts + self._tries - 1
        if not limit or total + count <= limit:
            return None
        # Free tries can have brought the total over the limit already.
        self._decision.more_tries = max(0, limit - total)
        return _REDUCED

    def get_last_failure(self) -> tuple[str, int] | None:
        """
        How the last attempt on a peer that the hook had set has ended.

        @return: C{None} when there was none; else C{"failed"}, or C{"next"}
            after an answer 403 or 404, with the status of the attempt before
            this one: 502, 504 or the server's own; 0 in streams.
        """
        self._check()
        return self._run.last_failure

    def set_timeouts(
        self,
        connect: float | None = None,
        send: float | None = None,
        read: float | None = None,
    ) -> None:
        """
        Seconds, to the millisecond, for this and the further attempts of this
        request; C{None} leaves what is set.  In streams the larger of C{send}
        and C{read} is how long both directions may be silent.

        @raise ValueError: C{"bad connect timeout"}, C{"bad send timeout"} or
            C{"bad read timeout"}, for what is not a positive number.  Then
            none is set.
        """
        self._check()
        self._run.set_timeouts(
            _timeout("connect", connect), _timeout("send", send), _timeout("read", read)
        )

    def exit(self, status: int) -> NoReturn:
        """
        End the hook, at once.

        @param status: 300 or more to answer it (in streams: to close the
            connection, and log it); L{OK} to go on with what was set;
            L{ERROR} for 500; L{BUSY} for 502; L{DECLINED} to go to the next
            attempt.  Anything else is 500.
        """
        self._check()
        if not isinstance(status, int):
            raise TypeError(f"bad argument #1 to 'exit' (number expected, got {_kind(status)})")
        self._decision.code = status
        raise Exited(status)

    def __repr__(self) -> str:
        state = " ended" if self._decision.ended else ""
        return f"<{type(self).__name__} {self.upstream} attempt={self.attempt}{state}>"


class HttpContext(Context):
    """One attempt to have a request answered."""

    subsystem = "http"
    __slots__ = ()

    @property
    def request(self) -> HttpRequest:
        """The request; see L{recreate_request}."""
        self._check()
        request: HttpRequest = self._run.request
        return request

    def recreate_request(self) -> None:
        """
        Send what L{request} now says, in this attempt and the further ones.
        Without it each attempt sends what the first one sent.

        @raise BalancerError: it says what cannot be sent.
        """
        self._check()
        self._run.recreate_request()

    def enable_keepalive(
        self, idle_timeout: float | None = 60, max_requests: int | None = 100
    ) -> None:
        """
        How this attempt's connection is kept, instead of the upstream's
        options.  Needs a peer to be set before.

        @param idle_timeout: seconds without a request; 0 for no limit.
        @param max_requests: over the connection; 0 for no limit.
        """
        self._check()
        idle = _limit(1, 60 if idle_timeout is None else idle_timeout)
        requests = _limit(2, 100 if max_requests is None else max_requests)
        if self._decision.server is None:
            raise BalancerError("no current peer set")
        self._decision.keepalive = Keepalive(idle, int(requests))


class StreamContext(Context):
    """One attempt to pass a connection on."""

    subsystem = "stream"
    __slots__ = ()

    @property
    def request(self) -> StreamRequest:
        """The connection."""
        self._check()
        request: StreamRequest = self._run.request
        return request

    def enable_keepalive(
        self, idle_timeout: float | None = 60, max_requests: int | None = 100
    ) -> NoReturn:
        """@raise BalancerError: always; a connection that was passed on is used up."""
        raise BalancerError("'enable_keepalive' not yet implemented in stream subsystem")


def _timeout(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not _is_number(value) or value <= 0:
        raise ValueError(f"bad {name} timeout")
    # Less than a millisecond is nothing, and nothing leaves what is set.
    return int(value * 1000) / 1000 or None


def _limit(position: int, value: float) -> float:
    start = f"bad argument #{position} to 'enable_keepalive'"
    if not _is_number(value):
        raise TypeError(f"{start} (number expected, got {_kind(value)})")
    if value < 0:
        raise ValueError(f"{start} (expected >= 0)")
    return value


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


def _kind(value: object) -> str:
    return type(value).__name__
