"""
A worker, in its own process: a node that does what its parent says.

It has no other master: the signals that end a daemon are the parent's to
hear, and a worker whose parent is gone is gone too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning

from dynbalance.admin.explaining import foretell
from dynbalance.errors import StoreUnavailable
from dynbalance.log import Logger, set_level
from dynbalance.service import Node
from dynbalance.workers.lives import matter_from_json
from dynbalance.workers.orders import Orders
from dynbalance.workers.process import FIRST_SOCKET
from dynbalance.workers.telling import lives_text, metrics_text
from dynbalance.workers.wire import Told
from dynbalance.works import Works


class Worker:
    """What the parent hears at the other end of the wire."""

    _log = Logger()

    def __init__(
        self, reactor: Any, random: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """
        @param random: a number in [0, 1).
        @param wall: seconds since the epoch.
        """
        self._reactor = reactor
        self._random = random
        self._wall = wall
        self._node: Node | None = None
        registry = CollectorRegistry(auto_describe=False)
        self._process = ProcessCollector("dynbalance_worker", registry=registry)

    @property
    def works(self) -> Works | None:
        """What it consists of, once it was told to begin."""
        return None if self._node is None else self._node.works

    def heard(self, what: str, data: Any, descriptors: Sequence[int]) -> Any:
        if what == "begin":
            orders = Orders.from_json(data, count(FIRST_SOCKET))
            return Deferred.fromCoroutine(self._begin(orders))
        if what == "follow" and self._node is not None:
            orders = Orders.from_json(data, descriptors)
            return Deferred.fromCoroutine(self._follow(orders, self._node))
        if what == "end":
            self._end()
        elif self._node is not None:
            return self._done(what, data, self._node)
        return None

    def _done(self, what: str, data: Any, node: Node) -> Any:
        if what == "metrics":
            return Deferred.fromCoroutine(self._metrics(node))
        if what == "lives":
            servers = tuple(node.works.balancer.upstream(data).servers)
            return Deferred.fromCoroutine(self._told(node, lives_text(servers)))
        if what == "foretell":
            matter = matter_from_json(data)
            told = foretell(node.works.balancer.upstream(matter.upstream), matter)
            return [told.message, told.data]
        if what == "see":
            return Deferred.fromCoroutine(self._see(node, data))
        if what == "let go":
            return Deferred.fromCoroutine(node.succession.let_go(data))
        if what == "take back":
            return Deferred.fromCoroutine(node.succession.take_back())
        if what == "retire":
            if node.serving:
                node.succession.retire(data)
            else:
                # Nobody was let in.
                self._end()
        elif what == "cut":
            node.cut_short()
        elif what == "reopen":
            node.reopen_logs()
        return None

    async def _metrics(self, node: Node) -> Told:
        whole, of_servers = await node.pages.traffic()
        return await self._told(
            node, metrics_text([*whole, *self._process.collect()], of_servers)
        )

    @staticmethod
    async def _told(node: Node, pieces: Iterable[str]) -> Told:
        return Told("".join(await node.works.slices.run(pieces)))

    def _end(self) -> None:
        # It may have begun by itself, with nothing left to finish.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    async def _see(self, node: Node, upstream: str) -> None:
        try:
            await node.works.membership.refresh(upstream)
        except StoreUnavailable as error:
            self._log.debug("The change is seen later: {error}", error=str(error))

    def wire_lost(self) -> None:
        """The parent is gone, and nobody would end what goes on without it."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def _begin(self, orders: Orders) -> None:
        set_level(orders.config.log_level)
        node = Node(
            orders.config, self._reactor, self._random, self._wall, inherited=orders.sockets
        )
        node.privilegedStartService()
        _close(orders)
        node.startService()
        self._node = node
        self._reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
        await node.when_begun()

    async def _follow(self, orders: Orders, node: Node) -> None:
        node.inherit(orders.sockets)
        try:
            await node.reload(lambda: orders.config)
        finally:
            _close(orders)


def _close(orders: Orders) -> None:
    """The ports have copies of their own."""
    for descriptor in orders.descriptors:
        os.close(descriptor)
