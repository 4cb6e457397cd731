"""
What a stream listener does with its connections, and where it leads each.

Knows the configuration's words; refuses to know connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from dynbalance.balancer.attempts import RetryPolicy
from dynbalance.net.reach import PLAIN, Reach

if TYPE_CHECKING:
    from dynbalance.balancer.hookrun import Hook
    from dynbalance.balancer.upstream import Upstream
    from dynbalance.config.listeners import StreamConfig
    from dynbalance.config.upstream import UpstreamConfig

_CONNECTING = frozenset({"error", "timeout"})


@frozen(slots=True, kw_only=True)
class StreamOptions:
    """
    What a listener does with its connections.

    @ivar timeout: seconds of silence in both directions.
    @ivar half_close: whether the end of one direction is passed on alone.
    @ivar max_connections: at the same time; 0 for no limit.
    @ivar connect_timeout: seconds that a server may take to accept, and to
        shake hands.
    @ivar retry: whether and how long other servers are tried.
    @ivar queue_timeout: seconds that a client waits at most while all servers are full.
    @ivar download_rate: bytes a second to a client; 0 for no limit.
    @ivar upload_rate: bytes a second from a client; 0 for no limit.
    @ivar reach: what a connection to a server begins with.
    @ivar hook: what decides about each attempt; C{None} for the policy alone.
    """

    timeout: float = 600.0
    half_close: bool = True
    max_connections: int = 0
    connect_timeout: float = 5.0
    retry: RetryPolicy = field(factory=RetryPolicy)
    queue_timeout: float = 10.0
    download_rate: int = 0
    upload_rate: int = 0
    reach: Reach = PLAIN
    hook: Hook | None = None

    @classmethod
    def of(
        cls,
        stream: StreamConfig,
        upstream: UpstreamConfig,
        reach: Reach = PLAIN,
        hook: Hook | None = None,
    ) -> StreamOptions:
        """What the file says of a listener and an upstream of it."""
        retry = RetryPolicy(
            _CONNECTING if stream.next_upstream else frozenset(),
            upstream.next_upstream_tries,
            upstream.next_upstream_timeout,
        )
        return cls(
            timeout=stream.timeout,
            half_close=stream.half_close,
            max_connections=stream.max_connections,
            connect_timeout=upstream.connect_timeout,
            retry=retry,
            queue_timeout=upstream.queue_timeout,
            download_rate=stream.download_rate,
            upload_rate=stream.upload_rate,
            reach=reach,
            hook=None if hook is None else evolve(hook, subsystem="stream", retry=retry),
        )

    @property
    def needs_transports(self) -> bool:
        """Whether bytes cannot go from socket to socket."""
        return bool(self.reach.tls is not None or self.download_rate or self.upload_rate)


@frozen(slots=True)
class Destination:
    """
    Where a connection is led.

    @ivar upstream: who serves it.
    @ivar options: and how.
    @ivar server_name: what the client has asked for; empty for nothing, and
        where nobody wants to know.
    """

    upstream: Upstream
    options: StreamOptions
    server_name: str = ""


class SniRoutes:
    """
    The way by the name that a TLS client asks for: the name itself, or the
    longest C{*.suffix} that it ends with.

    @param ways: by name, in lower case.
    @param otherwise: for all other names, and for who asks for none.
    """

    def __init__(self, ways: Mapping[str, Destination], otherwise: Destination) -> None:
        self._ways = dict(ways)
        self._otherwise = otherwise

    def __repr__(self) -> str:
        return f"<SniRoutes {', '.join(self._ways)}>"

    def find(self, server_name: str) -> Destination:
        """@param server_name: in lower case; empty if there is none."""
        name = server_name.rstrip(".")
        way = self._ways.get(name)
        while way is None and name:
            name = name.partition(".")[2]
            way = self._ways.get(f"*.{name}") if name else None
        return self._otherwise if way is None else way
