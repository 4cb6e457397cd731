"""
A TCP listener: what its sessions share, and how it ends.

Knows its options, counts and running sessions; refuses to know how one of
them goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory

from dynbalance.log import Logger
from dynbalance.net.clienthost import host_of
from dynbalance.stream.asking import Asking
from dynbalance.stream.options import Destination, SniRoutes, StreamOptions
from dynbalance.stream.proxy import ClientProtocol
from dynbalance.stream.session import Session
from dynbalance.stream.sockets import HookedSocketSession, SocketSession

if TYPE_CHECKING:
    import socket

    from twisted.internet.error import ConnectError
    from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint

    from dynbalance.balancer.server import Server
    from dynbalance.balancer.upstream import Upstream
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.net.names import Names
    from dynbalance.net.pipes import Pipes
    from dynbalance.stream.accesslog import StreamLog
    from twisted import logger

_QUIET = 1.0
_NO_ROUTES: Mapping[str, Destination] = {}


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

    @ivar options, upstream, routes: may be replaced; connections that begin
        later follow.
    @ivar sessions: those that run, and clients that have to say where to.
    @ivar accepted: clients so far.
    @ivar rejected: others, closed at once for C{max_connections}.
    @ivar refused: of those accepted, closed because no server took them.
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
        routes: Mapping[str, Destination] = _NO_ROUTES,
        access_log: StreamLog | None = None,
    ) -> None:
        """@param routes: the ways by the name that a TLS client asks for."""
        self.options = options
        self.upstream = upstream
        self.hub = hub
        self.deadlines = deadlines
        self.names = names
        self.pipes = pipes
        self.routes = routes
        self.access_log = access_log
        self.sessions: set[Session | Asking] = set()
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
        if self.turns_away(peer):
            skt.close()
            return
        self.accepted += 1
        if self.routes:
            Asking(self, skt, peer, port).start()
        else:
            self.begin(skt, peer, port, Destination(self.upstream, self.options))

    def begin(self, skt: socket.socket, peer: Any, port: Any, way: Destination) -> None:
        """Lead a client, which is admitted, its way."""
        if not way.options.needs_transports:
            kind = SocketSession if way.options.hook is None else HookedSocketSession
            kind(self, skt, peer, way).start()
            return
        protocol = ClientProtocol(self, way)
        protocol.makeConnection(port.transport(skt, protocol, peer, port, 0, self.hub))

    def way_of(self, server_name: str) -> Destination:
        """@param server_name: what a TLS client asks for; may be empty."""
        way = SniRoutes(self.routes, Destination(self.upstream, self.options)).find(server_name)
        return way if way.options.hook is None else evolve(way, server_name=server_name)

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol | None:
        """A client came by a transport of Twisted's, such as TLS."""
        if self.turns_away(addr):
            return None
        self.accepted += 1
        return ClientProtocol(self)

    def turns_away(self, peer: Any, waiting: int = 0) -> bool:
        """
        Whether a client that came is one too many; then it is counted as that.

        @param peer: as the kernel or as Twisted has it.
        @param waiting: clients that are not here yet, and will be.
        """
        limit = self.options.max_connections
        if not limit or len(self.sessions) + waiting < limit:
            return False
        self.rejected += 1
        self.turned_away(peer, 503, "max_connections")
        return True

    # What the sessions tell.

    def turned_away(self, peer: Any, status: int, why: str) -> None:
        """
        A client never had a session.

        @param peer: as the kernel or as Twisted has it.
        """
        if self.access_log is not None:
            self.access_log.connection(host_of(peer), status, why, self.access_log.now())

    def broken_preface(self, peer: Any, why: str) -> None:
        """A client did not begin with a PROXY header."""
        self.turned_away(peer, 400, why)

    def no_server(self, upstream: Upstream, why: str) -> None:
        """A client is turned away."""
        self._unserved.say(self.deadlines.now(), upstream=upstream.name, why=why)

    def connect_failed(self, upstream: Upstream, server: Server, reason: ConnectError) -> None:
        """A server did not accept."""
        self._unconnected.say(
            self.deadlines.now(),
            upstream=upstream.name,
            server=server.key,
            reason=str(reason),
        )

    def ended(self, session: Session | Asking, bytes_in: int, bytes_out: int) -> None:
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
