"""
Tests for L{dynbalance.workers.sockets}, with sockets on 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
import tempfile
from types import SimpleNamespace

from attrs import evolve
from twisted.trial.unittest import TestCase

from dynbalance.workers.sockets import Opened, Sockets

MANY = 64


class SocketsCase(TestCase):
    """A listening socket, and what is made of it."""

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

    def opened(self, option: str, listen: str, skt: socket.socket) -> Opened:
        return Opened(option, listen, (SimpleNamespace(socket=skt),))

    def sockets(self, *opened: Opened, workers: int = 2) -> Sockets:
        made = Sockets(workers)
        self.addCleanup(made.close)
        made.prepare(opened)
        made.switch()
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


class SocketsTests(SocketsCase):
    """L{Sockets}."""

    def test_spread(self) -> None:
        """Each worker has a socket of its own for a port, and a part of who comes."""
        made = self.sockets(self.opened("http[0]", "tcp:0", self.first))
        for _ in range(MANY):
            client = socket.create_connection(self.place)
            self.addCleanup(client.close)
        (mine,), (theirs,) = (made.of(worker)["http[0]"] for worker in (0, 1))
        self.assertFalse(mine.shared)
        parts = [self.waiting(mine.fd), self.waiting(theirs.fd)]
        self.assertEqual(MANY, sum(parts))
        self.assertTrue(all(parts), parts)

    def test_nobody_else(self) -> None:
        """No program that asked for the port alone gets it, and closing leaves it free."""
        made = self.sockets(self.opened("http[0]", "tcp:0", self.first), workers=3)
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
        made = self.sockets(self.opened("http[0]", "tcp:0", self.first))
        copies = [os.dup(made.of(worker)["http[0]"][0].fd) for worker in (0, 1)]
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
            self.opened("http[0]", f"unix:{path}", local),
            self.opened("http[1]", "systemd:domain=INET:index=0", self.first),
        )
        for option, skt in (("http[0]", local), ("http[1]", self.first)):
            for worker in (0, 1):
                (inherited,) = made.of(worker)[option]
                self.assertTrue(inherited.shared)
                self.assertEqual(skt.fileno(), inherited.fd)
                self.assertEqual(skt.family, inherited.family)

    def test_change(self) -> None:
        """The sockets of a port that stays are the same, whatever it is called then."""
        kept = self.opened("http[0]", "tcp:0", self.first)
        second = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        gone = self.opened("http[1]", "tcp:0", second)
        made = self.sockets(kept, gone)
        before = made.of(1)
        third = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        made.prepare([self.opened("http[0]", "tcp:0", third), evolve(kept, option="http[1]")])
        self.assertEqual(before, made.of(1))
        made.switch()
        self.assertEqual(before["http[0]"], made.of(1)["http[1]"])
        self.assertNotEqual(before["http[0]"], made.of(1)["http[0]"])
        place = second.getsockname()
        second.close()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, place)

    def test_cannot_change(self) -> None:
        """If one cannot be had all stays as it was."""
        made = self.sockets(self.opened("http[0]", "tcp:0", self.first))
        before = made.of(1)
        closed = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        closed.close()
        other = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        coming = [self.opened(f"http[{i}]", "tcp:0", skt) for i, skt in enumerate((other, closed))]
        self.assertRaises(OSError, made.prepare, coming)
        self.assertEqual(before, made.of(1))
        made.prepare([self.opened("http[0]", "tcp:0", other)])
        made.switch()
        self.assertEqual({"http[0]"}, set(made.of(0)))


class TakenTests(SocketsCase):
    """Sockets that another crew has left."""

    def taken(self, sockets: int, workers: int) -> list[list[tuple[int, bool]]]:
        """
        What each worker gets: the numbers of sockets, and whether others have them too.
        """
        ports = [self.first]
        self.first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(sockets - 1):
            mate = socket.socket()
            self.addCleanup(mate.close)
            mate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            mate.bind(self.place)
            mate.listen(128)
            ports.append(mate)
        numbers = {port.fileno(): number for number, port in enumerate(ports)}
        opened = tuple(SimpleNamespace(socket=port) for port in ports)
        made = self.sockets(Opened("http[0]", "tcp:0", opened, True), workers=workers)
        self.assertEqual(tuple(ports), made.of_ports(opened))
        every = [made.of(worker)["http[0]"] for worker in range(workers)]
        made.leave()
        self.assertEqual((), made.of_ports(opened))
        for port in ports:
            # Still open, and still listening.
            self.assertEqual(1, port.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        return [[(numbers[each.fd], each.shared) for each in its] for its in every]

    def test_as_many(self) -> None:
        """Each worker has one of its own."""
        self.assertEqual([[(0, False)], [(1, False)]], self.taken(2, 2))

    def test_more(self) -> None:
        """No queue is left alone: what cannot be shared out is everybody's."""
        self.assertEqual(
            [[(0, False), (1, False), (4, True)], [(2, False), (3, False), (4, True)]],
            self.taken(5, 2),
        )

    def test_fewer(self) -> None:
        """No socket is made that would die with a crew that comes to nothing."""
        self.assertEqual([[(0, True)], [(0, True)], [(0, True)]], self.taken(1, 3))


class LeaveTests(SocketsCase):
    """Sockets that another crew goes on with."""

    def test_leave(self) -> None:
        """What was made here is closed, and whoever has copies listens on."""
        made = self.sockets(self.opened("http[0]", "tcp:0", self.first))
        (mate,) = made.of(1)["http[0]"]
        copy = socket.socket(fileno=os.dup(mate.fd))
        self.addCleanup(copy.close)
        made.leave()
        self.assertEqual({}, made.of(0))
        self.assertRaises(OSError, os.fstat, mate.fd)
        self.assertEqual(1, copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
