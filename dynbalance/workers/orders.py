"""
What a worker is told to be.

The configuration travels as the parent read it: a file that has changed
meanwhile is none of a worker's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, TypeVar

from attrs import evolve, frozen

from dynbalance.config import Config, HttpConfig, StoreUrl, StreamConfig
from dynbalance.configfile import build, document_of
from dynbalance.workers.sockets import Inherited

_BELOW = "workers"
"""In the daemon's state directory: those of the workers."""

_Table = TypeVar("_Table", HttpConfig, StreamConfig)


@frozen(slots=True)
class Orders:
    """
    @ivar config: of this worker alone.
    @ivar sockets: its listeners' sockets by the paths of their options.
    """

    config: Config
    sockets: Mapping[str, tuple[Inherited, ...]]

    def to_json(self) -> dict[str, Any]:
        """The sockets' descriptors go beside it, in the same order."""
        return {
            "config": document_of(self.config),
            "state_dir": self.config.state_dir,
            "sockets": [
                [path, each.family, each.shared]
                for path, sockets in self.sockets.items()
                for each in sockets
            ],
        }

    @property
    def descriptors(self) -> list[int]:
        """Of the sockets."""
        return [each.fd for each in chain.from_iterable(self.sockets.values())]

    @classmethod
    def from_json(cls, data: dict[str, Any], descriptors: Iterable[int]) -> Orders:
        """
        @param descriptors: of the sockets.
        @raise ConfigError: the configuration is another version's.
        """
        sockets: dict[str, tuple[Inherited, ...]] = {}
        for fd, (path, family, shared) in zip(descriptors, data["sockets"], strict=False):
            sockets[path] = (*sockets.get(path, ()), Inherited(fd, family, shared))
        return cls(evolve(build(data["config"]), state_dir=data["state_dir"]), sockets)


def daemon_dir(state_dir: str) -> str:
    """The state directory of the daemon that a worker's is in."""
    directory, _, _ = state_dir.rpartition(os.path.join(os.sep, _BELOW, ""))
    return directory


def node_of(node: str, number: int) -> str:
    """A worker's name in the store, from its parent's."""
    return f"{node}-w{number}"


def config_of(config: Config, node: str, number: int, workers: int, store: StoreUrl) -> Config:
    """
    One worker's part of the configuration.

    @param node: the parent's name in the store.
    @param number: the worker's, from 1.
    @param store: as a worker reaches it.
    """
    return evolve(
        config,
        workers=1,
        node=node_of(node, number),
        demo=False,
        state_dir=os.path.join(config.state_dir, _BELOW, str(number)),
        store=evolve(config.store, url=store),
        http=tuple(_part(table, number, workers) for table in config.http),
        stream=tuple(_part(table, number, workers) for table in config.stream),
    )


def _part(table: _Table, number: int, workers: int) -> _Table:
    """A listener's limit holds over all workers; each has one connection at least."""
    if not table.max_connections:
        return table
    even, more = divmod(table.max_connections, workers)
    return evolve(table, max_connections=max(1, even + (number <= more)))
