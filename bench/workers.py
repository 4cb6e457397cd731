"""
What several workers cost, and how evenly the kernel spreads clients over them:
C{python -m bench.workers [--rounds N] [--seconds S]}

Drives a daemon with one worker, with two, and with two that share one socket
(as one that systemd opened is shared).  Prints the CPU time of all its processes
for a request, how many went through a second, and how many of the clients each
worker had.  Two cores carry everything, load and backend too, unless there are
more: then the workers have all but the first.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from bench.side_by_side import peers
from bench.side_by_side.processes import CHECKOUT, Running, free_port

CONNECTIONS = 50

_SHARING = """\
import os, socket
skt = socket.socket()
skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
skt.bind(("127.0.0.1", {port}))
skt.listen(4096)
os.dup2(skt.fileno(), 3)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}}
from twisted.scripts.twistd import run
run()
"""


@frozen
class Way:
    """
    @ivar shared: whether all workers accept from one socket.
    """

    name: str
    workers: int
    shared: bool = False


WAYS = [Way("one process", 1), Way("two workers", 2), Way("two, one socket", 2, shared=True)]


@frozen
class Result:
    """
    @ivar cost: microseconds of CPU time for a request.
    @ivar rate: requests a second.
    @ivar spread: clients of each worker.
    """

    cost: float
    rate: float
    spread: list[int]


def daemon(scratch: Path, way: Way, cores: str, servers: list[int]) -> tuple[Running, int]:
    """@return: the daemon, and the port of its admin API."""
    http, admin = free_port(), free_port()
    place = scratch / way.name.replace(" ", "-").replace(",", "")
    place.mkdir()
    listen = "systemd:domain=INET:index=0" if way.shared else f"tcp:{http}:interface=127.0.0.1"
    addresses = ", ".join(f'{{ address = "127.0.0.1:{port}", max_conns = 0 }}' for port in servers)
    (place / "conf.toml").write_text(
        f'workers = {way.workers}\n[[http]]\nlisten = "{listen}"\n'
        f'keepalive_requests = 2147483647\n[admin]\nlisten = "tcp:{admin}:interface=127.0.0.1"\n'
        f"[upstreams.default]\nkeepalive_requests = 2147483647\nservers = [{addresses}]\n"
    )
    program = _SHARING.format(port=http) if way.shared else (
        "from twisted.scripts.twistd import run; run()"
    )
    command = [sys.executable, "-c", program, "--nodaemon", "--pidfile=", "dynbalance"]
    command += ["--config", str(place / "conf.toml"), "--state-dir", str(place / "state")]
    environment = {"PYTHONPATH": str(CHECKOUT)}
    return Running(way.name, command, cores, http=http, environment=environment), admin


def children(pid: int) -> list[int]:
    """The processes that serve."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [
        int(each)
        for each in found
        if b"dynbalance.workers" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    return workers or [pid]


def ticks(pids: list[int]) -> float:
    """Seconds of CPU time that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def clients(admin: int, workers: int) -> list[int]:
    """Clients that each worker has now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    sample = r"^dynbalance_listener_connections\{kind=\"http\".*\} (\S+)$"
    found = re.findall(sample, text, re.MULTILINE)
    return [int(float(each)) for each in found][:workers]


def measure(running: Running, admin: int, way: Way, core: int, seconds: float) -> Result:
    """Drive a daemon once."""
    assert running.process is not None
    pids = children(running.process.pid)
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s"]
    before = ticks(pids)
    load = subprocess.Popen(
        [*command, f"http://127.0.0.1:{running.http}/"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(seconds / 2)
    spread = clients(admin, way.workers)
    report, _ = load.communicate(timeout=seconds + 30)
    requests = re.search(r"(\d+) requests in ([\d.]+)s", report)
    assert requests is not None, report
    number = int(requests[1])
    return Result((ticks(pids) - before) / number * 1e6, number / float(requests[2]), spread)


def main() -> None:
    """Start everything, measure each way in turn, print medians, end everything."""
    options = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="of each way (default 5)")
    options.add_argument("--seconds", type=float, default=4.0, help="of one run (default 4)")
    given = options.parse_args()
    rounds, seconds = min(given.rounds, 50), min(given.seconds, 60.0)
    cores = sorted(os.sched_getaffinity(0))
    theirs = ",".join(str(core) for core in (cores[1:] if len(cores) > 2 else cores))
    with tempfile.TemporaryDirectory() as directory, ExitStack() as started:
        scratch = Path(directory)
        scratch.chmod(0o755)
        ports = [free_port() for _ in range(3)]
        servers = tuple(f"127.0.0.1:{port}" for port in ports)
        started.enter_context(peers.backend(scratch, cores[0], servers))
        daemons = [(way, *daemon(scratch, way, theirs, ports)) for way in WAYS]
        for _, running, _ in daemons:
            started.enter_context(running)
        results: dict[str, list[Result]] = {way.name: [] for way in WAYS}
        for _ in range(rounds):
            for way, running, admin in daemons:
                results[way.name].append(measure(running, admin, way, cores[0], seconds))
    print(f"{'':18}{'us a request':>14}{'requests/s':>12}   clients of each worker, by rounds")
    for name, each in results.items():
        cost = statistics.median(result.cost for result in each)
        rate = statistics.median(result.rate for result in each)
        spreads = " ".join("/".join(map(str, result.spread)) for result in each)
        print(f"{name:18}{cost:14.1f}{rate:12.0f}   {spreads}")


main()
