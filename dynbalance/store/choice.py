"""
From the store's URL to the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from dynbalance.config import Config, StoreConfig, StoreKind, StoreUrl
from dynbalance.store.codec import Reply
from dynbalance.store.contract import Store
from dynbalance.store.embedded import EmbeddedStore
from dynbalance.store.endpoints import tcp_endpoint, tls_endpoint, unix_endpoint
from dynbalance.store.keeper import Keeper
from dynbalance.store.keys import DEFAULT, upstream_keys
from dynbalance.store.link import ask
from dynbalance.store.memory import MemoryStore
from dynbalance.store.redis import RedisStore
from dynbalance.store.seeking import (
    Question,
    Refusal,
    SeekingEndpoint,
    WhereIsTheMaster,
    WhoHasTheKey,
)


class _WallClock:
    """The time that people read, as Redis tells it."""

    def seconds(self) -> float:
        return time.time()


def store_of(
    settings: StoreConfig, state_dir: str, reactor: Any, claim: bool = True
) -> Store:
    """
    @param state_dir: where an embedded store keeps its data.
    @param claim: whether an embedded store has to have its directory now, and
        not only when it is opened.
    @raise StoreUnusable: an embedded store cannot work there.
    """
    url = settings.url
    if url.kind is StoreKind.MEMORY:
        return MemoryStore(_WallClock())
    if url.kind is StoreKind.EMBEDDED:
        embedded = EmbeddedStore(
            state_dir, reactor, prefix=settings.prefix, timeout=settings.timeout
        )
        if claim:
            embedded.claim()
        return embedded
    return _redis(settings, reactor)


def _redis(settings: StoreConfig, reactor: Any) -> RedisStore:
    url = settings.url

    def to(host: str, port: int) -> IStreamClientEndpoint:
        reach = tls_endpoint if url.kind.by_tls else tcp_endpoint
        return reach(reactor, host, port)

    def ask_there(
        endpoint: IStreamClientEndpoint, words: Sequence[str]
    ) -> Deferred[Reply | Refusal]:
        return Deferred.fromCoroutine(ask(endpoint, url.login, words))

    question: Question | None = None
    if url.kind.by_sentinel:
        question = WhereIsTheMaster(url.master)
    elif url.kind.by_cluster:
        question = WhoHasTheKey(upstream_keys(settings.prefix, DEFAULT)[0])
    endpoint: IStreamClientEndpoint
    if question is not None:
        endpoint = SeekingEndpoint(url.peers, question, to, ask_there, reactor)
    elif url.kind is StoreKind.UNIX:
        endpoint = unix_endpoint(reactor, url.path)
    else:
        endpoint = to(url.host, url.port)
    return RedisStore(
        endpoint,
        reactor,
        prefix=settings.prefix,
        timeout=settings.timeout,
        login=url.login,
        db=url.db,
        elsewhere=to if url.kind.by_cluster else None,
    )


def keeper_of(
    config: Config, reactor: Any, wall: Callable[[], float], shared_dir: str | None
) -> Keeper:
    """
    @param shared_dir: the state directory of the process of this daemon that
        writes what is known; C{None} if this is the one.
    """
    url = evolve(config.store.url, user="", password="")
    return Keeper(
        shared_dir or config.state_dir,
        f"{url} {config.store.prefix}",
        reactor,
        wall,
        # What is to be forgotten with the process is not kept.
        reads_only=shared_dir is not None or url.kind is StoreKind.MEMORY,
    )


def url_beside(settings: StoreConfig, store: Store) -> StoreUrl:
    """
    How another process of this machine reaches the same store.

    @param store: the one that L{store_of} made of C{settings}, opened.
    """
    if isinstance(store, EmbeddedStore):
        return StoreUrl(kind=StoreKind.UNIX, path=store.socket)
    return settings.url
