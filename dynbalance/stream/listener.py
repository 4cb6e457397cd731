"""
A TCP listener: what its sessions share, and how it ends.

Knows its options, counts and running sessions; refuses to know how one of
them goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory

from dynbalance.balancer.attempts import RetryPolicy
from dynbalance.log import Logger
from dynbalance.stream.proxy import ClientProtocol
from dynbalance.stream.session import Session, SocketSession, host_of

if TYPE_CHECKING:
    import socket

    from twisted.internet.error import ConnectError
    from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint

    from dynbalance.balancer.server import Server
    from dynbalance.balancer.upstream import Upstream
    from dynbalance.config.listeners import StreamConfig
    from dynbalance.config.upstream import UpstreamConfig
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.net.names import Names
    from dynbalance.net.pipes import Pipes
    from twisted import logger

_QUIET = 1.0
_CONNECTING = frozenset({"error", "timeout"})


@frozen(slots=True, kw_only=True)
class StreamOptions:
    """
    What a listener does with its connections.

    @ivar timeout: seconds of silence in both directions.
    @ivar half_close: whether the end of one direction is passed on alone.
    @ivar max_connections: at the same time; 0 for no limit.
    @ivar connect_timeout: seconds that a server may take to accept.
    @ivar retry: whether and how long other servers are tried.
    @ivar queue: clients that may wait while all servers are full.
    @ivar queue_timeout: seconds that each of them waits at most.
    """

    timeout: float = 600.0
    half_close: bool = True
    max_connections: int = 0
    connect_timeout: float = 5.0
    retry: RetryPolicy = field(factory=RetryPolicy)
    queue: int = 0
    queue_timeout: float = 10.0

    @classmethod
    def of(cls, stream: StreamConfig, upstream: UpstreamConfig) -> StreamOptions:
        """What the file says of a listener and its upstream."""
        return cls(
            timeout=stream.timeout,
            half_close=stream.half_close,
            max_connections=stream.max_connections,
            connect_timeout=upstream.connect_timeout,
            retry=RetryPolicy(
                _CONNECTING if stream.next_upstream else frozenset(),
                upstream.next_upstream_tries,
                upstream.next_upstream_timeout,
            ),
            queue=upstream.queue,
            queue_timeout=upstream.queue_timeout,
        )


class _Seldom:
    """
    A line of the log that would come with each connection under load: it is
    written once a second at most, with the number of those left out.
    """

    def __init__(self, log: logger.Logger, text: str) -> None:
        self._log = log
        self._text = text + "{more}"
        self._next = 0.0
        self._left_out = 0

    def say(self, now: float, **fields: object) -> None:
        if now < self._next:
            self._left_out += 1
            return
        self._next = now + _QUIET
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} more before this)" if left_out else ""
        self._log.warn(self._text, more=more, left_out=left_out, **fields)


class StreamListener(ServerFactory):
    """
    Accepts the clients of one upstream.

    @ivar options: may be replaced; connections that begin later follow.
    @ivar sessions: those that run.
    @ivar accepted: clients so far.
    @ivar rejected: of these, closed at once for C{max_connections}.
    @ivar refused: of these, closed because no server took them.
    @ivar bytes_in: from clients, of the sessions that have ended.
    @ivar bytes_out: to clients, likewise.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        options: StreamOptions,
        upstream: Upstream,
        hub: Hub,
        deadlines: Deadlines,
        names: Names,
        pipes: Pipes,
    ) -> None:
        self.options = options
        self.upstream = upstream
        self.hub = hub
        self.deadlines = deadlines
        self.names = names
        self.pipes = pipes
        self.sessions: set[Session] = set()
        self.accepted = self.rejected = self.refused = 0
        self.bytes_in = self.bytes_out = 0
        self._port: IListeningPort | None = None
        self._idle: list[Deferred[None]] = []
        self._unserved = _Seldom(self._log, "{upstream}: {why}")
        self._unconnected = _Seldom(self._log, "{upstream}: {server} does not accept: {reason}")

    def __repr__(self) -> str:
        return f"<StreamListener on {self.upstream.name} {len(self.sessions)} active>"

    # Clients arrive.

    def accept_socket(self, skt: socket.socket, peer: Any, port: Any) -> None:
        """A client came by plain TCP or a unix socket."""
        if self._admits():
            SocketSession(self, skt, host_of(peer)).start()
        else:
            skt.close()

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol | None:
        """A client came by a transport of Twisted's, such as TLS."""
        return ClientProtocol(self) if self._admits() else None

    def _admits(self) -> bool:
        self.accepted += 1
        limit = self.options.max_connections
        if limit and len(self.sessions) >= limit:
            self.rejected += 1
            return False
        return True

    # What the sessions tell.

    def no_server(self, why: str) -> None:
        """A client is turned away."""
        self._unserved.say(self.deadlines.now(), upstream=self.upstream.name, why=why)

    def connect_failed(self, server: Server, reason: ConnectError) -> None:
        """A server did not accept."""
        self._unconnected.say(
            self.deadlines.now(),
            upstream=self.upstream.name,
            server=server.key,
            reason=str(reason),
        )

    def ended(self, session: Session, bytes_in: int, bytes_out: int) -> None:
        """A session is over."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self.sessions.discard(session)
        if not self.sessions:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    # Beginning and end.

    @property
    def active(self) -> int:
        """Sessions that run."""
        return len(self.sessions)

    def listen(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        """
        Begin to accept.

        @return: the port, once it is there; fails with L{CannotListenError}.
        """
        listening: Deferred[IListeningPort] = endpoint.listen(self)
        return listening.addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> IListeningPort:
        self._port = port
        return port

    def stop_accepting(self) -> Deferred[None]:
        """Take no more clients; those that are here go on."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        stopped: Deferred[None] | None = port.stopListening()
        return succeed(None) if stopped is None else stopped

    def when_idle(self) -> Deferred[None]:
        """Fires when no session runs."""
        if not self.sessions:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._give_up)
        self._idle.append(waiting)
        return waiting

    def _give_up(self, waiting: Deferred[None]) -> None:
        self._idle.remove(waiting)

    def abort_all(self) -> None:
        """Close what still runs."""
        for session in tuple(self.sessions):
            session.abort()
