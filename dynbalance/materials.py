"""
What a configuration needs from outside before anything can run by it: files,
modules, directories.

Everything that can fail but the ports is had here, so that a configuration that
cannot be is refused as a whole, with every mistake, while nothing has changed.
Refuses to know what is built from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from dynbalance.accesslog import LogFile, LogFiles
from dynbalance.balancer.hookload import load_hook
from dynbalance.config import (
    Config,
    HttpConfig,
    JwtConfig,
    ListenerTlsConfig,
    StreamConfig,
    UpstreamConfig,
)
from dynbalance.entrance import noted, reread_all
from dynbalance.errors import BadHook, ConfigError
from dynbalance.http.spool import Spool
from dynbalance.jwtkeys import BadKey, Key, key_of, keys_of
from dynbalance.net.reach import Reach
from dynbalance.net.tls import ServerTls, Swap, nothing_to_swap

ListenerTable = HttpConfig | StreamConfig


@frozen(slots=True, kw_only=True)
class Materials:
    """
    @ivar reaches: what connections to the servers of each upstream begin with.
    @ivar hooks: the balancer hooks of those upstreams that have one.
    @ivar tls: who a listener is in TLS, by the path of its table; only where
        it speaks TLS.
    @ivar logs: the access logs and the audit log by what the configuration
        calls them.
    @ivar jwt_keys: that tokens signed for the admin API are checked with.
    @ivar spool: where requests' bodies may be kept.
    @ivar swap: to be called when nothing has failed: what was had before and
        is still wanted then goes by the certificates and keys of now.
    """

    reaches: dict[str, Reach]
    hooks: dict[str, Callable[..., Any]]
    tls: dict[str, ServerTls]
    logs: dict[str, LogFile]
    jwt_keys: tuple[Key, ...]
    spool: Spool
    swap: Swap

    @classmethod
    def gather(
        cls, config: Config, log_files: LogFiles, before: tuple[Config, Materials] | None = None
    ) -> Materials:
        """
        @param before: the configuration that was followed, and what was had
            for it.
        @raise ConfigError: with all that cannot be had.
        """
        problems: list[str] = []
        kept = _Kept(*before) if before is not None else _Kept()
        had = cls(
            reaches=_reaches(config, kept, problems),
            hooks=_hooks(config, problems),
            tls=_tls(config, kept, problems),
            logs=_logs(config, log_files, problems),
            jwt_keys=_jwt_keys(config.admin.jwt, problems),
            spool=Spool(os.path.join(config.state_dir, "spool")),
            swap=kept.swap(problems),
        )
        if any(table.request_buffering for table in config.upstreams.values()):
            try:
                had.spool.prepare()
            except OSError as failed:
                problems.append(f"{had.spool.directory}: {failed.strerror}")
        if problems:
            raise ConfigError(problems)
        return had


class _Kept:
    """What was had before; whatever of it is taken has its files read again."""

    def __init__(self, config: Config | None = None, had: Materials | None = None) -> None:
        self._config = config
        self._had = had
        self._tls = dict(_tls_tables(config)) if config is not None else {}
        self._taken: list[Reach | ServerTls] = []

    def reach(self, name: str, table: UpstreamConfig) -> Reach | None:
        if self._config is None or self._had is None:
            return None
        before = self._config.upstreams.get(name)
        if before is None or (before.tls, before.proxy_protocol) != (
            table.tls,
            table.proxy_protocol,
        ):
            return None
        reach = self._had.reaches[name]
        self._taken.append(reach)
        return reach

    def tls(self, path: str, table: ListenerTlsConfig) -> ServerTls | None:
        if self._had is None or self._tls.get(path) != table:
            return None
        ours = self._had.tls[path]
        self._taken.append(ours)
        return ours

    def swap(self, problems: list[str]) -> Swap:
        try:
            return reread_all(self._taken)
        except ConfigError as error:
            problems += error.problems
            return nothing_to_swap


def tables_of(config: Config) -> Iterator[tuple[str, ListenerTable]]:
    """Each listener's table and its path."""
    for i, http in enumerate(config.http):
        yield f"http[{i}]", http
    for i, stream in enumerate(config.stream):
        yield f"stream[{i}]", stream


def _tls_tables(config: Config) -> Iterator[tuple[str, ListenerTlsConfig]]:
    """The TLS tables that there are, by the paths of their listeners' tables."""
    for path, table in (*tables_of(config), ("admin", config.admin)):
        if table.tls is not None:
            yield path, table.tls


def _reaches(config: Config, kept: _Kept, problems: list[str]) -> dict[str, Reach]:
    reaches = {}
    for name, table in config.upstreams.items():
        reach = kept.reach(name, table)
        if reach is None:
            with noted(problems):
                reach = Reach.of(table, f"upstreams.{name}")
        if reach is not None:
            reaches[name] = reach
    return reaches


def _hooks(config: Config, problems: list[str]) -> dict[str, Callable[..., Any]]:
    hooks = {}
    for name, table in config.upstreams.items():
        if table.balancer:
            try:
                hooks[name] = load_hook(table.balancer)
            except BadHook as bad:
                problems.append(f"upstreams.{name}.balancer: {bad}")
    return hooks


def _tls(config: Config, kept: _Kept, problems: list[str]) -> dict[str, ServerTls]:
    everyone = {}
    for path, table in _tls_tables(config):
        ours = kept.tls(path, table)
        if ours is None:
            with noted(problems):
                ours = ServerTls.of(table, f"{path}.tls")
        if ours is not None:
            everyone[path] = ours
    return everyone


def _logs(config: Config, files: LogFiles, problems: list[str]) -> dict[str, LogFile]:
    logs = {}
    wanted = [(f"{path}.access_log", table.access_log) for path, table in tables_of(config)]
    wanted = [(option, to) for option, to in wanted if to != "off"]
    if config.admin.audit_log:
        wanted.append(("admin.audit_log", config.admin.audit_log))
    for option, to in wanted:
        if to not in logs:
            try:
                logs[to] = files.open(to)
            except OSError as failed:
                problems.append(f"{option}: {to}: {failed.strerror}")
    return logs


def _jwt_keys(settings: JwtConfig | None, problems: list[str]) -> tuple[Key, ...]:
    if settings is None:
        return ()
    if settings.key:
        return (key_of(settings.key, settings.algorithms),)
    file = settings.jwks_file
    try:
        with open(file, "rb") as opened:
            return keys_of(json.loads(opened.read()), settings.algorithms)
    except OSError as failed:
        why = failed.strerror or str(failed)
    except BadKey as bad:
        why = str(bad)
    except (ValueError, RecursionError):
        why = "is no JSON"
    problems.append(f"admin.jwt.jwks_file: {file}: {why}")
    return ()
