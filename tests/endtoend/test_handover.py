"""
A new process beside the old one on the same ports takes over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Program, accepts, ask, wait_until
from tests.endtoend.load import Load
from tests.endtoend.servers import Backend, Redis
from tests.endtoend.test_ending import Asking

MANY = 20
"""Connections that are never all with one of two workers: once in half a million times."""

LATE = """
import pathlib, sys, time

if "dynbalance.workers" in sys.orig_argv:
    pathlib.Path(__file__).with_name("begun").touch()
    time.sleep(60)

def choose(context):
    pass
"""
"""A hook that no worker has for a minute."""


class HandoverCase(EndToEndCase):
    def setUp(self) -> None:
        self.backend = Backend(self)

    def begin(self, store: str = "embedded:", modules: str = "", **root: str | float) -> Daemon:
        """A daemon with one server."""
        self.state = self.directory("state")
        daemon = Daemon(
            self,
            store,
            root={"node": "", **root},
            servers=f'[{{ address = "{self.backend.address}" }}]',
            options=("--state-dir", self.state),
            modules=modules,
        )
        self.old = daemon.process
        return daemon

    def second(self, daemon: Daemon, wait: bool = True) -> Program:
        """Start another process of the same daemon; C{daemon} stands for it then."""
        daemon.name = "second"
        daemon.start(wait)
        return daemon.process


class HandoverTests(HandoverCase):
    """Nobody is refused, nobody is cut off, nothing is counted twice."""

    def test_under_load(self) -> None:
        """Two take-overs in a row: no request fails, and each old process ends with 0."""
        daemon = self.begin()
        load = Load(self, daemon.http)
        for _ in range(2):
            before = daemon.process
            self.second(daemon)
            load.go_on()
            self.assertEqual(0, before.wait())
            load.go_on()
        load.stop()
        self.assertEqual([], load.failures)
        self.assertEqual(0, daemon.process.stop())
        self.assertFalse(os.path.exists(os.path.join(self.state, "handover.sock")))

    def test_in_flight(self) -> None:
        """What the old one carries it finishes, and the new one knows of it."""
        daemon = self.begin()
        held = Asking(daemon.http, "/held")
        self.addCleanup(held.wait)
        wait_until(lambda: self.backend.told("/waiting") == 1, "the held request")
        with socket.create_connection((LOOPBACK, daemon.stream), 20) as stream:
            stream.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            wait_until(lambda: self.backend.told("/accepted") >= 2, "the stream")
            self.second(daemon)
            wait_until(lambda: daemon.counts() == {self.backend.address: 2}, "both to be known")
            stream.sendall(b"cd")
            self.assertIn(b"\r\n\r\nabcd", stream.recv(4096))
            self.backend.told("/release")
            held.wait()
            self.assertFalse(self.old.ended)
        assert held.reply, held.failed
        self.assertEqual("close", held.reply.headers["connection"])
        self.assertEqual(0, self.old.wait())
        wait_until(lambda: daemon.counts() == {self.backend.address: 0}, "both to end")

    def test_members(self) -> None:
        """Who has registered stays a member, with the embedded store as with another."""
        for store in ("embedded:", Redis(self).url):
            other = Backend(self, "other")
            daemon = self.begin(store)
            daemon.add(other.port)
            self.second(daemon)
            self.assertIn(other.address, daemon.status())
            daemon.call("remove", host=LOOPBACK, port=other.port)
            self.assertNotIn(other.address, daemon.status())
            self.assertEqual(0, self.old.wait())
            self.assertEqual(0, daemon.process.stop())


class CrewHandoverTests(HandoverCase):
    """Workers give their places to workers."""

    def test_under_load(self) -> None:
        """
        Two workers, again two, one process, three workers: no request fails,
        and each old process ends with 0.
        """
        daemon = self.begin(workers=2)
        load = Load(self, daemon.http, clients=6)
        for before, after in ((2, 2), (2, 1), (1, 3)):
            old = daemon.process
            daemon.edit(f"workers = {before}", f"workers = {after}")
            self.second(daemon)
            load.go_on()
            self.assertEqual(0, old.wait())
            load.go_on()
        load.stop()
        self.assertEqual([], load.failures)
        answers = [ask(daemon.http).status for _ in range(20)]
        self.assertEqual([200] * 20, answers)
        daemon.reload()
        self.assertEqual(200, ask(daemon.http).status)
        self.assertEqual(0, daemon.process.stop())
        self.assertFalse(accepts(daemon.http))
        self.assertFalse(os.path.exists(os.path.join(self.state, "handover.sock")))

    def test_in_flight(self) -> None:
        """What the old workers carry they finish, and the new ones know of it."""
        daemon = self.begin(Redis(self).url, workers=2)
        held = [Asking(daemon.http, "/held") for _ in range(8)]
        for each in held:
            self.addCleanup(each.wait)
        self.addCleanup(self.backend.told, "/release")
        wait_until(lambda: self.backend.told("/waiting") == 8, "the held requests")
        with socket.create_connection((LOOPBACK, daemon.stream), 20) as stream:
            stream.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            wait_until(lambda: daemon.counts() == {self.backend.address: 9}, "the stream")
            self.second(daemon)
            wait_until(lambda: daemon.counts() == {self.backend.address: 9}, "all to be known")
            stream.sendall(b"cd")
            self.assertIn(b"\r\n\r\nabcd", stream.recv(4096))
            self.backend.told("/release")
            for each in held:
                each.wait()
            self.assertFalse(self.old.ended)
        for each in held:
            assert each.reply, each.failed
            self.assertEqual("close", each.reply.headers["connection"])
        self.assertEqual(0, self.old.wait())
        wait_until(lambda: daemon.counts() == {self.backend.address: 0}, "all to end")

    def test_queues(self) -> None:
        """Who waits for an old worker is served by a new one."""
        daemon = self.begin(workers=2)
        (stopped,) = re.findall(r"Worker 2 serves \(process (\d+)\)", self.old.log())
        os.kill(int(stopped), signal.SIGSTOP)
        # Ends it, too, should the test fail.
        self.addCleanup(self.old.kill)
        asking = [Asking(daemon.http, "/") for _ in range(MANY)]
        for each in asking:
            self.addCleanup(each.wait)
        self.second(daemon)
        for each in asking:
            each.wait()
            assert each.reply, each.failed
            self.assertEqual(200, each.reply.status)
        with contextlib.suppress(ProcessLookupError):
            # On a busy machine it may have been found silent for too long.
            os.kill(int(stopped), signal.SIGCONT)
        self.assertEqual(0, self.old.wait())

    def test_own_name(self) -> None:
        """With a name of its own each worker follows a worker of that name."""
        redis = Redis(self)
        daemon = self.begin(redis.url, workers=2, node="n")
        self.second(daemon)
        self.assertEqual(0, self.old.wait())
        self.assertEqual(200, ask(daemon.http).status)
        nodes = redis("ZRANGE", "upstream:nodes", "0", "-1").split()
        self.assertEqual(["n", "n-w1", "n-w2"], sorted(nodes))
        log = daemon.process.log() + self.old.log()
        self.assertNotIn("Store lost", log)

    def test_killed(self) -> None:
        """When the new one dies in its start the old workers go on, and nobody is lost."""
        modules = self.directory("modules")
        with open(os.path.join(modules, "late.py"), "w") as out:
            out.write(LATE)
        daemon = self.begin(modules=modules, workers=2)
        load = Load(self, daemon.http)
        daemon.edit("[[http]]", 'balancer = "late:choose"\n[[http]]')
        new = self.second(daemon, wait=False)
        new.until(lambda: os.path.exists(os.path.join(modules, "begun")), "has workers")
        new.kill()
        wait_until(lambda: "goes on" in self.old.log(), "the old one to notice")
        wait_until(
            lambda: ask(daemon.admin, "/upstream/health").status == 200, "the store to be back"
        )
        load.go_on()
        daemon.edit('balancer = "late:choose"\n', "")
        self.second(daemon)
        self.assertEqual(0, self.old.wait())
        load.go_on()
        load.stop()
        self.assertEqual([], load.failures)

    def test_cut_short(self) -> None:
        """An old daemon that finishes ends in order by TERM, and at once by a second one."""
        daemon = self.begin(workers=2)
        held = Asking(daemon.http, "/held")
        self.addCleanup(held.wait)
        self.addCleanup(self.backend.told, "/release")
        wait_until(lambda: self.backend.told("/waiting") == 1, "the held request")
        self.second(daemon)
        # Not the same twice: the kernel may tell that once.
        self.old.signal(signal.SIGTERM)
        self.old.signal(signal.SIGINT)
        held.wait()
        self.assertIsNotNone(held.failed)
        self.assertEqual(0, self.old.wait())
        self.assertEqual(200, ask(daemon.http).status)


class FailedHandoverTests(HandoverCase):
    """A new process that comes to nothing changes nothing."""

    def still_serves(self, daemon: Daemon) -> None:
        self.assertEqual(200, ask(daemon.http).status)
        self.assertEqual(200, ask(daemon.admin, "/upstream/health").status)
        self.assertFalse(self.old.ended)

    def test_bad_start(self) -> None:
        """One whose file is wrong, or whose ports are in use, never asks for anything."""
        daemon = self.begin()
        daemon.edit("[[stream]]", f"""
            [[stream]]
            listen = "tcp:{self.backend.port}:interface={LOOPBACK}"
            [[stream]]""")
        self.assertEqual(1, self.second(daemon, wait=False).wait())
        self.still_serves(daemon)

    def test_killed(self) -> None:
        """When one dies after it was given everything the old one takes it back."""
        daemon = self.begin()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.settimeout(20)
            successor.connect(os.path.join(self.state, "handover.sock"))
            hello = {"version": 2, "pid": 1, "node": "", "listen": [f"tcp:{daemon.http}"]}
            successor.sendall(json.dumps(hello).encode() + b"\n")
            self.assertEqual([], json.loads(successor.recv(4096))["given"])
            successor.sendall(b"take\n")
            self.assertEqual(b"given\n", successor.recv(4096))
            self.assertEqual(200, ask(daemon.http).status)
        wait_until(lambda: "goes on" in self.old.log(), "the old one to notice")
        wait_until(
            lambda: ask(daemon.admin, "/upstream/health").status == 200, "the store to be back"
        )
        self.still_serves(daemon)
        self.assertEqual(0, self.old.stop())

    def test_other_version(self) -> None:
        """A release that hands over in another way is told so."""
        daemon = self.begin()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.settimeout(20)
            successor.connect(os.path.join(self.state, "handover.sock"))
            hello = {"version": 1, "pid": 1, "node": "", "listen": []}
            successor.sendall(json.dumps(hello).encode() + b"\n")
            self.assertIn("version 2, not 1", json.loads(successor.recv(4096))["refused"])
        self.still_serves(daemon)

    def test_stranger(self) -> None:
        """A daemon on other ports takes nothing, not even the place to be asked at."""
        daemon = self.begin("memory:")
        other = Daemon(self, name="other", options=("--state-dir", self.state))
        self.assertEqual(200, ask(other.admin, "/healthz").status)
        self.still_serves(daemon)
        self.assertEqual(0, other.process.stop())
        self.second(daemon)
        self.assertEqual(0, self.old.wait())

    def test_stale_socket(self) -> None:
        """The socket of a daemon that was killed is in nobody's way."""
        daemon = self.begin()
        self.old.signal(signal.SIGKILL)
        self.old.wait()
        self.assertTrue(os.path.exists(os.path.join(self.state, "handover.sock")))
        self.second(daemon)
        self.assertEqual(200, ask(daemon.http).status)
