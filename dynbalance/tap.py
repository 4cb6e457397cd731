"""
C{twistd dynbalance}: from the command line to a service.  The only module that
names the global reactor.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner

from dynbalance.config import Config
from dynbalance.errors import ConfigError
from dynbalance.invariants import Invariants
from dynbalance.log import set_level
from dynbalance.notify import Notifier
from dynbalance.options import Options, load, refusal
from dynbalance.reloads import Reloads
from dynbalance.service import Node
from dynbalance.store.leash import tie
from dynbalance.workers.child import Worker
from dynbalance.workers.crew import Crew
from dynbalance.workers.lines import LineWriter
from dynbalance.workers.process import WIRE
from dynbalance.workers.wire import Wire

__all__ = ["Options", "makeService", "work"]


def makeService(options: Options) -> IService:
    """
    @raise SystemExit: the configuration is wrong; every mistake has its line.
    """
    # twistd may change its directory before it starts what is made here.
    directory = os.getcwd()
    environment = dict(os.environ)

    def read() -> Config:
        config = load(options, environment, lambda path: Path(directory, path).read_bytes())
        return evolve(
            config, state_dir=os.path.abspath(os.path.join(directory, config.state_dir))
        )

    try:
        config = read()
    except ConfigError as error:
        raise refusal(error.problems) from None
    set_level(config.log_level)

    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # Twisted's reactor goes by the wall clock: a step of that would end every
    # wait at once, or hold back every timer.
    reactor.seconds = time.monotonic
    workers = config.workers or len(os.sched_getaffinity(0))
    crew = Crew(workers, reactor) if workers > 1 else None
    notifier = Notifier.of(os.environ, os.getpid(), reactor)
    node = Node(config, reactor, random.random, time.time, crew, notifier=notifier)
    reactor.callWhenRunning(_end_in_order, reactor, node)
    reactor.callWhenRunning(_go_on_in_order, reactor, Reloads(node, read))
    Invariants.watch(environment, reactor, lambda: node.works)
    return node


def work(parent: int) -> None:
    """
    Be one worker until the parent says otherwise.

    @param parent: its process id.
    """
    if sys.platform == "linux":
        tie(parent)
    globalLogBeginner.beginLoggingTo([LineWriter(sys.stderr)], redirectStandardIO=False)

    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    reactor.seconds = time.monotonic
    worker = Worker(reactor, random.random, time.time)
    Invariants.watch(os.environ, reactor, lambda: worker.works)
    factory = Factory.forProtocol(lambda: Wire(worker, reactor))
    reactor.adoptStreamConnection(WIRE, socket.AF_UNIX, factory)
    os.close(WIRE)
    reactor.run(installSignalHandlers=False)


def _end_in_order(reactor: Any, node: Node) -> None:
    """
    SIGTERM and SIGINT end the daemon with status 0, where Twisted would let
    the signal kill it at the end; a second one cuts what is still in flight.
    A start that fails late ends it with status 1.
    """

    ordered = False

    def end() -> None:
        nonlocal ordered
        if ordered or node.ending:
            # Later, because two orders in one turn come before the end begins.
            reactor.callLater(0, node.cut_short)
        else:
            ordered = True
            # It may have begun by itself, when another process took over.
            with suppress(ReactorNotRunning):
                reactor.stop()

    def stop(number: int, frame: object) -> None:
        reactor.callFromThread(end)

    def tell() -> None:
        if node.failed:
            # At the very end, when twistd has removed its pidfile: it knows of
            # no status but 0.
            atexit.register(os._exit, 1)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    reactor.addSystemEventTrigger("after", "shutdown", tell)


def _go_on_in_order(reactor: Any, reloads: Reloads) -> None:
    """
    SIGHUP has the configuration read again; SIGUSR1 has the access logs opened
    anew, and does what twistd does at it.
    """
    rotate = signal.getsignal(signal.SIGUSR1)

    def reload(number: int, frame: object) -> None:
        reactor.callFromThread(reloads.ask)

    def reopen(number: int, frame: Any) -> None:
        reactor.callFromThread(reloads.reopen_logs)
        if callable(rotate):
            rotate(number, frame)

    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGUSR1, reopen)
