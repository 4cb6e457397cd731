"""
What stands in for the hub where the system has no epoll.
"""

from __future__ import annotations

import select
from typing import Any

from dynbalance.net.hub import Hub


class Direct(Hub):
    """
    A hub that registers every descriptor with the reactor itself.
    """

    def __repr__(self) -> str:
        return f"<Direct {len(self._readers.keys() | self._writers.keys())} descriptors>"

    @property
    def now(self) -> float:
        """There are no batches here."""
        return self.seconds()

    @now.setter
    def now(self, seconds: float) -> None:
        """The reactor's clock cannot be set."""

    def fileno(self) -> int:
        """Not to be watched itself."""
        return -1

    def _enter(self) -> None:
        """The reactor is not to have this object."""

    def _leave(self) -> None:
        """The reactor never had this object."""

    def addReader(self, reader: Any) -> None:
        self._readers[reader.fileno()] = reader
        self.reactor.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        self._writers[writer.fileno()] = writer
        self.reactor.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if fd in self._readers and self._readers[fd] is reader:
            del self._readers[fd]
        self.reactor.removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        fd = writer.fileno()
        if fd in self._writers and self._writers[fd] is writer:
            del self._writers[fd]
        self.reactor.removeWriter(writer)

    def wait_to_write_only(self, descriptor: Any) -> None:
        self.removeReader(descriptor)
        self.addWriter(descriptor)

    def wait_to_read_only(self, descriptor: Any) -> None:
        self.removeWriter(descriptor)
        self.addReader(descriptor)

    def forget(self, fd: int) -> None:
        reader = self._readers.pop(fd, None)
        if reader is not None:
            self.reactor.removeReader(reader)
        writer = self._writers.pop(fd, None)
        if writer is not None:
            self.reactor.removeWriter(writer)

    def hand_over(self, fd: int) -> None:
        self.forget(fd)


def carrier(reactor: Any, epoll: bool = hasattr(select, "epoll")) -> Hub:
    """
    What connections are to be registered with.

    @param epoll: whether to use an epoll of our own.
    """
    return Hub(reactor) if epoll else Direct(reactor)
