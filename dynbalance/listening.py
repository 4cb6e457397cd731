"""
The listeners, out of the configuration.

Knows which part of the file each takes its settings from; refuses to know
ports, and when anything begins or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.config import Config, HttpConfig, StreamConfig
from dynbalance.http.accesslog import AccessLog
from dynbalance.http.listener import HttpListener
from dynbalance.http.mounted import Mount
from dynbalance.http.traced import TracedListener, Tracer
from dynbalance.http.upstream import HttpUpstream
from dynbalance.materials import Materials
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.hub import Hub
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.stream.accesslog import StreamLog
from dynbalance.stream.listener import StreamListener
from dynbalance.stream.options import Destination, StreamOptions


@frozen(slots=True, kw_only=True)
class Ground:
    """
    What all traffic stands on, from the node's beginning to its end.

    @ivar wall: seconds since the epoch.
    @ivar tracer: makes spans of requests; C{None} where nobody wants them.
    """
    balancer: Balancer
    hub: Hub
    deadlines: Deadlines
    names: Names
    pipes: Pipes
    wall: Callable[[], float]
    tracer: Tracer | None = None


@frozen(slots=True, kw_only=True)
class Listeners:
    """
    Makes them, and what they lead to.

    @ivar mount: the admin API, for listeners that have it.
    @ivar upstreams: how each is reached by HTTP, by name.
    """

    ground: Ground
    config: Config
    materials: Materials
    mount: Mount
    upstreams: dict[str, HttpUpstream]

    @classmethod
    def of(
        cls,
        ground: Ground,
        config: Config,
        materials: Materials,
        mount: Mount,
        before: dict[str, HttpUpstream],
    ) -> Listeners:
        """
        @param before: how each upstream was reached until now; what stays as it
            was keeps its connections.
        """
        made = cls(
            ground=ground, config=config, materials=materials, mount=mount, upstreams={}
        )
        for name in config.upstreams:
            made.upstreams[name] = made._upstream(name, before.get(name))
        return made

    def _upstream(self, name: str, before: HttpUpstream | None) -> HttpUpstream:
        ground, table = self.ground, self.config.upstreams[name]
        upstream = ground.balancer.upstream(name)
        reach = self.materials.reaches[name]
        call = self.materials.hooks.get(name)
        if (
            before is not None
            and before.upstream is upstream
            and before.settings == table
            and before.reach == reach
            and call is None
        ):
            return before
        hook = None
        if call is not None:
            hook = Hook(
                call=call,
                upstream=upstream,
                peers=Peers(upstream),
                subsystem="http",
                timeout=table.balancer_timeout,
            )
        return HttpUpstream(
            upstream,
            table,
            ground.hub,
            ground.deadlines,
            ground.names,
            ground.pipes,
            reach,
            self.materials.spool if table.request_buffering else None,
            hook,
        )

    def make(self, table: HttpConfig | StreamConfig) -> HttpListener | StreamListener:
        """The listener of a table."""
        ground = self.ground
        if isinstance(table, HttpConfig):
            kind = HttpListener if ground.tracer is None else TracedListener
            listener = kind(
                table,
                self.upstreams,
                ground.deadlines,
                self._mount(table),
                self._log(AccessLog, table),
            )
            if ground.tracer is not None and isinstance(listener, TracedListener):
                listener.tracer = ground.tracer
            return listener
        usual = self._destination(table, table.upstream)
        return StreamListener(
            usual.options,
            usual.upstream,
            ground.hub,
            ground.deadlines,
            ground.names,
            ground.pipes,
            self._routes(table),
            self._log(StreamLog, table),
        )

    def lead(
        self, listener: HttpListener | StreamListener, table: HttpConfig | StreamConfig
    ) -> None:
        """Let a listener whose table is still the same lead to what there is now."""
        if isinstance(listener, HttpListener) and isinstance(table, HttpConfig):
            listener.lead_to(self.upstreams, self._mount(table))
        elif isinstance(listener, StreamListener) and isinstance(table, StreamConfig):
            usual = self._destination(table, table.upstream)
            listener.options, listener.upstream = usual.options, usual.upstream
            listener.routes = self._routes(table)

    def _mount(self, table: HttpConfig) -> Mount | None:
        return self.mount if table.mount_admin else None

    def _routes(self, table: StreamConfig) -> dict[str, Destination]:
        return {
            server_name: self._destination(table, name)
            for server_name, name in table.sni_routes.items()
        }

    def _destination(self, table: StreamConfig, name: str) -> Destination:
        to = self.upstreams[name]
        options = StreamOptions.of(table, self.config.upstreams[name], to.reach, to.hook)
        return Destination(to.upstream, options)

    def _log(self, kind: Any, table: HttpConfig | StreamConfig) -> Any:
        if table.access_log == "off":
            return None
        log = self.materials.logs[table.access_log]
        return kind(table.listen, log, self.ground.wall, self.ground.hub.seconds)
