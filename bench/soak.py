"""
A long run of everything at once: C{python -m bench.soak [--minutes M]}

Two nodes over one Redis; requests that are all accounted for, streams, clients that
are slow; every few seconds something happens: a server is killed, removed, drained or
changed, a node reads its file again, the store is killed or stopped.  Between two
rounds nobody is there, and each node's descriptors, timers, objects, memory and counts
are compared with those after the first.  Exit status 1 if they have grown, or if a
request was answered wrongly, given to two servers, or failed without a reason.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import threading
import time

from bench.faults import Scene, bad_file, membership, server_killed, store_killed, store_paused
from bench.rehearsal import Rehearsal
from tests.endtoend.crowd import HEAD, Crowd
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask, wait_until
from tests.endtoend.holdings import Holdings

MIB = 1 << 20
ROUND = 15.0
"""Seconds of a round, without the rest after it."""

FAULT = 2.0
"""Seconds of each fault."""

IDLE = 2.0
"""Seconds for which connections to servers are kept, see L{bench.faults}."""

GROWTH = 6 * MIB
"""Bytes by which a node may be larger at the end than after its first round."""

SPARE = 8
"""
Descriptors likewise: pipes, and connections of the API, come and go.
"""


def quiet(node: Daemon) -> Holdings:
    """What a node has; to be asked when no client is left."""
    # Kept connections to servers are closed meanwhile.
    time.sleep(2 * IDLE)
    nothing = dict.fromkeys(node.status(), 0)
    wait_until(lambda: node.counts() == nothing, "all counts to be 0")
    return Holdings.of(node)


def graceful(scene: Scene) -> None:
    """A server is drained, changed, and put back."""
    node, port = scene.nodes[1], scene.servers[1].port
    node.call("toggle", host=LOOPBACK, port=port, action="drain")
    scene.wait()
    node.call("update", host=LOOPBACK, port=port, weight=random.randint(1, 5))
    node.call("toggle", host=LOOPBACK, port=port, action="enable")


def reload(scene: Scene) -> None:
    """A node follows another file."""
    node = scene.nodes[1]
    node.edit("read_timeout = 1.0", "read_timeout = 1.5")
    node.reload()
    scene.wait()
    node.edit("read_timeout = 1.5", "read_timeout = 1.0")
    node.reload()


HAPPENINGS = [
    server_killed, store_killed, store_paused, bad_file, membership, graceful, reload,
]  # fmt: skip


def well(scene: Scene) -> None:
    """Wait until all nodes have the store, so that they take the next order."""
    for node in scene.nodes:
        wait_until(
            lambda node=node: ask(node.admin, "/upstream/health").status == 200, "the store"
        )


def streams(port: int, over: threading.Event) -> None:
    """Connections that carry a request each, one after the other."""
    while not over.is_set():
        try:
            with socket.create_connection((LOOPBACK, port), 10) as client:
                client.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
                client.recv(65536)
        except OSError:
            continue


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    chance = random.Random(1)
    end = time.monotonic() + 60 * options.minutes
    bad: list[str] = []
    with Rehearsal() as case:
        scene = Scene(case, FAULT)
        first: list[Holdings] = []
        number = 0
        while not first or time.monotonic() < end:
            number += 1
            over = threading.Event()
            threads = [
                threading.Thread(target=streams, args=(node.stream, over), daemon=True)
                for node in scene.nodes
            ]
            for thread in threads:
                thread.start()
            crowds = [Crowd(case, node.http) for node in scene.nodes]
            for crowd in crowds:
                crowd.idle(100)
                crowd.talk(20, HEAD)
            if number > 1:
                scene.begin()
            happened = []
            until = time.monotonic() + ROUND
            while time.monotonic() < until:
                happening = chance.choice(HAPPENINGS)
                happened.append(happening.__name__)
                happening(scene)
                well(scene)
            over.set()
            for thread in threads:
                thread.join()
            for crowd in crowds:
                crowd.leave()
            verdict = scene.settle()
            bad += verdict.violations
            states = [quiet(node) for node in scene.nodes]
            print(f"round {number}: {', '.join(happened)}: {verdict}", flush=True)
            for node, state in zip(scene.nodes, states, strict=True):
                print(f"  {node.name}: {state}", flush=True)
            first = first or states
        for node, before, after in zip(scene.nodes, first, states, strict=True):
            bad += [f"{node.name}: {line}" for line in after.beyond(before, SPARE, GROWTH)]
    bad += case.violations
    for line in bad:
        print(f"VIOLATION {line}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
