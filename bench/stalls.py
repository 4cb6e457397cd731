"""
How long a daemon with many servers stands still: C{python -m bench.stalls
[--servers N ...] [--store embedded:|memory:] [--only WORD]}

While a client sends a request every few milliseconds to a server of its own, each
operation of the API is done in turn, and the daemon's own watch tells the longest gap
between two turns of its reactor: by the clock, and in CPU time of its main thread, which
other programs on the machine cannot lengthen.  Beside these the longest collection of
garbage, and the longest request.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

from bench.rehearsal import Rehearsal
from dynbalance.invariants import VARIABLE
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask, free_port
from tests.endtoend.servers import Backend

EVERY = 0.001
"""Seconds between two looks of the watch."""

PAUSE = 0.002
"""Seconds between two requests."""

REST = 1.5
"""Seconds after each operation in which what it has left behind is done."""


class Gaps:
    """
    The watch, in the daemon: who connects is told the longest gap since the last one
    was, and it begins anew.
    """

    def __init__(self, reactor: Any, port: int) -> None:
        from twisted.internet.protocol import Factory, Protocol

        gaps = self

        class Told(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(json.dumps([gaps.wall, gaps.cpu, gaps.garbage]).encode())
                self.transport.loseConnection()
                gaps.begin()

        self._reactor = reactor
        self._collecting = 0.0
        self.begin()
        gc.callbacks.append(self._collect)
        reactor.listenTCP(port, Factory.forProtocol(Told), interface=LOOPBACK)
        reactor.callLater(EVERY, self._look)

    def begin(self) -> None:
        self.wall = self.cpu = self.garbage = 0.0
        self._seen, self._used = time.monotonic(), time.thread_time()

    def _collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self.garbage = max(self.garbage, time.thread_time() - self._collecting)

    def _look(self) -> None:
        now, used = time.monotonic(), time.thread_time()
        self.wall = max(self.wall, now - self._seen - EVERY)
        self.cpu = max(self.cpu, used - self._used)
        self._seen, self._used = now, used
        self._reactor.callLater(EVERY, self._look)


def serve(port: int, words: list[str]) -> None:
    """Be twistd, with a watch."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    at: Any = reactor
    at.callWhenRunning(Gaps, at, port)
    sys.argv = ["twistd", *words]
    run()


class Watched(Daemon):
    """A daemon with a watch."""

    def start(self, wait: bool = True) -> None:
        self._watch = free_port()
        command = [sys.executable, "-m", "bench.stalls", "--serve", str(self._watch), "--"]
        command += ["-n", "--pidfile=", "dynbalance", "--config", self.file]
        # Looking for mistakes would be what takes longest.
        without = {VARIABLE: ""}
        self.process = self._case.start(self.name, command, self.directory, without)
        if wait:
            self.process.until(lambda: "serves as" in self.process.log(), "serves")

    def gaps(self) -> tuple[float, float, float]:
        """
        The longest since this was asked last: by the clock, and of CPU time; and the
        longest collection of garbage, which is a part of them.
        """
        with socket.create_connection((LOOPBACK, self._watch), 60) as asked:
            wall, cpu, garbage = json.loads(asked.makefile().read())
        return wall, cpu, garbage


class Client:
    """Sends requests over one connection."""

    def __init__(self, case: Rehearsal, port: int) -> None:
        self._port = port
        self._over = False
        self.longest = 0.0
        self.bad = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        case.addCleanup(self._end)

    def _end(self) -> None:
        self._over = True
        self._thread.join()

    def _send(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=60)
        while not self._over:
            began = time.monotonic()
            connection.request("GET", "/light")
            with connection.getresponse() as response:
                response.read()
                self.bad += response.status != 200
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(PAUSE)
        connection.close()


@frozen(slots=True)
class Step:
    """
    @ivar do: it.
    """

    name: str
    do: Callable[[], object]


class Stage:
    """A daemon with so many servers that nobody asks, and one that is asked."""

    def __init__(self, case: Rehearsal, store: str, servers: int) -> None:
        self.count = servers
        light = Backend(case)
        self.daemon = Watched(
            case,
            store,
            keeping={"timeout": 5.0},
            heartbeat={"ttl": 600.0, "cleanup_interval": 1.0},
            upstream={"policy": "least_conn", "connect_timeout": 1.0},
            more=f'[upstreams.light]\nservers = [{{ address = "{light.address}" }}]\n',
            routes='[{ path = "/light", upstream = "light" }]',
        )
        self.client = Client(case, self.daemon.http)
        self.port = self.daemon.admin

    def document(self, count: int) -> bytes:
        """An import of so many servers."""
        servers = [{"addr": f"127.0.{n >> 8}.{n & 255}:9"} for n in range(1, count + 1)]
        return json.dumps(
            {"data": {"format": "dynbalance-1", "upstreams": {"default": {"servers": servers}}}}
        ).encode()

    def load(self, count: int, **fields: str) -> None:
        words = "&".join(f"{name}={value}" for name, value in fields.items())
        headers = {"Content-Type": "application/json"}
        target = f"/upstream/import?{words}"
        answer = ask(self.port, target, "POST", self.document(count), headers, 60.0)
        assert answer.status == 200, answer.body[:500]

    def get(self, path: str) -> None:
        answer = ask(self.port, path, bound=60.0)
        assert answer.status == 200, answer.body[:500]

    def order(self, path: str, **fields: str) -> None:
        body = "&".join(f"{name}={value}" for name, value in fields.items()).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = ask(self.port, f"/upstream/{path}", "POST", body, kind, 60.0)
        assert answer.status == 200, answer.body[:500]

    def one(self, path: str, **fields: str) -> None:
        self.order(path, host="127.0.0.7", port="9", **fields)

    def beat(self) -> None:
        """Heartbeats of many servers, one after the other."""
        for n in range(1, min(self.count, 300) + 1):
            self.order("refresh", host=f"127.0.{n >> 8}.{n & 255}", port="9")

    def listen(self) -> None:
        """To the events, as the dashboard does."""
        with socket.create_connection((LOOPBACK, self.port), 10) as listener:
            listener.sendall(b"GET /upstream/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            listener.settimeout(0.2)
            end = time.monotonic() + 4
            while time.monotonic() < end:
                try:
                    if not listener.recv(1 << 20):
                        raise AssertionError("the events ended")
                except TimeoutError:
                    continue

    def policy(self, before: str, after: str) -> None:
        self.daemon.edit(f'policy = "{before}"', f'policy = "{after}"')
        self.daemon.reload()
        # A ring is made for the first who needs it; nobody answers there.
        ask(self.daemon.http, "/")

    def hashed(self, **fields: str) -> None:
        self.one("update", **fields)
        ask(self.daemon.http, "/")

    def steps(self) -> list[Step]:
        return [
            Step("nothing (exchanges, clean-ups)", lambda: time.sleep(3)),
            Step("import of all", lambda: self.load(self.count)),
            Step("nothing, with all", lambda: time.sleep(3)),
            Step("GET /metrics", lambda: self.get("/metrics")),
            Step("GET status", lambda: self.get("/upstream/status")),
            Step("GET upstreams", lambda: self.get("/upstream/upstreams")),
            Step("GET health", lambda: self.get("/upstream/health")),
            Step("GET export", lambda: self.get("/upstream/export")),
            Step("GET explain", lambda: self.get("/upstream/explain")),
            Step("GET readyz", lambda: self.get("/readyz")),
            Step("GET history", lambda: self.get("/upstream/history?limit=500")),
            Step("events, 4 s", self.listen),
            Step("add", lambda: self.order("add", host="127.1.1.1", port="9")),
            Step("remove", lambda: self.order("remove", host="127.1.1.1", port="9")),
            Step("disable", lambda: self.one("toggle", action="disable")),
            Step("enable", lambda: self.one("toggle", action="enable")),
            Step("300 heartbeats", self.beat),
            Step("cleanup", lambda: self.order("cleanup")),
            Step("reset", lambda: self.order("reset")),
            Step("import, dry", lambda: self.load(self.count - 9, dry_run="1")),
            Step("import, 9 fewer", lambda: self.load(self.count - 9)),
            Step("SIGHUP, the same file", self.daemon.reload),
            Step("SIGHUP, hash; a request", lambda: self.policy("least_conn", "hash")),
            Step("update, hash; a request", lambda: self.hashed(weight="2")),
            Step("SIGHUP, round_robin", lambda: self.policy("hash", "round_robin")),
        ]

    def run(self, only: str) -> None:
        print(f"{self.count} servers".ljust(32), "   gap    CPU     GC  longest request (ms)")
        for step in self.steps():
            wanted = only in step.name
            if not wanted and step.name != "import of all":
                continue
            self.daemon.gaps()
            self.client.longest = 0.0
            began = time.monotonic()
            step.do()
            took = time.monotonic() - began
            time.sleep(REST)
            figures = *self.daemon.gaps(), self.client.longest
            told = " ".join(f"{1000 * each:6.1f}" for each in figures)
            if wanted:
                print(step.name.ljust(32), told, f"  took {took:.2f} s", flush=True)
        assert not self.client.bad, f"{self.client.bad} requests failed"


def main() -> None:
    """By the command line."""
    words = sys.argv[1:]
    if words[:1] == ["--serve"]:
        serve(int(words[1]), words[3:])
        return
    parser = argparse.ArgumentParser(prog="bench.stalls", description=__doc__)
    parser.add_argument("--servers", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--store", default="embedded:")
    parser.add_argument("--only", default="", help="operations with this in their names")
    options = parser.parse_args(words)
    for servers in options.servers:
        with Rehearsal() as case:
            Stage(case, options.store, servers).run(options.only)


if __name__ == "__main__":
    main()
