"""
C{twistd dynbalance}: from the command line to a service.  The only module that
names the global reactor.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner

from dynbalance.errors import ConfigError
from dynbalance.log import Logger, set_level
from dynbalance.options import Options, load, refusal
from dynbalance.service import Node
from dynbalance.store.leash import tie
from dynbalance.workers.child import Worker
from dynbalance.workers.crew import Crew
from dynbalance.workers.lines import LineWriter
from dynbalance.workers.process import WIRE
from dynbalance.workers.wire import Wire

__all__ = ["Options", "makeService", "work"]

_log = Logger()


def makeService(options: Options) -> IService:
    """
    @raise SystemExit: the configuration is wrong; every mistake has its line.
    """
    try:
        config = load(options, os.environ, lambda path: Path(path).read_bytes())
    except ConfigError as error:
        raise refusal(error.problems) from None
    # twistd may change its directory before it starts what is made here.
    config = evolve(config, state_dir=os.path.abspath(config.state_dir))
    set_level(config.log_level)

    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # Twisted's reactor goes by the wall clock: a step of that would end every
    # wait at once, or hold back every timer.
    reactor.seconds = time.monotonic
    workers = config.workers or len(os.sched_getaffinity(0))
    crew = Crew(workers, reactor) if workers > 1 else None
    node = Node(config, reactor, random.random, time.time, crew)
    reactor.callWhenRunning(_end_in_order, reactor, node)
    return node


def work(parent: int) -> None:
    """
    Be one worker until the parent says otherwise.

    @param parent: its process id.
    """
    if sys.platform == "linux":
        tie(parent)
    # The terminal, and whoever signals all processes at once, mean the parent.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([LineWriter(sys.stderr)], redirectStandardIO=False)

    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    reactor.seconds = time.monotonic
    worker = Worker(reactor, random.random, time.time)
    factory = Factory.forProtocol(lambda: Wire(worker, reactor))
    reactor.adoptStreamConnection(WIRE, socket.AF_UNIX, factory)
    os.close(WIRE)
    reactor.run(installSignalHandlers=False)


def _end_in_order(reactor: Any, node: Node) -> None:
    """
    SIGTERM and SIGINT end the daemon with status 0, where Twisted would let
    the signal kill it at the end; a second one cuts what is still in flight.
    SIGHUP, which asks daemons to read their configuration again, must not end
    it.
    """

    ordered = False

    def end() -> None:
        nonlocal ordered
        if ordered or node.ending:
            # Later, because two orders in one turn come before the end begins.
            reactor.callLater(0, node.cut_short)
        else:
            ordered = True
            reactor.stop()

    def stop(number: int, frame: object) -> None:
        reactor.callFromThread(end)

    def reload(number: int, frame: object) -> None:
        reactor.callFromThread(
            _log.warn, "SIGHUP: the configuration cannot be read again yet; restart instead"
        )

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, reload)
