"""
The store fails in every way that it can, while two nodes serve and every answer
is looked at.
"""

from __future__ import annotations

import glob
import os
import shutil
import threading
import time
from collections.abc import Callable
from itertools import pairwise

from tests.endtoend.beats import Beats
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, free_port, wait_until
from tests.endtoend.load import Load
from tests.endtoend.servers import Backend, Redis
from tests.endtoend.wire import SlowWire

TTL = 1.5
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class OutageTests(EndToEndCase):
    """
    Two nodes; a server that beats as long as it is heard, and one that holds a
    request of each node all the time.
    """

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.wire = SlowWire(self, self.redis.port)
        url = f"redis://{LOOPBACK}:{self.wire.port}/0"
        self.nodes = [
            Daemon(
                self,
                url,
                name,
                keeping={"timeout": 0.4, "lease": 1.0, "sync_interval": 0.05},
                heartbeat={"ttl": TTL, "cleanup_interval": 0.1},
                wait=False,
            )
            for name in ("one", "two")
        ]
        for node in self.nodes:
            node.process.until(lambda node=node: "serves as" in node.process.log(), "serves")
        self.beating, self.holding = Backend(self, "beating"), Backend(self, "holding")
        self.nodes[0].add(self.holding.port, heartbeat="false")
        self.until_known([self.holding])
        self.held = [
            threading.Thread(target=ask, args=(node.http, "/held")) for node in self.nodes
        ]
        for thread in self.held:
            thread.start()
        wait_until(lambda: self.holding.told("/waiting") == 2, "the held requests")
        self.nodes[0].add(self.beating.port)
        self.beats = Beats(self, self.nodes[1].admin, [self.beating.port], TTL / 10)
        self.until_known([self.holding, self.beating])
        self.until_counted(2)
        # HTTP as such, and in streams.
        ports = [self.nodes[0].http, self.nodes[1].http, self.nodes[1].stream]
        self.loads = [Load(self, port, 2) for port in ports]
        wait_until(lambda: self.beats.answers[200] > 2, "heartbeats")

    def until_known(self, servers: list[Backend]) -> None:
        wanted = {server.address for server in servers}
        for node in self.nodes:
            wait_until(lambda node=node: set(node.status()) == wanted, "the servers")

    def until_counted(self, held: int) -> None:
        """Exactly these connections are counted, in the store and by each node."""
        wait_until(lambda: self.redis.counts()[self.holding.address] >= held, "the counts")
        for node in self.nodes:
            wait_until(lambda node=node: node.counts()[self.holding.address] >= held, "the counts")

    def order(self, path: str, fields: str) -> int:
        return ask(self.nodes[0].admin, f"/upstream/{path}", "POST", fields.encode(), FORM).status

    def health(self, node: Daemon) -> tuple[int, str, float]:
        reply = ask(node.admin, "/upstream/health")
        data = reply.json["data"]
        return reply.status, data["store"], data["stale_for"]

    def until_away(self) -> None:
        for node in self.nodes:
            wait_until(lambda node=node: self.health(node)[:2] == (503, "away"), "the outage")

    def until_back(self) -> None:
        for node in self.nodes:
            wait_until(lambda node=node: self.health(node) == (200, "ok", 0), "the store")

    def metric(self, node: Daemon, name: str) -> float:
        for line in ask(node.admin, "/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no {name}")

    def history(self, action: str) -> int:
        """Lines in the history of the store."""
        lines = self.redis("XRANGE", "upstream:history", "-", "+").splitlines()
        return sum(
            (name, value) == ("action", action)
            for name, value in pairwise(lines)
        )

    def outage(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """
        The store fails for longer than servers live without heartbeats.  Whoever is
        expired by that is in the history, which L{assert_as_before} reads.
        """
        begin()
        self.until_away()
        port = self.holding.port
        for path, fields in (
            ("add", f"host={LOOPBACK}&port={free_port()}"),
            ("remove", f"host={LOOPBACK}&port={port}"),
            ("toggle", f"host={LOOPBACK}&port={port}&action=disable"),
            ("reset", ""),
            ("cleanup", ""),
        ):
            self.assertEqual(503, self.order(path, fields), path)
        unheard = self.beats.answers[503]
        for node in self.nodes:
            wait_until(lambda node=node: self.health(node)[2] > 1.2 * TTL, "longer than the ttl")
            self.assertEqual(0, self.metric(node, "dynbalance_store_available"))
            self.assertGreater(self.metric(node, "dynbalance_store_stale_seconds"), TTL)
            states = {node.state(each.address) for each in (self.holding, self.beating)}
            self.assertEqual({"up"}, states)
        wait_until(lambda: self.beats.answers[503] > unheard, "heartbeats that nobody heard")
        end()
        self.until_back()
        heard = self.beats.answers[200]
        wait_until(lambda: self.beats.answers[200] > heard, "a heartbeat that is heard")

    def assert_as_before(self) -> None:
        """Nothing was lost, nobody was expired, no request failed, all is counted."""
        self.until_known([self.holding, self.beating])
        heard = self.beats.answers[200]
        wait_until(lambda: self.beats.answers[200] > heard, "a heartbeat that is heard")
        # Long enough for those to expire whose time did not stand still.
        end = time.monotonic() + 1.2 * TTL
        wait_until(lambda: time.monotonic() > end, "heartbeat rounds")
        for node in self.nodes:
            states = {each: fields["state"] for each, fields in node.status().items()}
            self.assertEqual({self.holding.address: "up", self.beating.address: "up"}, states)
        self.assertEqual(0, self.history("expire"))
        for load in self.loads:
            load.stop()
            self.assertEqual([], load.failures)
        wanted = {self.holding.address: 2, self.beating.address: 0}
        wait_until(lambda: self.redis.counts() == wanted, "exact counts")
        ask(self.holding.port, "/release")
        for thread in self.held:
            thread.join()
        wanted[self.holding.address] = 0
        wait_until(lambda: self.redis.counts() == wanted, "exact counts")
        self.assertEqual(200, self.order("toggle", f"port={self.beating.port}&action=disable"))

    def lose_data(self) -> None:
        """Start the store anew, without what it had."""
        for path in glob.glob(os.path.join(self.redis.directory, "appendonly*")):
            shutil.rmtree(path)
        self.redis.start()

    def test_unreachable(self) -> None:
        """
        Killed and started again with what it had; stopped and continued; so slow that
        its answers are of no use.
        """

        def late(seconds: float) -> None:
            self.wire.delay = seconds

        self.outage(self.redis.process.kill, self.redis.start)
        self.outage(self.redis.process.pause, self.redis.process.resume)
        self.outage(lambda: late(1.0), lambda: late(0.0))
        self.assert_as_before()
        self.assertEqual(0, self.history("restore"))

    def test_takes_nothing(self) -> None:
        """
        It tells what it knows, but takes nothing: out of memory; a replica of a master
        that is gone; unable to write down what it is told.
        """
        dump = os.path.join(self.redis.directory, "dump.rdb")

        def fill_disk() -> None:
            # A directory where the file should be; as good as a full disk.
            os.mkdir(dump)
            self.redis("CONFIG", "SET", "save", "3600 1000")
            self.redis("BGSAVE")

        def make_room() -> None:
            os.rmdir(dump)
            self.redis("BGSAVE")

        self.outage(
            lambda: self.redis("CONFIG", "SET", "maxmemory", "1"),
            lambda: self.redis("CONFIG", "SET", "maxmemory", "0"),
        )
        self.outage(
            lambda: self.redis("REPLICAOF", LOOPBACK, str(free_port())),
            lambda: self.redis("REPLICAOF", "NO", "ONE"),
        )
        self.outage(fill_disk, make_room)
        self.assert_as_before()

    def test_restarted_empty(self) -> None:
        """Killed, and started again without what it had: it is given that back, once."""
        self.outage(self.redis.process.kill, self.lose_data)
        self.assert_as_before()
        self.assertEqual(1, self.history("restore"))

    def test_emptied(self) -> None:
        """Emptied between two exchanges: likewise, and nobody notices but the log."""
        revision = int(self.redis("GET", "upstream:revision"))
        self.redis("FLUSHALL")
        wait_until(lambda: self.history("restore"), "what is given back")
        self.assertEqual(revision + 1, int(self.redis("GET", "upstream:revision")))
        told = [node.process.log().count("The store had lost upstream") for node in self.nodes]
        self.assertEqual(1, sum(told))
        self.assert_as_before()

    def test_by_hand(self) -> None:
        """What is deleted by hand is gone within a second, on all nodes."""
        for load in self.loads:
            load.stop()
        self.redis("HDEL", "upstream:servers:meta", self.beating.address)
        self.until_known([self.holding])
        wait_until(lambda: self.history("remove"), "the line in the history")
        self.assertEqual((1, 0), (self.history("remove"), self.history("restore")))
        wait_until(lambda: self.beats.answers[404] > 0, "the server to hear of it")
        ask(self.holding.port, "/release")
        for thread in self.held:
            thread.join()


class SnapshotTests(EndToEndCase):
    """A daemon that starts while its store is away."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.backend = Backend(self)
        self.begin()

    def begin(self, **root: int) -> None:
        self.daemon = Daemon(self, self.redis.url, root=root, keeping={"timeout": 0.4})
        self.daemon.add(self.backend.port, heartbeat="false", weight=3)
        self.snapshot = os.path.join(self.daemon.directory, "dynbalance-state", "servers.snapshot")
        wait_until(self._written, "the snapshot")

    def _written(self) -> bool:
        try:
            with open(self.snapshot) as file:
                return self.backend.address in file.read()
        except FileNotFoundError:
            return False

    def served(self) -> int:
        return ask(self.daemon.http).status

    def until_back(self) -> None:
        wait_until(lambda: ask(self.daemon.admin, "/upstream/health").status == 200, "the store")

    def test_used(self) -> None:
        """It serves by what it knew when it ended, even by KILL, and then by the store."""
        self.daemon.process.kill()
        self.redis.process.kill()
        self.daemon.start()
        self.assertEqual(200, self.served())
        self.assertEqual(200, ask(self.daemon.admin, "/readyz").status)
        self.assertEqual(503, ask(self.daemon.admin, "/upstream/health").status)
        self.assertEqual(3, self.daemon.status()[self.backend.address]["weight"])
        self.assertIn(self.snapshot, self.daemon.process.log())
        self.redis.start()
        self.until_back()
        self.assertEqual({self.backend.address}, set(self.daemon.status()))
        self.assertEqual("1", self.redis("GET", "upstream:revision"))

    def test_workers(self) -> None:
        """The workers of a daemon know what it knew."""
        self.daemon.process.kill()
        self.redis("FLUSHALL")
        self.begin(workers=2)
        self.daemon.process.stop()
        self.redis.process.kill()
        self.daemon.start()
        self.assertEqual([200] * 10, [self.served() for _ in range(10)])
        self.assertEqual(0, self.daemon.process.stop())

    def test_store_lost_meanwhile(self) -> None:
        """A store that comes back empty is given what the daemon knew before its own end."""
        self.daemon.process.stop()
        self.redis.process.kill()
        self.daemon.start()
        for path in glob.glob(os.path.join(self.redis.directory, "appendonly*")):
            shutil.rmtree(path)
        self.redis.start()
        self.until_back()
        self.assertEqual(200, self.served())
        self.assertEqual("2", self.redis("GET", "upstream:revision"))

    def test_damaged(self) -> None:
        """A file that was changed is named, kept aside and not used."""
        self.daemon.process.kill()
        self.redis.process.kill()
        with open(self.snapshot, "r+b") as file:
            file.seek(-150, os.SEEK_END)
            file.write(b"?")
        self.daemon.start()
        self.assertEqual(502, self.served())
        self.assertEqual(503, ask(self.daemon.admin, "/readyz").status)
        self.assertIn("damaged", self.daemon.process.log())
        self.assertTrue(os.path.exists(f"{self.snapshot}.refused"))

    def test_nowhere_to_write(self) -> None:
        """A state directory that takes nothing is logged once, and all else works."""
        self.daemon.process.stop()
        shutil.rmtree(os.path.dirname(self.snapshot))
        with open(os.path.dirname(self.snapshot), "w"):
            pass
        self.daemon.start()
        wait_until(lambda: "cannot be written" in self.daemon.process.log(), "the line")
        self.daemon.add(free_port())
        self.assertEqual(200, self.served())
        self.assertEqual(1, self.daemon.process.log().count("cannot be written"))
        self.assertEqual(0, self.daemon.process.stop())
