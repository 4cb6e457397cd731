"""
The command: C{python -m bench.side_by_side [--rounds N] [--seconds S] [WORD]...}

C{--quick} measures fewer cases against nginx alone, in less than two minutes,
and compares the ratios with those in C{bench/kept.json}; the exit status is 1
when a case got worse, and 2 when that may be because the machine was busy.
C{--keep} writes that file.  C{--against CHECKOUT} measures another version of
dynbalance in turn with this one; C{--scripted} what dynbalance replaces, which
wants Debian's C{libnginx-mod-http-lua}, C{lua-nginx-redis} and C{lua-cjson}.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from attrs import define, field

from bench.side_by_side import kept, peers
from bench.side_by_side.cases import MANY, Case, cases
from bench.side_by_side.processes import Running, free_port
from bench.side_by_side.scripted import scripted


@define
class Row:
    """
    What one case came to.

    @ivar figures: by the balancers' names, one a round.
    @ivar ran: seconds of CPU time of all balancers.
    @ivar waited: seconds that they could have run while others had their core.
    """

    figures: dict[str, list[float]] = field(factory=dict)
    ran: float = 0.0
    waited: float = 0.0

    def take(self, case: Case, balancer: Running, core: int, seconds: float) -> None:
        ran, waited = balancer.cpu(), balancer.waited()
        figure = case.take(balancer, core, seconds)
        self.figures.setdefault(balancer.name, []).append(figure)
        self.ran += balancer.cpu() - ran
        self.waited += balancer.waited() - waited

    @property
    def busy(self) -> float:
        """The share of the balancers' time that others took."""
        return self.waited / (self.ran + self.waited or 1.0)

    def __str__(self) -> str:
        medians = [statistics.median(values) for values in self.figures.values()]
        row = "".join(f"{median / medians[0]:7.2f} ({median:8.3f})" for median in medians)
        return f"{row} {self.busy:8.0%}"


def measure(case: Case, balancers: list[Running], core: int, rounds: int, seconds: float) -> Row:
    """Drive the balancers in turn."""
    row = Row()
    # What is started anew for it comes to the same each time.
    for _ in range(1 if case.fresh else rounds):
        for balancer in balancers:
            if not getattr(balancer, case.port):
                continue
            if case.fresh:
                balancer.__exit__(None, None, None)
                balancer.__enter__()
            row.take(case, balancer, core, seconds)
    return row


@define
class Bench:
    """
    What is started, when it is needed, and ended with C{started}.

    @ivar load: the core of the load and of what is behind the balancers.
    @ivar proxy: the core of the balancers.
    """

    scratch: Path
    started: ExitStack
    load: int
    proxy: int
    quick: bool
    against: Path | None
    scripted: bool
    _few: tuple[str, ...] = ()
    _many: tuple[str, ...] = ()
    _redis: int = field(factory=free_port)
    _balancers: dict[int, list[Running]] = field(factory=dict)

    def begin(self, many: bool) -> None:
        """@param many: whether there are cases that need many servers."""
        self._few = tuple(f"127.0.0.1:{free_port()}" for _ in range(3))
        if many:
            port = free_port()
            self._many = tuple(f"127.1.{n // 250}.{n % 250}:{port}" for n in range(MANY))
        servers = self._few + self._many
        self.started.enter_context(peers.backend(self.scratch, self.load, servers))
        self.started.enter_context(peers.redis(self.load, self._redis))

    def balancers(self, servers: int) -> list[Running]:
        """In front of so many servers; 0: of the usual few."""
        if servers not in self._balancers:
            place = self.scratch / f"before-{servers}"
            place.mkdir()
            place.chmod(0o755)
            http = self._many[:servers] if servers else self._few
            behind = peers.Behind(http, self._redis, keeps=not servers)
            made = [peers.nginx(place, self.proxy, behind)]
            if not self.quick:
                made.append(peers.haproxy(place, self.proxy, behind))
            made.append(peers.dynbalance(place, self.proxy, behind))
            if self.against is not None:
                other = peers.dynbalance(place, self.proxy, behind, "the other", self.against)
                made.append(other)
            if self.scripted and not servers:
                made.append(scripted(place, self.proxy, behind))
            self._balancers[servers] = [self.started.enter_context(each) for each in made]
        return self._balancers[servers]


def main() -> int:
    """Start everything, measure the cases whose names hold one of the words, end everything."""
    options = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="of each case (default 5)")
    options.add_argument("--seconds", type=float, help="of one run (default 3, quick 1)")
    options.add_argument("--quick", action="store_true", help="compare with the kept figures")
    options.add_argument("--keep", action="store_true", help="keep the figures")
    options.add_argument("--against", type=Path, help="another checkout of dynbalance")
    options.add_argument("--scripted", action="store_true", help="nginx with Lua and Redis, too")
    options.add_argument("words", nargs="*", help="only cases whose names hold one of these")
    given = options.parse_args()
    seconds = min(given.seconds or (1.0 if given.quick else 3.0), 60.0)
    # Fewer do not tell how much is chance.
    rounds = max(3 if given.quick or given.keep else 1, min(given.rounds, 50))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the balancer, one for the load")
    # Ten thousand servers are as many sockets.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    against = None if given.against is None else given.against.resolve()
    figures, verdicts, before = {}, [], kept.load()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as started:
        scratch = Path(directory)
        # nginx as a backend runs as nobody when it is started as root.
        scratch.chmod(0o755)
        wanted = [
            case
            for case in cases(scratch)
            if (case.quick or not given.quick)
            and (not given.words or any(word in case.name for word in given.words))
        ]
        bench = Bench(scratch, started, cores[0], cores[1], given.quick, against, given.scripted)
        bench.begin(any(case.servers for case in wanted))
        names = "".join(f"{balancer.name:>18}" for balancer in bench.balancers(0))
        print(f"{'beside nginx':24}{names}   others")
        for case in wanted:
            balancers = bench.balancers(case.servers)
            row = measure(case, balancers, bench.load, rounds, seconds)
            ours, theirs = row.figures["dynbalance"], row.figures["nginx"]
            print(f"{case.name:24}{row}  {case.unit}", end="", flush=True)
            if case.quick:
                figures[case.name] = kept.Figure.of(ours, theirs, row.busy)
            if given.quick:
                verdicts.append(kept.judge(figures[case.name], before.get(case.name)))
                print(f"; {verdicts[-1].text}", end="")
            print(flush=True)
    if given.keep:
        kept.save(figures)
        return 0
    return kept.status(verdicts)


sys.exit(main())
