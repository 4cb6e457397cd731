"""
More than one Redis: a master with a replica and Sentinels, and a cluster.
"""

from __future__ import annotations

import os

from tests.endtoend.harness import (
    LOOPBACK,
    EndToEndCase,
    Program,
    accepts,
    free_port,
    program,
    wait_until,
)
from tests.endtoend.servers import Redis, Secured

SLOTS = 16384
SHARE = 5500
PROMPT = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
"""A replica begins at once."""


class Sentinel:
    """One Sentinel, which lets others take over after half a second."""

    def __init__(
        self, case: EndToEndCase, number: int, master: Redis, secured: Secured | None = None
    ) -> None:
        self.port = self.door = free_port()
        options: tuple[str, ...] = ()
        if secured is not None:
            self.door = free_port()
            options = secured.options(self.door)
        directory = case.directory(f"sentinel{number}")
        file = os.path.join(directory, "sentinel.conf")
        with open(file, "w") as out:
            out.write(
                f"port {self.port}\nbind {LOOPBACK}\ndir {directory}\n"
                f"sentinel monitor lb {LOOPBACK} {master.door} 2\n"
                "sentinel down-after-milliseconds lb 500\nsentinel failover-timeout lb 1000\n"
            )
        command = [program("redis-server"), file, "--sentinel", *options]
        self.process: Program = case.start(f"sentinel{number}", command, directory)
        self.process.until(lambda: accepts(self.port), "listens")

    def master_port(self) -> int:
        """Where it says the master is."""
        return int(self._redis("SENTINEL", "get-master-addr-by-name", "lb").splitlines()[1])

    def knows(self, replicas: int, sentinels: int) -> bool:
        """Whether it has met so many others."""
        told = self._redis("SENTINEL", "master", "lb").splitlines()
        fields = dict(zip(told[::2], told[1::2], strict=True))
        said = (int(fields["num-slaves"]), int(fields["num-other-sentinels"]))
        return said == (replicas, sentinels)

    def _redis(self, *words: str) -> str:
        return Redis.at(self.port)(*words)


class Watched:
    """A master, its replica, and three Sentinels that have met."""

    def __init__(self, case: EndToEndCase, secured: Secured | None = None) -> None:
        self.master, self.replica = (Redis(case, *PROMPT, secured=secured) for _ in range(2))
        self.replica("REPLICAOF", LOOPBACK, str(self.master.door))
        wait_until(
            lambda: "master_link_status:up" in self.replica("INFO", "replication"), "the replica"
        )
        self.sentinels = [Sentinel(case, number, self.master, secured) for number in range(3)]
        for one in self.sentinels:
            one.process.until(lambda one=one: one.knows(1, 2), "meets the others")

    @property
    def url(self) -> str:
        peers = ",".join(f"{LOOPBACK}:{one.door}" for one in self.sentinels)
        return f"{_scheme(self.master)}+sentinel://{peers}/lb/0"


class Cluster:
    """
    Three masters that share the slots, and a replica of the first.

    @ivar nodes: the masters, in the order of their slots.
    """

    def __init__(self, case: EndToEndCase, secured: Secured | None = None) -> None:
        options = [*PROMPT, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        options += ["--cluster-require-full-coverage", "no"]
        if secured is not None:
            options += ["--tls-cluster", "yes"]
        buses = [free_port() for _ in range(4)]
        *self.nodes, self.replica = all_nodes = [
            Redis(case, *options, "--cluster-port", str(bus), secured=secured) for bus in buses
        ]
        for number, node in enumerate(all_nodes, 1):
            node("CLUSTER", "SET-CONFIG-EPOCH", str(number))
            node("CLUSTER", "MEET", LOOPBACK, str(self.nodes[0].door), str(buses[0]))
        for number, node in enumerate(self.nodes):
            node("CLUSTER", "ADDSLOTSRANGE", str(number * SHARE), str(self._last(number)))
        for node in all_nodes:
            node.process.until(lambda node=node: self._met(node), "meets the others")
        self.replica("CLUSTER", "REPLICATE", self.id(self.nodes[0]))
        self.replica.process.until(
            lambda: "master_link_status:up" in self.replica("INFO", "replication"), "replicates"
        )

    def _last(self, number: int) -> int:
        return min((number + 1) * SHARE, SLOTS) - 1

    def _met(self, node: Redis) -> bool:
        known = node("CLUSTER", "NODES").count(LOOPBACK)
        return known == 4 and "cluster_state:ok" in node("CLUSTER", "INFO")

    def id(self, node: Redis) -> str:
        """A node's name among the others."""
        return node("CLUSTER", "MYID")

    def url(self, *nodes: Redis) -> str:
        peers = ",".join(f"{LOOPBACK}:{node.door}" for node in nodes or self.nodes)
        return f"{_scheme(self.replica)}+cluster://{peers}"

    def slot(self, key: str) -> int:
        return int(self.nodes[0]("CLUSTER", "KEYSLOT", key))

    def owner(self, key: str) -> Redis:
        """The master that had a key's slot at first."""
        return self.nodes[self.slot(key) // SHARE]

    def move(self, slot: int, source: Redis, target: Redis) -> None:
        """Move a slot with its keys, in the way that is meant to be done under load."""
        self.begin_move(slot, source, target)
        self.end_move(slot, source, target)

    def begin_move(self, slot: int, source: Redis, target: Redis) -> None:
        """So far that the keys are at the new place."""
        target("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id(source))
        source("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id(target))
        for _ in range(100):
            keys = source("CLUSTER", "GETKEYSINSLOT", str(slot), "100").split()
            if not keys:
                return
            for key in keys:
                source("MIGRATE", LOOPBACK, str(target.port), key, "0", "1000")
        raise AssertionError(f"the keys of slot {slot} do not come to an end")

    def end_move(self, slot: int, source: Redis, target: Redis) -> None:
        for node in (target, source, *self.nodes):
            node("CLUSTER", "SETSLOT", str(slot), "NODE", self.id(target))


def _scheme(node: Redis) -> str:
    return "redis" if node.door == node.port else "rediss"
