"""
More connections than the kernel lets wait: before a daemon that stands still, and
before its servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from pathlib import Path

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import BOUND, LOOPBACK, EndToEndCase, Program, ask, wait_until
from tests.endtoend.servers import Backend

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull"
BACKLOG = 5
CLIENTS = 15
SYN_TRIES = 20.0
"""Seconds within which the kernel has made the third try to connect, or the fourth."""


def state(program: Program) -> str:
    """The letter that proc(5) has for it."""
    return Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]


def calls(case: EndToEndCase, port: int, count: int = 1) -> list[socket.socket]:
    """So many who begin to connect, and do not wait until they are."""
    callers = []
    for _ in range(count):
        caller = socket.socket()
        case.addCleanup(caller.close)
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.connect((LOOPBACK, port))
        callers.append(caller)
    return callers


def arrived(callers: list[socket.socket]) -> list[socket.socket]:
    """Those whom the kernel has let in."""
    return select.select([], callers, [], 0)[1]


def say(caller: socket.socket) -> None:
    """Ask, however long it takes to be let in."""
    assert select.select([], [caller], [], SYN_TRIES)[1], "nobody lets it in"
    caller.settimeout(SYN_TRIES)
    caller.sendall(REQUEST)


def heard(caller: socket.socket) -> bytes:
    """All that it gets."""
    data = b""
    while more := caller.recv(65536):
        data += more
    return data


class ListenerTests(EndToEndCase):
    """C{backlog}, and what is beyond it."""

    def setUp(self) -> None:
        backend = Backend(self)
        self.daemon = Daemon(
            self,
            servers=f'[{{ address = "{backend.address}" }}]',
            http={"backlog": BACKLOG},
            stream={"backlog": BACKLOG},
        )
        for port in (self.daemon.http, self.daemon.stream):
            self.assertEqual(200, ask(port).status)

    def crowd(self, port: int, backlog: int) -> tuple[list[socket.socket], list[socket.socket]]:
        """
        Clients before a daemon that stands still.

        @return: those who are let in, one more than C{backlog} as Linux counts,
            and those who are not.
        """
        daemon = self.daemon.process
        daemon.pause()
        wait_until(lambda: state(daemon) == "T", "the daemon to stand still")
        callers = calls(self, port, CLIENTS)
        wait_until(lambda: len(arrived(callers)) > backlog, "the queue to be full")
        inside = arrived(callers)
        self.assertEqual(backlog + 1, len(inside))
        return inside, [each for each in callers if each not in inside]

    def served(self, callers: list[socket.socket]) -> None:
        for caller in callers:
            say(caller)
        for caller in callers:
            self.assertRegex(heard(caller), rb"\AHTTP/1.1 200 ")
            caller.close()

    def check(self, port: int) -> None:
        inside, outside = self.crowd(port, BACKLOG)
        # Two of them lose patience: one ends, and one resets.
        inside.pop().close()
        inside[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        inside.pop().close()
        self.daemon.process.resume()
        self.served(inside)
        # TCP asks again for those whom nobody answered.
        self.served(outside)
        self.assertEqual(200, ask(port).status)
        nothing = dict.fromkeys(self.daemon.status(), 0)
        wait_until(lambda: self.daemon.counts() == nothing, "the counts to be 0")

    def test_http(self) -> None:
        """Who is let in is served when the daemon goes on, the others when TCP asks again."""
        self.check(self.daemon.http)

    def test_stream(self) -> None:
        """So it is with streams."""
        self.check(self.daemon.stream)

    def test_reload(self) -> None:
        """Another backlog holds from the reload on, for the socket that is there."""
        self.daemon.edit(f"backlog = {BACKLOG}", "backlog = 2")
        self.daemon.reload()
        inside, outside = self.crowd(self.daemon.http, 2)
        self.daemon.process.resume()
        self.served([*inside, *outside])


class ServerTests(EndToEndCase):
    """Servers whose queue is full, so that they never answer an attempt to connect."""

    def setUp(self) -> None:
        self.full = socket.create_server((LOOPBACK, 0), backlog=0)
        self.addCleanup(self.full.close)
        self.fillers = calls(self, self.full.getsockname()[1], 4)
        wait_until(lambda: arrived(self.fillers), "the queue to be full")

    def serve(self, *others: Backend) -> None:
        addresses = [f"{LOOPBACK}:{self.full.getsockname()[1]}", *(o.address for o in others)]
        servers = [f'{{ address = "{address}", max_fails = 0 }}' for address in addresses]
        self.log = os.path.join(self.directory("logs"), "access.log")
        self.daemon = Daemon(
            self,
            servers=f"[{', '.join(servers)}]",
            upstream={
                "policy": "round_robin",
                "connect_timeout": 0.8,
                "retry_budget": 0,
                "keepalive": 0,
            },
            http={"access_log": self.log},
            stream={"access_log": self.log},
        )

    def causes(self, lines: int) -> list[str]:
        """Why attempts failed, when so many lines are in the log."""

        def written() -> list[str]:
            with open(self.log) as log:
                there = log.readlines()
            return there if len(there) >= lines else []

        entries = [json.loads(line) for line in wait_until(written, "the access log")]
        return [each["cause"] for entry in entries for each in entry["attempts"] if each["cause"]]

    def assert_nothing_left(self, descriptors: int) -> None:
        nothing = dict.fromkeys(self.daemon.status(), 0)
        wait_until(lambda: self.daemon.counts() == nothing, "the counts to be 0")
        there = self.daemon.process.descriptors
        wait_until(lambda: there() <= descriptors, "the descriptors to be closed")

    def test_next(self) -> None:
        """Who is sent there is served by the next server, when the time to connect is up."""
        self.serve(Backend(self))
        ask(self.daemon.admin, "/upstream/health")
        before = self.daemon.process.descriptors()
        for round_, port in enumerate((self.daemon.http, self.daemon.stream), 1):
            callers = calls(self, port, CLIENTS)
            for caller in callers:
                say(caller)
            for caller in callers:
                self.assertRegex(heard(caller), rb"\AHTTP/1.1 200 ")
                caller.close()
            causes = self.causes(round_ * CLIENTS)
            # They take turns.
            self.assertGreater(len(causes), round_ * CLIENTS // 3)
            self.assertEqual([], [cause for cause in causes if "timeout" not in cause])
            self.assert_nothing_left(before)

    def test_no_other(self) -> None:
        """Where there is no other it is said, and when the queue has room they are served."""
        self.serve()
        ask(self.daemon.admin, "/upstream/health")
        before = self.daemon.process.descriptors()
        self.assertEqual(504, ask(self.daemon.http).status)
        with socket.create_connection((LOOPBACK, self.daemon.stream), BOUND) as client:
            self.assertEqual(b"", client.recv(1))
        self.assert_nothing_left(before)
        for filler in self.fillers:
            filler.close()
        self.full.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.full.accept()[0].close()
        self.full.settimeout(BOUND)
        for port in (self.daemon.http, self.daemon.stream):
            with socket.create_connection((LOOPBACK, port), BOUND) as client:
                client.sendall(REQUEST)
                with self.full.accept()[0] as served:
                    served.settimeout(BOUND)
                    heard_of = b""
                    while not heard_of.endswith(b"\r\n\r\n"):
                        heard_of += served.recv(65536)
                    served.sendall(ANSWER)
                self.assertRegex(heard(client), rb"full\Z")
        self.assert_nothing_left(before)
