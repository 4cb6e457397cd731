"""
One place among the workers: a process and, when that ends, the next one.

Knows when a process is started, given up and started again; refuses to know
how (L{dynbalance.workers.process}) and what the others do.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dynbalance.backoff import BackOff
from dynbalance.log import Logger
from dynbalance.workers.orders import Orders
from dynbalance.workers.process import Owner, Process
from dynbalance.workers.wire import NoAnswer

START = 30.0
"""Seconds that a process may take until it serves."""

SILENCE = 10
"""Looks in a row at which a process may owe an answer."""

FAREWELL = 5.0
"""Seconds that a process may take beyond C{shutdown_timeout} to end."""


class State(Enum):
    """Where a worker is."""

    WAITING = "waiting"
    STARTING = "starting"
    SERVING = "serving"
    ENDING = "ending"
    ENDED = "ended"


class Worker:
    """
    @ivar number: from 1.
    @ivar state: see L{State}.
    @ivar starts: how often a process was started.
    """

    _log = Logger()

    def __init__(
        self,
        number: int,
        start: Callable[[Owner, Orders], Process],
        orders: Callable[[], Orders],
        on_end: Callable[[Worker], None],
        clock: IReactorTime,
    ) -> None:
        """
        @param start: starts a process.
        @param orders: what it is told to be.
        @param on_end: told when a process has ended.
        """
        self.number = number
        self.state = State.WAITING
        self.starts = 0
        self._start = start
        self._orders = orders
        self._on_end = on_end
        self._clock = clock
        self._back_off = BackOff()
        self._process: Process | None = None
        self._started = 0.0
        self._next: IDelayedCall | None = None
        self._owed = 0
        self._ends: list[Deferred[None]] = []
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Worker {self.number} {self.state.value} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """The process id; C{None} between two processes."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start a process."""
        self._next = None
        self._started = self._clock.seconds()
        self.starts += 1
        orders = self._orders()
        try:
            self._process = self._start(self, orders)
        except OSError as error:
            self._again(str(error))
            return
        self.state = State.STARTING
        self._owed = 0
        process = self._process
        begun = process.wire.ask("begin", orders.to_json(), START)
        begun.addCallbacks(lambda _: self._serves(process), lambda why: self._give_up(process, why))

    def when_serving(self) -> Deferred[None]:
        """Fires when it serves, or has ended for good."""
        waiting: Deferred[None] = Deferred()
        if self.state in (State.SERVING, State.ENDED):
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def look(self) -> None:
        """
        Ask whether it is still there; end it when it has not said so for long.
        To be called every second or so: looks are counted, not seconds, so
        that a pause of this process is nobody's fault.
        """
        if self.state is not State.SERVING or self._process is None:
            return
        if self._owed >= SILENCE:
            self._log.error(
                "Worker {number} (process {pid}) does not answer and is killed",
                number=self.number,
                pid=self.pid,
            )
            self._process.kill()
            return
        self._owed += 1
        if self._owed == 1:
            self.ask("ping", None, SILENCE * 10.0).addCallbacks(self._answered, lambda _: None)

    def ask(self, what: str, data: Any, patience: float) -> Deferred[Any]:
        """@return: the answer; fails with L{NoAnswer}."""
        if self._process is None:
            answer: Deferred[Any] = Deferred()
            answer.errback(NoAnswer("it does not run"))
            return answer
        return self._process.wire.ask(what, data, patience)

    def end(self, patience: float) -> Deferred[None]:
        """
        Have it finish what it does and end, for good.

        @param patience: seconds for what is in flight.
        @return: fires when there is no process.
        """
        return self._finish("end", None, patience)

    def retire(self, successor: int, patience: float) -> Deferred[None]:
        """
        Have it leave its sockets to another process, finish and end.

        @param successor: the process id of the daemon that goes on.
        @param patience: see L{end}.
        @return: see L{end}.
        """
        return self._finish("retire", successor, patience)

    def _finish(self, order: str, data: Any, patience: float) -> Deferred[None]:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._process is None:
            self._over()
            return succeed(None)
        self.state = State.ENDING
        ended: Deferred[None] = Deferred()
        self._ends.append(ended)
        self._process.wire.tell(order, data)
        kill = self._clock.callLater(patience + FAREWELL, self._process.kill)
        return ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def follow(self) -> Deferred[None]:
        """
        Have it go on by other orders.

        @return: fires when it does, or has said why not; never fails.
        """
        process = self._process
        if process is None or self.state is not State.SERVING:
            if process is not None and self.state is State.STARTING:
                # It begins by the former ones; the next process does not.
                process.kill()
            return succeed(None)
        orders = self._orders()
        followed = process.wire.ask("follow", orders.to_json(), START, orders.descriptors)

        def stay(why: Any) -> None:
            self._log.error(
                "Worker {number} goes on by the former configuration: {why}",
                number=self.number,
                why=why.getErrorMessage(),
            )

        return followed.addCallbacks(lambda _: None, stay)

    def cut(self) -> None:
        """Wait no longer for what is in flight."""
        if self._process is not None:
            self._process.wire.tell("cut")

    def reopen_logs(self) -> None:
        """Have the access logs opened anew."""
        if self._process is not None:
            self._process.wire.tell("reopen")

    def process_ended(self, why: str) -> None:
        """The process is no more; unless that was ordered, another one follows."""
        self._process = None
        self._on_end(self)
        if self.state is State.ENDING:
            self._over()
            ends, self._ends = self._ends, []
            for each in ends:
                # Later, because whoever waits may want to end the reactor.
                self._clock.callLater(0, each.callback, None)
        else:
            self._again(why)

    def _serves(self, process: Process) -> None:
        if self._process is process and self.state is State.STARTING:
            self.state = State.SERVING
            self._log.info(
                "Worker {number} serves (process {pid})", number=self.number, pid=self.pid
            )
            self._tell()

    def _give_up(self, process: Process, why: Any) -> None:
        if self._process is process:
            self._log.error(
                "Worker {number} (process {pid}) cannot begin: {why}",
                number=self.number,
                pid=self.pid,
                why=why.getErrorMessage(),
            )
            process.kill()

    def _answered(self, _: Any) -> None:
        self._owed = 0

    def _again(self, why: str) -> None:
        self.state = State.WAITING
        delay = self._back_off.delay(self._clock.seconds() - self._started)
        self._log.error(
            "Worker {number} does not run: {why} Started again in {delay} s",
            number=self.number,
            why=why,
            delay=delay,
        )
        self._next = self._clock.callLater(delay, self.start)

    def _over(self) -> None:
        self.state = State.ENDED
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
