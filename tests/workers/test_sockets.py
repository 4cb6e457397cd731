"""
Tests for L{dynbalance.workers.sockets}, with sockets on 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
import tempfile
from types import SimpleNamespace

from twisted.trial.unittest import TestCase

from dynbalance.workers.sockets import Opened, Sockets

MANY = 64


class SocketsTests(TestCase):
    """L{Sockets}."""

    def setUp(self) -> None:
        self.first = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        self.place = self.first.getsockname()

    def bound(self, family: int, place: object) -> socket.socket:
        """A socket as one of Twisted's ports has it."""
        listening = socket.socket(family)
        self.addCleanup(listening.close)
        listening.setblocking(False)
        if family == socket.AF_INET:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(128)
        return listening

    def sockets(self, *listening: tuple[str, socket.socket], workers: int = 2) -> Sockets:
        made = Sockets(
            [Opened(f"http[{i}]", text, SimpleNamespace(socket=skt))
             for i, (text, skt) in enumerate(listening)],
            workers,
        )
        self.addCleanup(made.close)
        return made

    def waiting(self, fd: int) -> int:
        """How many connections wait in a listening socket, which are taken."""
        number = 0
        with socket.socket(fileno=os.dup(fd)) as listening:
            listening.setblocking(False)
            while True:
                try:
                    listening.accept()[0].close()
                except BlockingIOError:
                    return number
                number += 1

    def test_spread(self) -> None:
        """Each worker has a socket of its own for a port, and a part of who comes."""
        made = self.sockets(("tcp:0", self.first))
        for _ in range(MANY):
            client = socket.create_connection(self.place)
            self.addCleanup(client.close)
        mine, theirs = (made.of(worker)["http[0]"] for worker in (0, 1))
        self.assertFalse(mine.shared)
        parts = [self.waiting(mine.fd), self.waiting(theirs.fd)]
        self.assertEqual(MANY, sum(parts))
        self.assertTrue(all(parts), parts)

    def test_nobody_else(self) -> None:
        """No program that asked for the port alone gets it, and closing leaves it free."""
        made = self.sockets(("tcp:0", self.first), workers=3)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.assertRaises(OSError, other.bind, self.place)
        self.first.close()
        made.close()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(self.place)

    def test_closed_for_all(self) -> None:
        """Closing ends the listening of whoever has the sockets too."""
        made = self.sockets(("tcp:0", self.first))
        copies = [os.dup(made.of(worker)["http[0]"].fd) for worker in (0, 1)]
        for copy in copies:
            self.addCleanup(os.close, copy)
        self.first.shutdown(socket.SHUT_RDWR)
        made.close()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, self.place)

    def test_only_once(self) -> None:
        """A unix socket, or one that systemd opened, is shared."""
        path = os.path.join(tempfile.mkdtemp(prefix="dynbalance-test-"), "s")
        self.addCleanup(os.rmdir, os.path.dirname(path))
        local = self.bound(socket.AF_UNIX, path)
        self.addCleanup(os.unlink, path)
        made = self.sockets(
            (f"unix:{path}", local), ("systemd:domain=INET:index=0", self.first)
        )
        for option, skt in (("http[0]", local), ("http[1]", self.first)):
            for worker in (0, 1):
                inherited = made.of(worker)[option]
                self.assertTrue(inherited.shared)
                self.assertEqual(skt.fileno(), inherited.fd)
                self.assertEqual(skt.family, inherited.family)
