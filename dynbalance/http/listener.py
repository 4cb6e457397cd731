"""
One HTTP listener: its settings, its clients, and the way to the upstreams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from dynbalance.http.buffered import BufferedExchange
from dynbalance.http.channel import Channel
from dynbalance.http.exchange import Exchange
from dynbalance.http.forwarded import Forwarding, SetHeaders
from dynbalance.http.front import Front
from dynbalance.http.hooked import hooked
from dynbalance.http.mounted import Mount
from dynbalance.http.request import RequestHead
from dynbalance.http.routes import Route, Router
from dynbalance.log import Logger
from dynbalance.net.clienthost import LOCAL, host_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from dynbalance.config import HttpConfig
    from dynbalance.http.accesslog import AccessLog
    from dynbalance.http.upstream import HttpUpstream
    from dynbalance.net.deadlines import Deadlines


class Client(Protocol):
    """
    A client's connection.

    @ivar transport: that it has.
    """

    transport: Any

    def retire(self) -> None:
        """Let what is under way be the last that is answered; close nothing that is idle."""

    def drain(self) -> None:
        """Close when what is under way is answered."""


class Asking(Front, Protocol):
    """
    Whose request it is.

    @ivar client: the peer's address, without a port.
    @ivar suffix: see L{Channel}.
    """

    client: str
    suffix: bytes


class HttpListener(Factory):
    """
    Makes a L{Channel} for each client that speaks HTTP/1.1.

    @param upstreams: by name.
    @param mounted: the admin API under C{/upstream/}, if it is served here.
    @ivar draining: no request after the one under way.
    @ivar carries: requests that a connection may carry.
    @ivar accepted: connections so far.
    @ivar rejected: connections closed for C{max_connections}.
    @ivar requests: so far.
    @ivar bad_requests: answered with an error of ours before any server was
        asked.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        settings: HttpConfig,
        upstreams: Mapping[str, HttpUpstream],
        deadlines: Deadlines,
        mounted: Mount | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self.settings = settings
        self.deadlines = deadlines
        self.scheme = b"http" if settings.tls is None else b"https"
        self.access_log = access_log
        self.forwarding = Forwarding(settings.trusted_proxies)
        self.channels: set[Client] = set()
        self.draining = False
        self.carries = settings.keepalive_requests if settings.keepalive_timeout > 0 else 0
        self.accepted = 0
        self.rejected = 0
        self.requests = 0
        self.bad_requests = 0
        self._set_headers = SetHeaders(settings.set_headers)
        self._rewrites = bool(settings.set_headers)
        self._waiting: list[Deferred[None]] = []
        self.lead_to(upstreams, mounted)

    def lead_to(self, upstreams: Mapping[str, HttpUpstream], mounted: Mount | None) -> None:
        """Let these serve the requests that begin from now on."""
        settings = self.settings
        self.mounted = mounted
        self._router = Router(
            (Route(route.host, route.path, upstreams[route.upstream]) for route in settings.routes),
            upstreams[settings.upstream],
        )
        # The usual case needs no look at the routes.
        self._only = None if settings.routes else upstreams[settings.upstream]

    def __repr__(self) -> str:
        return f"<HttpListener {self.settings.listen} {len(self.channels)} clients>"

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:
        if not self.admits():
            return None
        channel = Channel(self, host_of(addr))
        channel.factory = self
        self.channels.add(channel)
        return channel

    def admits(self) -> bool:
        """Whether there is room for a connection that came."""
        if self.turns_away(None):
            return False
        self.accepted += 1
        return True

    def turns_away(self, peer: Any, waiting: int = 0) -> bool:
        """
        Whether a connection that came is one too many; then it is counted as that.

        @param peer: where it comes from.
        @param waiting: connections that are not here yet, and will be.
        """
        limit = self.settings.max_connections
        if not limit or len(self.channels) + waiting < limit:
            return False
        self.rejected += 1
        return True

    def believes(self, host: str) -> bool:
        """
        Whether the PROXY header of a peer is believed.

        @param host: the peer's; empty behind a unix socket.
        """
        return self.forwarding.trusts(host or LOCAL)

    def upstream_for(self, host: bytes, path: bytes) -> HttpUpstream:
        """
        Who serves a request.

        @param host: as the request says it.
        @param path: without the query.
        """
        return self._only or self._router.find(host, path)

    def exchange(self, head: RequestHead, channel: Asking) -> Exchange:
        """Find the upstream for a request, and say what its server gets."""
        to = self._only or self._router.find(head.host, head.path)
        if to.hook is not None:
            origin = self.forwarding.origin(channel.client, self.scheme, head.forwarded_for)
            return hooked(
                channel, to, head, origin, lambda head: self._rewritten(head, to, channel)
            )
        kind = BufferedExchange if head.length and to.spool is not None else Exchange
        if to.plain_host and head.host and not self._rewrites and not head.forwarded_for:
            exchange = kind(channel, to, head, head.forward + channel.suffix)
        else:
            exchange = kind(channel, to, head, self._rewritten(head, to, channel))
        if to.upstream.wants_key:
            origin = self.forwarding.origin(channel.client, self.scheme, head.forwarded_for)
            exchange.key = to.key(head, origin)
        return exchange

    def caller(self, head: RequestHead, channel: Asking) -> str:
        """Whose request it is, for the mounted API: the client that servers are told of."""
        return self.forwarding.origin(channel.client, self.scheme, head.forwarded_for).client

    def _rewritten(self, head: RequestHead, to: HttpUpstream, channel: Asking) -> bytes:
        origin = self.forwarding.origin(channel.client, self.scheme, head.forwarded_for)
        host = to.host(head, origin)
        if not self._rewrites:
            return head.compose(host, frozenset()) + origin.fields
        return head.compose(host, self._set_headers.names) + self._set_headers.fields(head, origin)

    def refuses(
        self,
        client: str,
        status: int,
        why: str,
        unread: bytes,
        bytes_out: int,
        waited: float = 0.0,
        protocol: str = "",
    ) -> None:
        """
        A request was answered by us and its connection or stream ends.

        @param unread: see L{AccessLog.refused}; empty for a request that gets
            a line of its own.
        @param bytes_out: the size of the answer.
        @param waited: seconds for the rest of the head.
        """
        self.bad_requests += 1
        self._log.debug("{client}: {status}: {why}", client=client, status=status, why=why)
        if unread and self.access_log is not None:
            self.access_log.refused(unread, client, status, bytes_out, waited, protocol)

    # Ending

    def retire(self) -> None:
        """
        Let each client's next answer be its last.  Who asks for nothing is not
        cut off: its next request may be on the way.
        """
        self.draining = True
        self.carries = 0
        for channel in list(self.channels):
            channel.retire()

    def drain(self) -> None:
        """Let each client's request under way be its last."""
        self.draining = True
        self.carries = 0
        for channel in list(self.channels):
            channel.drain()

    @property
    def active(self) -> int:
        """Connections of clients now."""
        return len(self.channels)

    def when_idle(self) -> Deferred[None]:
        """@return: fires when there are no clients."""
        waiting: Deferred[None] = Deferred()
        if self.channels:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def closed(self, channel: Client) -> None:
        """A client's connection has ended."""
        if not self.channels:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def abort_all(self) -> None:
        """Close every client's connection at once."""
        for channel in list(self.channels):
            channel.transport.abortConnection()
