"""
What quick clients notice of slow ones:
C{python -m bench.slow_clients [--idle N] [--slow N] [--rounds N] [--seconds S]}

Lets wrk ask over eight connections, first alone and then beside thousands of clients
that say nothing and hundreds that send a byte now and then or do not read.  The daemon
has a core for itself, where there are two.  Prints the 99th percentile of wrk's waits
both times, the median of the rounds, and the daemon's memory; exit status 1 if the
second is not below 100 ms, or a request failed or a client was lost; 2 if it was only
late, and others had the daemon's core meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys

from attrs import frozen

from bench.rehearsal import Rehearsal
from bench.side_by_side.kept import BUSY
from bench.side_by_side.processes import scheduled
from dynbalance.invariants import VARIABLE
from tests.endtoend.crowd import BODY, HEAD, Crowd
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, run, wait_until
from tests.endtoend.servers import Backend, Nginx

MIB = 1 << 20
MOST = 100.0
"""Milliseconds that one in a hundred may wait beside the slow ones."""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@frozen
class Heard:
    """
    What wrk says of some rounds.

    @ivar late: of each, milliseconds; 99 of 100 answers came sooner.
    @ivar requests: in all of them.
    @ivar failed: whether a request did.
    @ivar busy: the share of the daemon's time that others took.
    """

    late: list[float]
    requests: int
    failed: bool
    busy: float

    @classmethod
    def of(cls, daemon: Daemon, rounds: int, seconds: int) -> Heard:
        """Listen to it."""
        ran, waited = scheduled(daemon.process.pid)
        late, requests, failed = [], 0, False
        url = f"http://{LOOPBACK}:{daemon.http}/"
        for _ in range(rounds):
            said = run("wrk", "-t1", "-c8", f"-d{seconds}s", "--latency", url)
            percentile = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
            number = re.search(r"(\d+) requests in", said)
            assert percentile and number, said
            late.append(float(percentile[1]) * _UNITS[percentile[2]])
            requests += int(number[1])
            failed = failed or "Non-2xx" in said or "Socket errors" in said
        now_ran, now_waited = scheduled(daemon.process.pid)
        ran, waited = now_ran - ran, now_waited - waited
        return cls(late, requests, failed, waited / (ran + waited or 1.0))

    @property
    def median(self) -> float:
        return statistics.median(self.late)

    def __str__(self) -> str:
        rounds = ", ".join(f"{late:.1f}" for late in self.late)
        return (
            f"99% of {self.requests} answers within {self.median:.1f} ms (rounds: {rounds}),"
            f" others had {self.busy:.0%} of the daemon's time"
        )


def apart(daemon: Daemon) -> None:
    """Give the daemon a core for itself, and the others to all that is here."""
    *others, last = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(daemon.process.pid, {last})
        os.sched_setaffinity(0, others)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients")
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    with Rehearsal() as case:
        daemon = Daemon(
            case,
            # To look at thousands of clients every second is what would be measured.
            environment={VARIABLE: ""},
            routes='[{ path = "/slow", upstream = "slow" }, { path = "/flow", upstream = "slow" },'
            ' { path = "/sink", upstream = "slow" }]',
            more="[upstreams.slow]\n",
        )
        apart(daemon)
        quick, slow = Nginx(case, "quick"), Backend(case, "slow")
        daemon.add(quick.port, heartbeat="false")
        daemon.add(slow.port, heartbeat="false", upstream="slow")
        alone = Heard.of(daemon, options.rounds, options.seconds)
        print(f"alone: {alone}", flush=True)
        before = daemon.process.memory()
        crowd = Crowd(case, daemon.http)
        crowd.idle(options.idle)
        part = options.slow // 5
        crowd.talk(2 * part, HEAD)
        crowd.talk(2 * part, BODY)
        crowd.ask(part, f"/flow/{16 * MIB}")
        if part:
            wait_until(lambda: slow.told("/flowed"), "the slow readers")
        beside = Heard.of(daemon, options.rounds, options.seconds)
        grown = (daemon.process.memory("VmHWM") - before) / MIB
        lost = crowd.lost
    print(f"beside {options.idle} idle and {5 * part} slow clients: {beside}")
    print(f"{lost} of these were lost; {grown:.1f} MiB more")
    if alone.failed or beside.failed or lost or case.violations:
        sys.exit(1)
    if beside.median >= MOST:
        sys.exit(2 if beside.busy > BUSY else 1)


if __name__ == "__main__":
    main()
