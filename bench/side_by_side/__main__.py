"""
The command: C{python -m bench.side_by_side [--rounds N] [--seconds S] [WORD]...}
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.side_by_side import peers
from bench.side_by_side.cases import Case, cases
from bench.side_by_side.processes import Running, free_port


def measure(case: Case, balancers: list[Running], core: int, rounds: int, seconds: float) -> None:
    """Drive the balancers in turn, and print the medians and their ratios to the first."""
    costs: dict[str, list[float]] = {balancer.name: [] for balancer in balancers}
    for _ in range(rounds):
        for balancer in balancers:
            before = balancer.cpu()
            through = case.drive(balancer, core, seconds)
            cost = (balancer.cpu() - before) / through
            costs[balancer.name].append(cost if case.unit.startswith("s") else cost * 1e6)
    medians = {name: statistics.median(values) for name, values in costs.items()}
    first = next(iter(medians.values()))
    row = "".join(f"{median / first:7.2f} ({median:8.3f})" for median in medians.values())
    print(f"{case.name:24}{row}  {case.unit}", flush=True)


def main() -> None:
    """Start everything, measure the cases whose names hold one of the words, end everything."""
    options = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="of each case (default 5)")
    options.add_argument("--seconds", type=float, default=3.0, help="of one run (default 3)")
    options.add_argument("words", nargs="*", help="only cases whose names hold one of these")
    given = options.parse_args()
    rounds, seconds = min(given.rounds, 50), min(given.seconds, 60.0)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the balancer, one for the load")
    load, proxy = cores[0], cores[1]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as started:
        scratch = Path(directory)
        # nginx as a backend runs as nobody when it is started as root.
        scratch.chmod(0o755)
        ports = tuple(free_port() for _ in range(3))
        behind = peers.Behind(ports, free_port())
        started.enter_context(peers.backend(scratch, load, ports))
        started.enter_context(peers.redis(load, behind.redis))
        balancers = [
            started.enter_context(make(scratch, proxy, behind))
            for make in (peers.nginx, peers.haproxy, peers.dynbalance)
        ]
        names = "".join(f"{balancer.name:>18}" for balancer in balancers)
        print(f"{'CPU beside nginx':24}{names}")
        for case in cases(scratch):
            if not given.words or any(word in case.name for word in given.words):
                measure(case, balancers, load, rounds, seconds)


main()
