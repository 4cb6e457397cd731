"""
How the servers of one upstream are reached by HTTP: the settings, and the
connections that wait for their next request.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from attrs import evolve

from dynbalance.balancer.attempts import Cause, RetryPolicy
from dynbalance.config.template import KEY_VARIABLES, TRAFFIC_VARIABLES
from dynbalance.http.sticky import Sticky
from dynbalance.http.variables import Template
from dynbalance.net.reach import PLAIN, Reach

if TYPE_CHECKING:
    from dynbalance.balancer.hookrun import Hook
    from dynbalance.balancer.server import Server
    from dynbalance.balancer.upstream import Upstream
    from dynbalance.config import UpstreamConfig
    from dynbalance.http.connection import ServerConnection
    from dynbalance.http.forwarded import Origin
    from dynbalance.http.request import RequestHead
    from dynbalance.http.spool import Spool
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub
    from dynbalance.net.names import Names
    from dynbalance.net.pipes import Pipes


class HttpUpstream:
    """
    How the servers of one upstream are reached by HTTP.

    @ivar upstream: who chooses among them.
    @ivar budget: of its retries.
    @ivar settings: the upstream's table of the configuration.
    @ivar retries: when a request may go to another server.
    @ivar retried: the statuses of answers for which it may.
    @ivar reach: what a connection to a server begins with.
    @ivar spool: where requests' bodies are kept before a server is chosen;
        C{None} where they flow.
    @ivar hook: what decides about each attempt; C{None} for the policy alone.
    @ivar plain_host: whether servers get the client's Host.
    @ivar pipes: for bodies that are not looked at.
    @ivar keepalive: idle connections that are kept at most.
    @ivar sticky: keeps clients with their servers; C{None} where nothing does.
    @ivar looks: whether there is a reason to look at each answer.
    @ivar idle: connections that wait for a request, the one that was used
        last at the end.  Who takes one takes it from C{oldest}, too.
    @ivar oldest: all of them, the one that waits longest first.
    """

    def __init__(
        self,
        upstream: Upstream,
        settings: UpstreamConfig,
        hub: Hub,
        deadlines: Deadlines,
        names: Names,
        pipes: Pipes,
        reach: Reach = PLAIN,
        spool: Spool | None = None,
        hook: Hook | None = None,
    ) -> None:
        self.upstream = upstream
        self.budget = upstream.budget
        self.settings = settings
        self.hub = hub
        self.deadlines = deadlines
        self.names = names
        self.pipes = pipes
        self.reach = reach
        self.spool = spool
        # A PROXY header names one client, and no other's request may follow.
        self.keepalive = 0 if reach.proxy_protocol else settings.keepalive
        self.retries = RetryPolicy(
            conditions=frozenset(settings.next_upstream),
            tries=settings.next_upstream_tries,
            timeout=settings.next_upstream_timeout,
        )
        self.hook = None if hook is None else evolve(hook, retry=self.retries)
        self.retried = frozenset(
            status
            for status in range(400, 600)
            if getattr(Cause.of_status(status), "value", "") in self.retries.conditions
        )
        self.sticky = Sticky(settings.sticky) if settings.sticky is not None else None
        self.looks = bool(self.retried or self.sticky is not None or upstream.wants_times)
        hashed = settings.policy == "hash"
        self._hash_key = Template(settings.hash_key, KEY_VARIABLES) if hashed else None
        self._host = Template(settings.host, TRAFFIC_VARIABLES)
        self.plain_host = settings.host == "$http_host"
        self.idle: dict[Server, list[ServerConnection]] = {}
        self.oldest: dict[ServerConnection, None] = {}

    def __repr__(self) -> str:
        return f"<HttpUpstream {self.upstream.name} {len(self.oldest)} idle>"

    def key(self, head: RequestHead, origin: Origin) -> bytes:
        """What the policy goes by, where C{upstream.wants_key} says so."""
        if self._hash_key is None:
            return origin.client.encode()
        return self._hash_key.fill(head, origin)

    def host(self, head: RequestHead, origin: Origin) -> bytes:
        """What a request names as its host to the servers."""
        host = head.host if self.plain_host else self._host.fill(head, origin)
        # HTTP/1.0 may come without a Host, HTTP/1.1 may not go without.
        return host or self.upstream.name.encode()

    def variant(self, settings: UpstreamConfig, sticky: Sticky | None) -> HttpUpstream:
        """The same, connections included, with what holds for one attempt."""
        other = copy(self)
        other.settings = settings
        other.sticky = sticky
        return other

    def keep(self, connection: ServerConnection) -> None:
        """Take a connection whose response was read to its end."""
        settings = self.settings
        if (
            connection.requests >= settings.keepalive_requests
            or not self.keepalive
            or connection.server.removed
            or self.hub.now - connection.born >= settings.keepalive_time
        ):
            connection.close()
            return
        if len(self.oldest) >= self.keepalive:
            next(iter(self.oldest)).close()
        idle = self.idle.get(connection.server)
        if idle is None:
            idle = self.idle[connection.server] = []
        idle.append(connection)
        self.oldest[connection] = None
        deadlines = self.deadlines
        connection.deadline = deadline = deadlines.now() + settings.max_idle_time
        if deadline < connection.due:
            deadlines.watch(connection)

    def forget(self, connection: ServerConnection) -> None:
        """A connection, idle or not, is closing."""
        idle = self.idle.get(connection.server)
        if connection in self.oldest:
            del self.oldest[connection]
            if idle is not None:
                idle.remove(connection)
        if idle is not None and not idle:
            # The server may be gone for good.
            del self.idle[connection.server]

    def retire(self) -> None:
        """Keep no connection any more: another one has taken this one's place."""
        self.keepalive = 0
        self.close_idle()

    def close_idle(self) -> None:
        """Close all idle connections."""
        for connection in list(self.oldest):
            connection.close()
