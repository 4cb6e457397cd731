"""
The root of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from attrs import field, frozen
from attrs.validators import deep_mapping, instance_of

from dynbalance.config.admin import AdminConfig
from dynbalance.config.listeners import DEFAULT_UPSTREAM, HttpConfig, StreamConfig
from dynbalance.config.ranges import NAME, SOME, matches, one_of, seconds, within
from dynbalance.config.resolver import ResolverConfig
from dynbalance.config.store import HeartbeatConfig, StoreConfig
from dynbalance.config.tracing import TracingConfig
from dynbalance.config.upstream import UpstreamConfig

DEFAULT_STATE_DIR = "./dynbalance-state"
UpstreamName = Annotated[str, "an upstream's name"]
"""A text; the type by which its place in a file is told from others."""

LOG_LEVELS = ("debug", "info", "warn", "error", "critical")


def _with_default(value: Mapping[str, UpstreamConfig]) -> Mapping[str, UpstreamConfig]:
    return MappingProxyType({DEFAULT_UPSTREAM: UpstreamConfig(), **value})


@frozen(slots=True, kw_only=True)
class Config:
    """
    All of it.

    @ivar workers: processes that share the listeners; 0 for one per core.
    @ivar node: this node's name in the store; empty for one made of the host
        name and the process id.
    @ivar shutdown_timeout: for what is in flight when the end is ordered.
    @ivar upstreams: by name; C{default} is always there.
    @ivar http: the HTTP listeners; may be empty.
    @ivar stream: the TCP listeners; may be empty.
    @ivar state_dir: not of the file: the directory for what must be kept.
    @ivar demo: not of the file: whether to start backends to play with.
    """

    workers: int = field(default=1, validator=within(0, 1024))
    node: str = field(
        default="",
        validator=matches(r"[A-Za-z0-9_.@-]{0,128}", "letters, digits, '_', '.', '@' and '-'"),
    )
    shutdown_timeout: float = field(default=30.0, validator=seconds())
    log_level: str = field(default="info", validator=one_of(*LOG_LEVELS))
    store: StoreConfig = field(factory=StoreConfig)
    heartbeat: HeartbeatConfig = field(factory=HeartbeatConfig)
    resolver: ResolverConfig = field(factory=ResolverConfig)
    upstreams: Mapping[UpstreamName, UpstreamConfig] = field(
        factory=dict,
        converter=_with_default,
        validator=deep_mapping(
            key_validator=NAME, value_validator=instance_of(UpstreamConfig)
        ),
    )
    http: tuple[HttpConfig, ...] = (HttpConfig(),)
    stream: tuple[StreamConfig, ...] = (StreamConfig(),)
    admin: AdminConfig = field(factory=AdminConfig)
    tracing: TracingConfig = field(factory=TracingConfig)
    state_dir: str = field(default=DEFAULT_STATE_DIR, validator=SOME)
    demo: bool = False
