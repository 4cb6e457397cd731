"""
What quick clients notice of slow ones:
C{python -m bench.slow_clients [--idle N] [--slow N] [--seconds S]}

Lets wrk ask over eight connections, first alone and then beside thousands of clients
that say nothing and hundreds that send a byte now and then or do not read.  Prints the
99th percentile of wrk's waits both times, and the daemon's memory; exit status 1 if the
second is not below 100 ms, or a request failed.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys

from attrs import frozen

from bench.rehearsal import Rehearsal
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
    @ivar late: milliseconds; 99 of 100 answers came sooner.
    @ivar failed: whether a request did.
    """

    late: float
    requests: int
    failed: bool


def load(port: int, seconds: int) -> Heard:
    """What wrk says."""
    said = run(
        *("wrk", "-t1", "-c8", f"-d{seconds}s", "--latency"), f"http://{LOOPBACK}:{port}/"
    )
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    requests = re.search(r"(\d+) requests in", said)
    assert late and requests, said
    failed = "Non-2xx" in said or "Socket errors" in said
    return Heard(float(late[1]) * _UNITS[late[2]], int(requests[1]), failed)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients")
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Rehearsal() as case:
        quick, slow = Nginx(case, "quick"), Backend(case, "slow")
        daemon = Daemon(
            case,
            # To look at thousands of clients every second is what would be measured.
            environment={VARIABLE: ""},
            routes='[{ path = "/slow", upstream = "slow" }, { path = "/flow", upstream = "slow" },'
            ' { path = "/sink", upstream = "slow" }]',
            more=f'[upstreams.slow]\nservers = [{{ address = "{slow.address}" }}]\n',
        )
        daemon.add(quick.port, heartbeat="false")
        alone = load(daemon.http, options.seconds)
        before = daemon.process.memory()
        crowd = Crowd(case, daemon.http)
        crowd.idle(options.idle)
        part = options.slow // 5
        crowd.talk(2 * part, HEAD)
        crowd.talk(2 * part, BODY)
        crowd.ask(part, f"/flow/{16 * MIB}")
        if part:
            wait_until(lambda: slow.told("/flowed"), "the slow readers")
        beside = load(daemon.http, options.seconds)
        grown = (daemon.process.memory("VmHWM") - before) / MIB
        lost = crowd.lost
    print(f"99% of {alone.requests} answers within {alone.late:.1f} ms alone")
    print(
        f"99% of {beside.requests} within {beside.late:.1f} ms beside {options.idle} idle and"
        f" {5 * part} slow clients, of whom {lost} were lost; {grown:.1f} MiB more"
    )
    bad = alone.failed or beside.failed or beside.late >= MOST or lost or case.violations
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
