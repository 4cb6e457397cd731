"""
What one store sees of many nodes, and where that ends.

Run as C{python bench/store_model.py}; takes about half a minute.  A real server
(C{redis-server} or C{valkey-server}) runs the real scripts for a few simulated
nodes; from what that costs, linear in the addresses that an exchange tells and
hears, follows what many nodes cost.  C{--nodes}, C{--servers},
C{--connections} and C{--lasting} (seconds that a connection lasts) describe
the deployment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp
from random import Random
from typing import Any

import hiredis
from attrs import field, frozen

from dynbalance.store import codec, scripts, serverjson
from dynbalance.store.contract import ServerOrder
from dynbalance.store.keys import upstream_keys
from dynbalance.store.reports import Report, Wish

PREFIX, UPSTREAM, LEASE = "{bench}", "default", 60.0
SERVERS = 1000
BUSY = 0.5
"""The share of one core that a store should not go beyond."""


class Store:
    """A server of our own, and one connection to it."""

    def __init__(self, directory: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program, "redis-server or valkey-server is needed"
        path = os.path.join(directory, "s")
        command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", directory]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._reader = hiredis.Reader()
        self._socket = socket.socket(socket.AF_UNIX)
        self.sent = self.received = 0
        end = time.monotonic() + 10.0
        while self._socket.connect_ex(path):
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.01)
        self._scripts = scripts.load()
        for script in self._scripts.values():
            self("SCRIPT", "LOAD", script.text)

    def __call__(self, *words: str) -> Any:
        raw = [word.encode() for word in words]
        data = b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in raw)
        self._socket.sendall(data)
        self.sent += len(data)
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(1 << 16)
            assert data, "the server has closed the connection"
            self.received += len(data)
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def run(self, name: str, call: codec.Call) -> Any:
        keys, args = call
        return self("EVALSHA", self._scripts[name].sha, str(len(keys)), *keys, *args)

    def add(self, address: str) -> None:
        host, _, port = address.partition(":")
        text = serverjson.order_text(
            ServerOrder(address=address, host=host, port=int(port), max_conns=0)
        )
        self.run("add", (list(upstream_keys(PREFIX, UPSTREAM)), [address, text, "bench"]))

    def info(self, section: str) -> dict[str, str]:
        lines = self("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu(self) -> float:
        """Seconds of it so far."""
        info = self.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def commands(self) -> int:
        """So far, with those inside of scripts."""
        stats = self.info("commandstats").values()
        return sum(int(said.split("calls=")[1].split(",")[0]) for said in stats)

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(10.0)


@contextmanager
def running() -> Iterator[Store]:
    """A store, as long as it is needed."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        try:
            yield store
        finally:
            store.close()


@frozen(slots=True)
class Cost:
    """
    Of one call.

    @ivar told: addresses that it told.
    @ivar heard: addresses that it heard of.
    @ivar cpu: seconds of the server's.
    @ivar size: bytes, both ways.
    """

    told: float
    heard: float
    cpu: float
    commands: float
    size: float


@frozen(slots=True)
class Line:
    """A cost by what it depends on: C{base + told * x + heard * y}."""

    base: float
    told: float
    heard: float

    def at(self, told: float, heard: float) -> float:
        return self.base + self.told * told + self.heard * heard


@frozen(slots=True)
class Fit:
    """What an exchange costs, from three measurements."""

    cpu: Line = field()
    commands: Line = field()
    size: Line = field()

    @classmethod
    def of(cls, idle: Cost, alone: Cost, many: Cost) -> Fit:
        def line(name: str) -> Line:
            base = getattr(idle, name)
            both = (getattr(alone, name) - base) / alone.told
            # In both, an address that is told is heard of, too.
            rest = getattr(many, name) - base - both * many.told
            heard = max(0.0, rest / (many.heard - many.told))
            return Line(base, both - heard, heard)

        return cls(line("cpu"), line("commands"), line("size"))


class Simulation:
    """Nodes that exchange in turn, with different connections each time."""

    def __init__(self, store: Store, nodes: int) -> None:
        self._store = store
        self._chance = Random(1)
        self._addresses = [f"10.0.{n // 250}.{n % 250}:80" for n in range(SERVERS)]
        self._seen = [0] * nodes
        self._number = 0
        store("FLUSHALL")
        for address in self._addresses:
            store.add(address)
        for node in range(nodes):
            self._sync(node, dict.fromkeys(self._addresses, 10), full=True)
        for node in range(nodes):
            self._sync(node, {})

    def _sync(self, node: int, held: dict[str, int], *, full: bool = False) -> int:
        self._number += 1
        report = Report(
            held=held, full=full, seen=self._seen[node], number=self._number, settled=self._number
        )
        call = codec.sync_call(PREFIX, f"node-{node}", LEASE, {UPSTREAM: report})
        reply = self._store.run("sync", call)
        answer = codec.sync_answers([UPSTREAM], reply)[UPSTREAM]
        assert not (answer.lapsed or answer.late)
        self._seen[node] = answer.seq
        return len(answer.totals)

    def measure(self, told: int, rounds: int) -> Cost:
        """Exchanges in which each node tells so many addresses."""
        store, nodes, heard = self._store, len(self._seen), 0
        cpu, commands = store.cpu(), store.commands()
        size = store.sent + store.received
        for turn in range(rounds):
            for node in range(nodes):
                changed = self._chance.sample(self._addresses, told)
                count = 11 + (turn & 1) + 2 * self._chance.randrange(50)
                heard += self._sync(node, dict.fromkeys(changed, count))
        calls = rounds * nodes
        return Cost(
            told,
            heard / calls,
            (store.cpu() - cpu) / calls,
            (store.commands() - commands) / calls,
            (store.sent + store.received - size) / calls,
        )

    def grants(self, wishes: int, calls: int) -> float:
        """@return: seconds of the server's for one call with so many wishes."""
        cpu = self._store.cpu()
        for _ in range(calls):
            self._number += 1
            wanted = [Wish(address=a) for a in self._chance.sample(self._addresses, wishes)]
            call = codec.grant_call(PREFIX, UPSTREAM, "node-0", self._number, 0, wanted)
            self._store.run("grant", call)
            if self._number % 10 == 0:
                self._sync(0, {})
        return (self._store.cpu() - cpu) / calls


def changed(events: float) -> float:
    """The chance that something changed, of so many independent events expected."""
    return 1 - exp(-events)


def table(fit: Fit, nodes: int, servers: int, connections: int, lasting: float) -> None:
    """What the deployment costs, by interval."""
    print(
        f"\n{nodes} nodes, {servers} servers, {connections} connections that last {lasting:g} s:\n"
        "\ninterval  told  heard  commands/s   MB/s  store's core  staleness  nodes at 50 %"
    )
    for interval in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0):
        def load(count: int, interval: float = interval) -> tuple[float, float, float]:
            # One node opens and closes these to one server in an interval.
            events = 2 * connections / nodes / servers / lasting * interval
            told = servers * changed(events)
            heard = servers * changed(events * count)
            return told, heard, count / interval * fit.cpu.at(told, heard)

        told, heard, share = load(nodes)
        rate = nodes / interval
        most = 1
        while most < 10_000 and load(most + 1)[2] <= BUSY:
            most += 1
        print(
            f"{interval:6.1f} s {told:6.0f} {heard:6.0f}"
            f" {rate * fit.commands.at(told, heard):11,.0f}"
            f" {rate * fit.size.at(told, heard) / 1e6:6.1f}"
            f" {share:13.0%} {2 * interval:8.1f} s {most:14,}"
        )


def main() -> None:
    """Measure, fit, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--lasting", type=float, nargs="*", default=[1.0, 60.0])
    wanted = parser.parse_args()
    with running() as store:
        idle = Simulation(store, 1).measure(0, 4000)
        alone = Simulation(store, 1).measure(200, 400)
        crowd = Simulation(store, 10)
        many = crowd.measure(100, 60)
        memory = int(store.info("memory")["used_memory"])
        fit = Fit.of(idle, alone, many)
        check = crowd.measure(30, 60)
        one, batch = crowd.grants(1, 3000), crowd.grants(20, 500)
    print("One exchange, measured on this machine (addresses told, heard; CPU of the store):")
    for cost in (idle, alone, many, check):
        print(
            f"  {cost.told:4.0f} {cost.heard:5.0f}  {cost.cpu * 1e6:7.0f} us"
            f"  {cost.commands:6.0f} commands  {cost.size:8,.0f} bytes"
            f"   (by the line {fit.cpu.at(cost.told, cost.heard) * 1e6:.0f} us)"
        )
    print(
        f"  = {fit.cpu.base * 1e6:.0f} us + {fit.cpu.told * 1e6:.1f} us for each address told"
        f" + {fit.cpu.heard * 1e6:.2f} us for each heard"
    )
    print(f"Memory, 10 nodes with connections to all of 1000 servers: {memory / 1e6:.1f} MB")
    print(
        f"One grant (strict): {one * 1e6:.0f} us, with 20 places {batch * 1e6:.0f} us:"
        f" {BUSY / one:,.0f} calls or {20 * BUSY / batch:,.0f} places a second at 50 % of a core"
    )
    for lasting in wanted.lasting:
        table(fit, wanted.nodes, wanted.servers, wanted.connections, lasting)


if __name__ == "__main__":
    main()
