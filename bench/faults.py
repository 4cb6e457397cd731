"""
One fault after the other under load whose every request is accounted for:
C{python -m bench.faults [--seconds S] [FAULT ...]}

Two nodes over one Redis balance three servers for twelve clients.  Prints for each
fault how many requests of each method ended how, and what must never be; exit status
1 if there was any of the latter.  docs/faults.rst has what it printed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from bench.rehearsal import Rehearsal
from tests.endtoend.beats import Beats
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, NO_ENVIRONMENT, ask, wait_until
from tests.endtoend.nameserver import NameServer
from tests.endtoend.oracle import Oracle, Recorder, Verdict
from tests.endtoend.servers import Redis
from tests.endtoend.wallclock import WallClock
from tests.endtoend.wire import SlowWire

HOUR = 3600
OTHER = "127.0.0.2"
"""As much this machine as the first one."""


class Scene:
    """
    @ivar seconds: how long a fault lasts.
    @ivar oracle: the load, and what is to be said of it.
    @ivar names: who knows where C{one.test} is.
    @ivar clocks: those of the store and of the nodes, where these are to be set.
    """

    def __init__(
        self, case: Rehearsal, seconds: float, store: str = "", clocked: bool = False
    ) -> None:
        self.case, self.seconds = case, seconds
        self.names = NameServer(case, one=[LOOPBACK])
        self.clocks = [WallClock(case) for _ in range(3)] if clocked else []
        store_time, *node_times = [clock.environment for clock in self.clocks] or [
            NO_ENVIRONMENT
        ] * 3
        self.redis = Redis(case, environment=store_time)
        self.wire = SlowWire(case, self.redis.port)
        url = store or f"redis://{LOOPBACK}:{self.wire.port}/0"
        self.nodes = [
            Daemon(
                case,
                url,
                name,
                keeping={"timeout": 0.4, "lease": 2.0},
                # Without a budget: what is asked here is what cannot be tried again.
                upstream={
                    "retry_budget": 0.0,
                    "connect_timeout": 0.5,
                    "read_timeout": 1.0,
                    "max_idle_time": 2.0,
                },
                more=self.names.table(),
                environment=environment,
            )
            for name, environment in zip(
                ("one",) if store else ("one", "two"), node_times, strict=False
            )
        ]
        self.servers = [Recorder(case, name) for name in ("a", "b", "c")]
        for server in self.servers:
            self.nodes[0].add(server.port, heartbeat="false", fail_timeout=1)
        for node in self.nodes:
            wait_until(lambda node=node: len(node.status()) == 3, "the servers")
        self.begin()

    def begin(self) -> None:
        """Let clients ask."""
        ports = [node.http for node in self.nodes]
        self.oracle = Oracle(self.case, ports, self.servers, clients=6)
        self.oracle.more(100)

    def wait(self) -> None:
        """Let it last."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.05)

    def settle(self) -> Verdict:
        """End the load; all counts are 0 then."""
        self.oracle.more(100)
        self.oracle.stop()
        verdict = self.oracle.verdict()
        # A GET may always be tried again, and this node is never killed.
        first = self.oracle.verdict(self.nodes[0].http)
        if first.failed("GET"):
            verdict.violations.append(f"a node that lives has failed: {first}")
        for node in self.nodes:
            if node.process.ended:
                continue
            nothing = dict.fromkeys(node.status(), 0)
            wait_until(lambda node=node, nothing=nothing: node.counts() == nothing, "counts")
        return verdict


def nothing(scene: Scene) -> None:
    """Nothing, to compare with."""
    scene.wait()


def store_killed(scene: Scene) -> None:
    """Killed by -9, and started again."""
    scene.redis.process.kill()
    scene.wait()
    scene.redis.start()


def store_paused(scene: Scene) -> None:
    """Stopped, and continued."""
    scene.redis.process.pause()
    scene.wait()
    scene.redis.process.resume()


def store_slow(scene: Scene) -> None:
    """Each of its answers is late, but not too late."""
    scene.wire.delay = 0.3
    scene.wait()
    scene.wire.delay = 0.0


def server_killed(scene: Scene) -> None:
    """Killed by -9, and started again, again and again."""
    end = time.monotonic() + scene.seconds
    while time.monotonic() < end:
        scene.servers[0].process.kill()
        scene.oracle.more(100)
        scene.servers[0].start()
        scene.oracle.more(100)


def server_paused(scene: Scene) -> None:
    """It takes requests and answers none."""
    scene.servers[0].process.pause()
    scene.wait()
    scene.servers[0].process.resume()


def server_resets(scene: Scene) -> None:
    """A fourth one accepts and resets at once."""
    listening = socket.create_server((LOOPBACK, 0))
    over = threading.Event()

    def reset() -> None:
        while True:
            client, _ = listening.accept()
            if over.is_set():
                return
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

    thread = threading.Thread(target=reset)
    thread.start()
    port = listening.getsockname()[1]
    scene.nodes[0].add(port, heartbeat="false", max_fails=0)
    scene.wait()
    scene.nodes[0].call("remove", host=LOOPBACK, port=port)
    over.set()
    socket.create_connection((LOOPBACK, port)).close()
    thread.join()
    listening.close()


def server_black_hole(scene: Scene) -> None:
    """A fourth one whose queue is full: connections to it are never answered."""
    listening = socket.socket()
    listening.bind((LOOPBACK, 0))
    listening.listen(0)
    port = listening.getsockname()[1]
    filling = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((LOOPBACK, port))
        filling.append(client)
    scene.nodes[0].add(port, heartbeat="false", fail_timeout=1)
    scene.wait()
    scene.nodes[0].call("remove", host=LOOPBACK, port=port)
    for client in (*filling, listening):
        client.close()


def node_killed(scene: Scene) -> None:
    """Its clients lose what is under way, and its counts go with its lease."""
    scene.nodes[1].process.kill()
    scene.wait()
    scene.nodes[1].start()


def bad_file(scene: Scene) -> None:
    """Reloads of a file that is wrong, and of one that is right, one after the other."""
    end = time.monotonic() + scene.seconds
    node = scene.nodes[0]
    while time.monotonic() < end:
        node.edit("retry_budget = 0.0", "retry_budget = -1")
        node.reload("retry_budget")
        node.edit("retry_budget = -1", "retry_budget = 0.0")
        node.reload()


def membership(scene: Scene) -> None:
    """A server is removed, added, disabled and enabled all the time."""
    end = time.monotonic() + scene.seconds
    node, port = scene.nodes[0], scene.servers[2].port
    while time.monotonic() < end:
        node.call("remove", host=LOOPBACK, port=port)
        node.add(port, heartbeat="false")
        node.call("toggle", host=LOOPBACK, port=port, action="disable")
        node.call("toggle", host=LOOPBACK, port=port, action="enable")


def embedded_killed(scene: Scene) -> None:
    """The daemon's own store is killed by -9 right after each answer to an order."""
    node = scene.nodes[0]
    store = _child(node)
    wanted = set(node.status())
    for number in range(3):
        port = 1 + number
        node.add(port, heartbeat="false")
        node.call("toggle", host=LOOPBACK, port=port, action="disable")
        wanted.add(f"{LOOPBACK}:{port}")
        _kill(store)
        store = wait_until(lambda before=store: _other_child(node, before), "the next store")
        wait_until(lambda: ask(node.admin, "/upstream/health").status == 200, "the store")
    if set(node.status()) != wanted:
        raise AssertionError(f"lost: {wanted - set(node.status())}")
    for number in range(3):
        node.call("remove", host=LOOPBACK, port=1 + number)


def name_moves(scene: Scene) -> None:
    """A fourth server is given by name, and is now here and now there."""
    _named(scene)
    end = time.monotonic() + scene.seconds
    while time.monotonic() < end:
        for place in (OTHER, LOOPBACK):
            scene.names.hosts["one.test"] = [place]
            scene.oracle.more(200)


def name_vanishes(scene: Scene) -> None:
    """Its name is not known any more, and known again."""
    _named(scene)
    del scene.names.hosts["one.test"]
    scene.wait()
    scene.names.hosts["one.test"] = [OTHER]


def name_server_silent(scene: Scene) -> None:
    """Nobody says where it is."""
    _named(scene)
    scene.names.silent = True
    scene.wait()
    scene.names.silent = False


def _named(scene: Scene) -> None:
    here = Recorder(scene.case, "here")
    there = Recorder(scene.case, "there", OTHER, here.port)
    scene.servers += [here, there]
    scene.nodes[0].call("add", host="one.test", port=here.port, heartbeat="false", fail_timeout=1)
    while not here.served():
        scene.oracle.more(50)


def store_clock(scene: Scene) -> None:
    """The store's clock is set by an hour, while servers live by heartbeats."""
    _set(scene, scene.clocks[:1])


def node_clocks(scene: Scene) -> None:
    """Both nodes' clocks are set, and differ meanwhile."""
    _set(scene, scene.clocks[1:])


def _set(scene: Scene, clocks: list[WallClock]) -> None:
    node = scene.nodes[0]
    for server in scene.servers:
        node.call("remove", host=LOOPBACK, port=server.port)
        node.add(server.port)
    beats = Beats(scene.case, node.admin, [server.port for server in scene.servers], 0.2)
    end = time.monotonic() + scene.seconds
    while time.monotonic() < end:
        for step in (HOUR, 0, -HOUR, 0):
            for clock in clocks:
                clock.set(step)
                scene.oracle.more(50)
                late = node.call("cleanup")["data"]["expired_count"]
                if late:
                    raise AssertionError(f"{late} servers have expired")
    beats.end()
    for server in scene.servers:
        node.call("update", host=LOOPBACK, port=server.port, heartbeat="false")


def _children(node: Daemon) -> list[int]:
    pid = node.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def _child(node: Daemon) -> int:
    return wait_until(lambda: _children(node), "the store's process")[0]


def _other_child(node: Daemon, before: int) -> int:
    return next((child for child in _children(node) if child != before), 0)


def _kill(pid: int) -> None:


    os.kill(pid, signal.SIGKILL)


FAULTS: dict[str, Callable[[Scene], None]] = {
    "none": nothing,
    "store-killed": store_killed,
    "store-paused": store_paused,
    "store-slow": store_slow,
    "embedded-store-killed": embedded_killed,
    "server-killed": server_killed,
    "server-paused": server_paused,
    "server-resets": server_resets,
    "server-black-hole": server_black_hole,
    "node-killed": node_killed,
    "bad-file": bad_file,
    "membership": membership,
    "name-moves": name_moves,
    "name-vanishes": name_vanishes,
    "name-server-silent": name_server_silent,
    "store-clock": store_clock,
    "node-clocks": node_clocks,
}


def rehearse(name: str, seconds: float) -> tuple[Verdict, list[str]]:
    """One fault."""
    with Rehearsal() as case:
        store = "embedded:" if name.startswith("embedded") else ""
        scene = Scene(case, seconds, store, clocked=name.endswith(("clock", "clocks")))
        FAULTS[name](scene)
        verdict = scene.settle()
    return verdict, [*verdict.violations, *case.violations]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each fault lasts")
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(FAULTS)}")
    options = parser.parse_args()
    wrong = False
    for name in options.faults or FAULTS:
        verdict, violations = rehearse(name, options.seconds)
        print(f"{name}: {verdict}", flush=True)
        wrong = wrong or bool(violations)
        for line in violations:
            print(f"  VIOLATION {line}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
