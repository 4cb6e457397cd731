"""
The listeners, out of the configuration.

Knows which part of the file each takes its settings from; refuses to know
ports, and when anything begins or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from attrs import frozen

from dynbalance.accesslog import open_log
from dynbalance.balancer.balancer import Balancer
from dynbalance.balancer.hookload import load_hook
from dynbalance.balancer.hookrun import Hook
from dynbalance.balancer.peers import Peers
from dynbalance.config import Config, HttpConfig, StreamConfig
from dynbalance.entrance import noted
from dynbalance.errors import BadHook, StartRefused
from dynbalance.http.accesslog import AccessLog
from dynbalance.http.listener import HttpListener
from dynbalance.http.mounted import Mount
from dynbalance.http.upstream import HttpUpstream
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.hub import Hub
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.net.reach import Reach
from dynbalance.stream.accesslog import StreamLog
from dynbalance.stream.listener import StreamListener
from dynbalance.stream.options import Destination, StreamOptions


def reaches_of(config: Config) -> dict[str, Reach]:
    """
    What connections to the servers of each upstream begin with.

    @raise StartRefused: with every file that is of no use.
    """
    problems: list[str] = []
    reaches: dict[str, Reach] = {}
    for name, table in config.upstreams.items():
        with noted(problems):
            reaches[name] = Reach.of(table, f"upstreams.{name}")
    if problems:
        raise StartRefused(problems)
    return reaches


def hooks_of(config: Config, balancer: Balancer) -> dict[str, Hook]:
    """
    The balancer hooks of those upstreams that have one.

    @raise StartRefused: with every name that leads to nothing.
    """
    problems: list[str] = []
    hooks: dict[str, Hook] = {}
    for name, table in config.upstreams.items():
        if not table.balancer:
            continue
        upstream = balancer.upstream(name)
        try:
            call = load_hook(table.balancer)
        except BadHook as bad:
            problems.append(f"upstreams.{name}.balancer: {bad}")
        else:
            hooks[name] = Hook(
                call=call,
                upstream=upstream,
                peers=Peers(upstream),
                subsystem="http",
                timeout=table.balancer_timeout,
            )
    if problems:
        raise StartRefused(problems)
    return hooks


@frozen(slots=True, kw_only=True)
class Listeners:
    """
    Makes them.

    @ivar mount: the admin API, for listeners that have it.
    @ivar upstreams: how each is reached by HTTP, by name.
    @ivar wall: seconds since the epoch.
    """

    config: Config
    balancer: Balancer
    hub: Hub
    deadlines: Deadlines
    names: Names
    mount: Mount
    upstreams: dict[str, HttpUpstream]
    wall: Callable[[], float]

    def http(self) -> list[HttpListener]:
        """
        @raise StartRefused: an access log cannot be written.
        """
        return [self._http(i, table) for i, table in enumerate(self.config.http)]

    def _http(self, index: int, table: HttpConfig) -> HttpListener:
        return HttpListener(
            table,
            self.upstreams,
            self.deadlines,
            self.mount if table.mount_admin else None,
            self._log(AccessLog, table, f"http[{index}]"),
        )

    def stream(self) -> list[StreamListener]:
        """
        @raise StartRefused: an access log cannot be written.
        """
        pipes = Pipes()
        return [self._stream(i, table, pipes) for i, table in enumerate(self.config.stream)]

    def _stream(self, index: int, table: StreamConfig, pipes: Pipes) -> StreamListener:
        def destination(name: str) -> Destination:
            settings = self.config.upstreams[name]
            to = self.upstreams[name]
            options = StreamOptions.of(table, settings, to.reach, to.hook)
            return Destination(self.balancer.upstream(name), options)

        usual = destination(table.upstream)
        return StreamListener(
            usual.options,
            usual.upstream,
            self.hub,
            self.deadlines,
            self.names,
            pipes,
            {server_name: destination(name) for server_name, name in table.sni_routes.items()},
            self._log(StreamLog, table, f"stream[{index}]"),
        )

    def _log(self, kind: Any, table: HttpConfig | StreamConfig, option: str) -> Any:
        if table.access_log == "off":
            return None
        out = _opened(table.access_log, f"{option}.access_log")
        return kind(table.listen, out, self.wall, self.hub.seconds)


def _opened(to: str, option: str) -> IO[str]:
    try:
        return open_log(to)
    except OSError as failed:
        raise StartRefused([f"{option}: {to}: {failed.strerror}"]) from None
