"""
All workers of a daemon.

Knows what is done with them together: begin, watch, ask, end.  Refuses to know
what each of them serves.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from dynbalance.admin.answers import Answer
from dynbalance.admin.crew import Lives, Matter, together
from dynbalance.config import Config, StoreUrl
from dynbalance.errors import ConfigError, DynbalanceError
from dynbalance.log import Logger
from dynbalance.workers.lives import lives_from_json, matter_to_json
from dynbalance.workers.orders import Orders, config_of, node_of
from dynbalance.workers.process import Owner, Process
from dynbalance.workers.sockets import Opened, Sockets
from dynbalance.workers.sums import Sums, from_json
from dynbalance.workers.wire import NoAnswer
from dynbalance.workers.worker import State, Worker

LOOK = 1.0
"""Seconds between two looks after the workers."""

FIRST = 20.0
"""Seconds that a start waits for all workers at most."""

SCRAPE = 8.0
"""Seconds that a worker may take to tell its metrics."""

SIGHT = 1.0
"""Seconds that it may take to tell how its servers are, or to look after them."""


SUCCESSION = 3.0
"""Seconds that it may take to let go what a successor must have."""


class Incomplete(DynbalanceError):
    """Not all workers serve."""


class Crew:
    """
    @ivar workers: in the order of their numbers.
    """

    _log = Logger()

    def __init__(self, size: int, reactor: Any) -> None:
        """@param size: how many workers."""
        self.size = size
        self.workers: list[Worker] = []
        self._reactor = reactor
        self._sums = Sums()
        self._sockets = Sockets(size)
        self._unseen: dict[str, list[Deferred[None]]] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def __repr__(self) -> str:
        return f"<Crew {self.workers}>"

    @property
    def serving(self) -> int:
        """How many workers serve now."""
        return sum(worker.state is State.SERVING for worker in self.workers)

    def open(self, opened: Iterable[Opened]) -> None:
        """
        Make the sockets that the workers are to accept from: at the next
        L{begin} or L{follow}.

        @raise ConfigError: that cannot be; nothing has changed.
        """
        try:
            self._sockets.prepare(opened)
        except OSError as failed:
            raise ConfigError([f"workers: {failed.strerror}"]) from None

    def begin(self, config: Config, node: str, store: StoreUrl) -> Deferred[None]:
        """
        Start them.

        @param config: the daemon's.
        @param node: the daemon's name in the store.
        @param store: as a worker reaches it.
        @return: fires when all serve, or after L{FIRST} seconds; fails only when
            it is cancelled.
        """
        self._node, self._store = node, store
        self._switch(config)
        self.workers = [self._worker(number) for number in range(1, self.size + 1)]
        for worker in self.workers:
            worker.start()
        self._looking.start(LOOK, now=False)
        # Of its own: whoever gives up waiting takes nothing from the workers.
        begun: Deferred[None] = Deferred()
        all_serve = gatherResults([each.when_serving() for each in self.workers])
        all_serve.addCallback(lambda _: begun.callback(None))
        return begun.addTimeout(FIRST, self._reactor).addErrback(self._late)

    def _late(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self._log.error(
            "{missing} of {size} workers do not serve after {seconds} s",
            missing=self.size - self.serving,
            size=self.size,
            seconds=FIRST,
        )

    def require_all(self) -> None:
        """@raise Incomplete: not all serve."""
        if self.serving < self.size:
            raise Incomplete(f"{self.size - self.serving} of {self.size} workers do not serve")

    def follow(self, config: Config) -> Deferred[None]:
        """
        Have all go on by another configuration.

        @return: fires when they do; never fails.
        """
        self._switch(config)
        followed: Deferred[Any] = gatherResults([each.follow() for each in self.workers])
        return followed.addCallback(lambda _: None)

    def _switch(self, config: Config) -> None:
        self._config = config
        self._sockets.switch()

    def _worker(self, number: int) -> Worker:
        def orders() -> Orders:
            config = config_of(self._config, self._node, number, self.size, self._store)
            return Orders(config, self._sockets.of(number - 1))

        def start(owner: Owner, orders: Orders) -> Process:
            return Process(self._reactor, owner, f"w{number}", orders.descriptors)

        return Worker(number, start, orders, self._ended, self._reactor)

    def sockets_of(self, ports: Sequence[Any]) -> tuple[socket.socket, ...]:
        """
        @param ports: of Twisted, as L{open} was told.
        @return: all sockets that workers accept from there.
        """
        return self._sockets.of_ports(ports)

    def close_sockets(self) -> None:
        """Nobody else is let in."""
        self._sockets.close()

    def end(self, patience: float) -> Deferred[None]:
        """
        @param patience: seconds for what is in flight.
        @return: fires when no worker is left.
        """
        if self._looking.running:
            self._looking.stop()
        ended: Deferred[Any] = gatherResults([each.end(patience) for each in self.workers])
        return ended.addCallback(lambda _: None)

    async def let_go(self, node: str) -> None:
        """
        Have all let go what only one process may have.

        @param node: the name in the store of the daemon that takes over.
        """
        await self._ask_all(
            "let go", lambda number: node_of(node, number) if node else "", SUCCESSION
        )

    async def take_back(self) -> None:
        """Who took over failed."""
        await self._ask_all("take back", lambda _: None, SUCCESSION)

    def retire(self, successor: int, patience: float) -> Deferred[None]:
        """
        Another daemon goes on with the sockets.

        @param successor: its process id.
        @param patience: seconds for what is in flight.
        @return: fires when no worker is left.
        """
        self._sockets.leave()
        ended: Deferred[Any] = gatherResults(
            [each.retire(successor, patience) for each in self.workers]
        )
        return ended.addCallback(lambda _: None)

    def cut(self) -> None:
        """Wait no longer for what is in flight."""
        for worker in self.workers:
            worker.cut()

    def reopen_logs(self) -> None:
        """Have the access logs opened anew."""
        for worker in self.workers:
            worker.reopen_logs()

    async def traffic(self, is_known: Callable[[Mapping[str, str]], bool]) -> list[Metric]:
        """
        The metrics of all workers as those of one process, and how they are.

        @param is_known: whether what has such labels still is.
        """
        fresh: set[int] = set()

        def hear(number: int, data: Any) -> None:
            # At once: its process may end while others are waited for.
            self._sums.heard(number, from_json(data))
            fresh.add(number)

        await self._ask_all("metrics", lambda _: None, SCRAPE, hear)
        self._sums.forget(is_known)
        return [*self._sums.metrics(fresh), *self._well_being()]

    async def lives(self, upstream: str) -> Lives:
        """What the workers see of an upstream's servers, as one."""
        told: dict[int, Any] = {}
        await self._ask_all("lives", lambda _: upstream, SIGHT, told.__setitem__)
        return together({number: lives_from_json(data) for number, data in told.items()})

    async def foretell(self, matter: Matter) -> Answer | None:
        """
        What the first worker that answers would choose, with its number; each
        goes by what it has seen itself.
        """
        for worker in self.workers:
            try:
                message, told = await worker.ask("foretell", matter_to_json(matter), SIGHT)
            except NoAnswer:
                continue
            return Answer(message, {**told, "worker": worker.number})
        return None

    def see(self, upstream: str) -> Deferred[None]:
        """
        Have all workers see at once what was changed.

        @return: fires when they have, or do not answer; never fails.
        """
        seen: Deferred[None] = Deferred()
        first = upstream not in self._unseen
        self._unseen.setdefault(upstream, []).append(seen)
        if first:
            Deferred.fromCoroutine(self._see_all(upstream))
        return seen

    async def _see_all(self, upstream: str) -> None:
        """Many changes in a row are seen together."""
        while waiting := self._unseen[upstream]:
            self._unseen[upstream] = []
            await self._ask_all("see", lambda _: upstream, SIGHT)
            for each in waiting:
                each.callback(None)
        del self._unseen[upstream]

    async def _ask_all(
        self,
        what: str,
        data: Callable[[int], Any],
        patience: float,
        take: Callable[[int, Any], object] = lambda number, answer: None,
    ) -> None:
        """
        @param data: what the worker of a number is told.
        @param take: gets each answer that comes in time, with the worker's number.
        """

        def miss(failure: Failure, worker: Worker) -> None:
            failure.trap(NoAnswer)
            self._log.debug(
                "Worker {number} has no answer to {what}", number=worker.number, what=what
            )

        asked = []
        for worker in self.workers:
            answer = worker.ask(what, data(worker.number), patience)
            answer.addCallbacks(partial(take, worker.number), miss, errbackArgs=(worker,))
            asked.append(answer)
        await gatherResults(asked)

    def _well_being(self) -> list[Metric]:
        up = GaugeMetricFamily(
            "dynbalance_worker_up", "Whether a worker serves (1) or not (0).", labels=("worker",)
        )
        starts = CounterMetricFamily(
            "dynbalance_worker_starts", "Processes started for a worker.", labels=("worker",)
        )
        for worker in self.workers:
            up.add_metric((str(worker.number),), worker.state is State.SERVING)
            starts.add_metric((str(worker.number),), worker.starts)
        return [up, starts]

    def _ended(self, worker: Worker) -> None:
        self._sums.gone(worker.number)

    def _look(self) -> None:
        for worker in self.workers:
            worker.look()
