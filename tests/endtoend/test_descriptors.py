"""
A daemon that may open few files, and clients that take them all.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.servers import Backend, Redis

ROOM = 60
"""Descriptors that the daemon may open beyond those that it has."""


def processor_time(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class DescriptorTests(EndToEndCase):
    """More clients come than the daemon has descriptors."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.daemon = Daemon(self, self.redis.url, keeping={"timeout": 0.5})
        self.backend = Backend(self)
        self.daemon.add(self.backend.port, heartbeat="false")
        self.assertEqual(200, ask(self.daemon.http).status)
        self.pid = self.daemon.process.pid
        self.limit = self.daemon.process.descriptors() + ROOM
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self.limit, self.limit))
        self.clients = contextlib.ExitStack()
        self.addCleanup(self.clients.close)

    def crowd(self, port: int) -> None:
        for _ in range(3 * ROOM):
            self.clients.enter_context(socket.create_connection((LOOPBACK, port), 10))

    def assert_paused(self) -> None:
        """
        Who was let in is served, and the others wait; the daemon does not turn in
        circles meanwhile, the store and the admin API have descriptors, and no
        server is blamed.
        """
        log = self.daemon.process.log
        wait_until(lambda: "pauses: hardly a descriptor is left" in log(), "the pause")
        before = processor_time(self.pid)
        for _ in range(5):
            self.assertEqual("up", self.daemon.state(self.backend.address))
        self.assertEqual(200, ask(self.daemon.admin, "/upstream/health").status)
        other = Backend(self, "other")
        self.daemon.add(other.port, heartbeat="false")
        snapshot = os.path.join(self.daemon.directory, "dynbalance-state", "servers.snapshot")

        def written() -> bool:
            with contextlib.suppress(FileNotFoundError), open(snapshot) as file:
                return other.address in file.read()
            return False

        wait_until(written, "the snapshot")
        # An endless loop would have used all of those two seconds or more.
        self.assertLess(processor_time(self.pid) - before, 1.0)
        self.assertLess(self.daemon.process.descriptors(), self.limit - 5)
        self.assertEqual(1, log().count("pauses"))

    def assert_resumed(self) -> None:
        """When the clients have left, everything is as before."""
        self.clients.close()
        log = self.daemon.process.log
        wait_until(lambda: "goes on" in log(), "accepting to go on")
        self.assertEqual([200] * 20, [ask(self.daemon.http).status for _ in range(20)])
        nothing = dict.fromkeys(self.daemon.status(), 0)
        wait_until(lambda: self.daemon.counts() == nothing, "all counts to be 0")
        wait_until(lambda: self.redis.counts() == nothing, "all counts to be 0 in the store")

    def test_idle_http(self) -> None:
        """Clients of HTTP that ask for nothing; one that was there before is served."""
        with socket.create_connection((LOOPBACK, self.daemon.http), 10) as early:
            early.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertIn(b"200", early.recv(4096))
            self.crowd(self.daemon.http)
            self.assert_paused()
            for _ in range(3):
                early.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertIn(b" 200 ", early.recv(4096))
        self.assert_resumed()

    def test_streams(self) -> None:
        """Clients of a stream, each of which needs a connection to the server, too."""
        self.crowd(self.daemon.stream)
        self.assert_paused()
        self.assert_resumed()

    def test_requests(self) -> None:
        """
        Requests that wait for their answers, in greater number than there can be
        connections: each is answered, at the worst by 503, and nobody blames the
        server.
        """
        statuses: list[int] = []
        clients = [
            threading.Thread(
                target=lambda: statuses.append(ask(self.daemon.http, "/held").status)
            )
            for _ in range(2 * ROOM)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: self.backend.told("/waiting") > 5, "requests to be under way")
        self.assertEqual("up", self.daemon.state(self.backend.address))

        def over() -> bool:
            self.backend.told("/release")
            return not any(client.is_alive() for client in clients)

        wait_until(over, "all answers", 30.0)
        self.assertEqual(2 * ROOM, len(statuses))
        self.assertLessEqual(set(statuses), {200, 503})
        self.assertGreater(statuses.count(200), ROOM)
        self.assertEqual("up", self.daemon.state(self.backend.address))
