"""
Memory that goes with the clients: C{python -m bench.memory [--idle N] [--connections N]
[--mib N]}

Prints what a daemon has resident beyond what it had idle: while a long body goes
through it in each direction, by HTTP and by stream, to and from someone who stops
reading for a while; with many idle clients, for each; and after many connections that
were opened and closed.  Exit status 1 if a bound was passed: 32 MiB for
bodies, 4 KiB for an idle client; after the connections 2 MiB, one descriptor (of a
connection to the server that is kept) and no timers or objects, behind a collection of
garbage.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
import time

from bench.rehearsal import Rehearsal
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask, free_port, wait_until
from tests.endtoend.holdings import Holdings
from tests.endtoend.servers import Backend

MIB = 1 << 20
PAUSE = 1.0
"""Seconds for which a reader stops."""


class Table:
    """
    @ivar bad: whether a bound was passed.
    """

    def __init__(self) -> None:
        self.bad = False

    def add(self, what: str, got: float, bound: float, unit: str) -> None:
        wrong = got > bound
        self.bad = self.bad or wrong
        verdict = "TOO MUCH" if wrong else "ok"
        print(f"{what:44} {got:10.1f} {unit:12} at most {bound:g}: {verdict}", flush=True)


class Talker:
    """
    A server for streams: takes all that comes, or sends without an end, by the first
    byte that it hears; slow ones stop for a while after the first MiB.
    """

    def __init__(self, case: Rehearsal, size: int) -> None:
        self._size = size
        self._listening = socket.create_server((LOOPBACK, free_port()))
        self.port = self._listening.getsockname()[1]
        case.addCleanup(self._listening.close)
        case.addCleanup(self._listening.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if client.recv(1) == b"s":
                send(client, self._size)
            else:
                client.sendall(b"%d" % receive(client))


def send(client: socket.socket, size: int) -> None:
    """So many bytes."""
    block = bytes(MIB)
    for _ in range(size // MIB):
        client.sendall(block)


def receive(client: socket.socket) -> int:
    """All bytes to the end, with a pause; how many they were."""
    got, paused = 0, False
    while data := client.recv(MIB):
        got += len(data)
        if got > MIB and not paused:
            paused = True
            time.sleep(PAUSE)
    return got


def bodies(table: Table, size: int) -> None:
    """Long ones, both ways, both kinds, with a reader that stops."""
    with Rehearsal() as case:
        backend, talker = Backend(case), Talker(case, size)
        daemon = Daemon(
            case,
            more=f'[upstreams.raw]\nservers = [{{ address = "{LOOPBACK}:{talker.port}" }}]\n',
            stream={"upstream": "raw"},
        )
        daemon.add(backend.port)
        for _ in range(20):
            ask(daemon.http)
        idle = daemon.process.memory()

        def note(what: str) -> None:
            grown = (daemon.process.memory("VmHWM") - idle) / MIB
            table.add(f"{what}, {size // MIB} MiB", grown, 32, "MiB more")

        with socket.create_connection((LOOPBACK, daemon.http), 60) as client:
            client.sendall(f"GET /flow/{size} HTTP/1.0\r\n\r\n".encode())
            assert receive(client) > size
        note("HTTP to a client that stops")
        with socket.create_connection((LOOPBACK, daemon.http), 60) as client:
            client.sendall(f"PUT /sink HTTP/1.0\r\nContent-Length: {size}\r\n\r\n".encode())
            pause = threading.Timer(0.1, backend.process.pause)
            pause.start()
            resume = threading.Timer(0.1 + PAUSE, backend.process.resume)
            resume.start()
            send(client, size)
            assert b"200" in client.recv(4096)
            pause.join()
            resume.join()
        note("HTTP to a server that stops")
        with socket.create_connection((LOOPBACK, daemon.stream), 60) as client:
            client.sendall(b"s")
            assert receive(client) == size
        note("stream to a client that stops")
        with socket.create_connection((LOOPBACK, daemon.stream), 60) as client:
            client.sendall(b"r")
            send(client, size)
            client.shutdown(socket.SHUT_WR)
            assert int(client.recv(100)) == size
        note("stream to a server that stops")


def clients(table: Table, idle: int, connections: int) -> None:
    """Many that are idle, and many that come and go."""
    with Rehearsal() as case:
        backend = Backend(case)
        daemon = Daemon(case)
        daemon.add(backend.port)
        process = daemon.process

        def come_and_go(number: int) -> None:
            for _ in range(number):
                with socket.create_connection((LOOPBACK, daemon.http), 30) as client:
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    while client.recv(65536):
                        pass

        def settle() -> None:
            wait_until(lambda: daemon.counts() == {backend.address: 0}, "all counts to be 0")

        come_and_go(2000)
        settle()
        before = Holdings.of(daemon)
        print(f"after 2000 connections: {before}")
        come_and_go(connections)
        settle()
        wait_until(lambda: process.descriptors() <= before.files + 1, "descriptors")
        after = Holdings.of(daemon)
        print(f"after {connections} more: {after}")
        grown = (after.memory - before.memory) / MIB
        table.add(f"after {connections} connections", grown, 2, "MiB more")
        table.add("the same", after.files - before.files, 1, "descriptors")
        left = after.beyond(before, 1, 2 * MIB)
        table.add("the same", len(left), 0, "kinds of things more")
        for line in left:
            print(f"  {line}")
        memory = process.memory()
        with contextlib.ExitStack() as crowd:
            for _ in range(idle):
                crowd.enter_context(socket.create_connection((LOOPBACK, daemon.http), 30))
            wait_until(lambda: process.descriptors() >= before.files + idle - 4, "all of them")
            each = (process.memory() - memory) / idle / 1024
            table.add(f"{idle} idle clients, each", each, 4, "KiB")
        wait_until(lambda: process.descriptors() <= before.files + 1, "their end")
        if case.violations:
            raise SystemExit("".join(case.violations))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    table = Table()
    bodies(table, options.mib * MIB)
    clients(table, options.idle, options.connections)
    sys.exit(table.bad)


if __name__ == "__main__":
    main()
