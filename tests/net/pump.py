"""
A reactor that is turned by hand: real sockets, and a clock that stands still.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import main, task
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.python.failure import Failure

TURNS = 3000


class Pump(task.Clock):
    """
    What a hub needs of a reactor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.advance(1000.0)
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self) -> None:
        """One turn: what is ready, then what is due."""
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0.002)
        for descriptor in readable:
            if descriptor in self.readers:
                self._took(descriptor, descriptor.doRead(), reading=True)
        for descriptor in writable:
            if descriptor in self.writers:
                self._took(descriptor, descriptor.doWrite(), reading=False)
        self.advance(0)

    def _took(self, descriptor: Any, why: BaseException | None, reading: bool) -> None:
        if why is None:
            return
        self.readers.discard(descriptor)
        half = IHalfCloseableDescriptor.providedBy(descriptor)
        if reading and why is main.CONNECTION_DONE and half:
            descriptor.readConnectionLost(Failure(why))
        else:
            self.writers.discard(descriptor)
            descriptor.connectionLost(Failure(why))

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until C{condition}, which must come true."""
        for _ in range(TURNS):
            if condition():
                return
            self.turn()
        raise AssertionError("it did not happen")

    def settle(self) -> None:
        """Turn until nothing more can be expected to happen."""
        for _ in range(10):
            self.turn()


class Peer:
    """
    The other end of a connection under test.
    """

    def __init__(self, pump: Pump, skt: socket.socket) -> None:
        skt.setblocking(False)
        self.pump = pump
        self.skt = skt
        self.got = bytearray()
        self.ended = False
        self.reset = False

    @classmethod
    def connect(cls, pump: Pump, port: int, host: str = "127.0.0.1") -> Peer:
        return cls(pump, socket.create_connection((host, port)))

    def read(self) -> None:
        """Take what is there now."""
        try:
            data = self.skt.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            self.ended = self.reset = True
            return
        self.got += data
        self.ended = self.ended or not data

    def expect(self, data: bytes) -> None:
        """Wait for exactly C{data}, then empty what came."""

        def came() -> bool:
            self.read()
            return len(self.got) >= len(data) or self.ended

        self.pump.until(came)
        assert bytes(self.got) == data, bytes(self.got[:100])
        self.got.clear()

    def expect_end(self) -> None:
        """Wait for the end of what this peer hears."""

        def came() -> bool:
            self.read()
            return self.ended

        self.pump.until(came)

    def send(self, data: bytes) -> None:
        """Send all of C{data}; the other side has to take it."""
        left = memoryview(data)

        def gone() -> bool:
            nonlocal left
            try:
                left = left[self.skt.send(left) :]
            except BlockingIOError:
                return False
            return not left

        self.pump.until(gone)

    def send_what_fits(self, limit: int) -> int:
        """Send until nobody takes more, or C{limit}."""
        sent = stuck = 0
        block = bytes(65536)
        while sent < limit and stuck < 30:
            try:
                sent += self.skt.send(block)
                stuck = 0
            except BlockingIOError:
                stuck += 1
            self.pump.turn()
        return sent

    def end(self) -> None:
        """Say no more."""
        self.skt.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with a reset."""
        linger = (1).to_bytes(4, "little") + bytes(4)
        self.skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.skt.close()

    def close(self) -> None:
        self.skt.close()


class Backend:
    """
    A listening socket of the test's own.
    """

    def __init__(self, pump: Pump, backlog: int = 100) -> None:
        self.pump = pump
        self.skt = socket.socket()
        self.skt.bind(("127.0.0.1", 0))
        self.skt.listen(backlog)
        self.skt.setblocking(False)
        self.port: int = self.skt.getsockname()[1]

    def accept(self) -> Peer:
        """Wait for a connection."""
        self.pump.until(lambda: select.select([self.skt], [], [], 0)[0])
        return Peer(self.pump, self.skt.accept()[0])

    def close(self) -> None:
        self.skt.close()


def unused_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        port: int = skt.getsockname()[1]
        return port


def descriptors() -> int:
    """How many sockets, pipes and epolls the process has open."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        # The one that lists them is gone again.
        with suppress(FileNotFoundError):
            kind = os.readlink(f"/proc/self/fd/{fd}")
            found += kind.startswith(("socket:", "pipe:", "anon_inode:"))
    return found
