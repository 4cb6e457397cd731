"""
The listening sockets that workers accept from.

Each worker has one of its own for every TCP listener, all bound to one place,
and the kernel spreads new connections over them by the clients' addresses and
ports (C{SO_REUSEPORT}).  The parent keeps them all: what waits in the socket
of a worker that died is accepted by its successor.

A unix socket, or one that systemd opened, there is only once: all workers
accept from it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dynbalance.net.port import BACKLOG, AdoptedUNIXPort, HubPort

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

    from dynbalance.net.hub import Hub

_SPREAD = (socket.AF_INET, socket.AF_INET6)


@frozen(slots=True)
class Inherited:
    """
    A listening socket as a worker gets it.

    @ivar fd: its descriptor in the process that has this object.
    @ivar family: of its address, such as C{socket.AF_INET}.
    @ivar shared: whether other workers accept from it too.
    """

    fd: int
    family: int
    shared: bool

    def adopted(self, hub: Hub, factory: IProtocolFactory) -> HubPort | AdoptedUNIXPort:
        """Listen on it."""
        port = hub.adoptStreamPort(self.fd, self.family, factory)
        if self.shared:
            # One in a turn: whoever is awake first would take them all.
            port.accepts = 1
        return port


@frozen(slots=True)
class Opened:
    """
    A listener's port that the parent has opened, and does not accept from.

    @ivar option: path of the listener's table.
    @ivar listen: its endpoint.
    """

    option: str
    listen: str
    port: Any

    @property
    def is_ours(self) -> bool:
        """Whether nobody else, such as systemd, has opened it."""
        return not self.listen.startswith("systemd:")


class Sockets:
    """
    The sockets of all listeners for all workers.
    """

    def __init__(self, opened: Iterable[Opened], workers: int) -> None:
        """
        @raise OSError: a socket cannot be had.
        """
        self._kept: list[socket.socket] = []
        self._by_worker: list[dict[str, Inherited]] = [{} for _ in range(workers)]
        try:
            for each in opened:
                self._spread(each.option, each.port.socket, each.is_ours)
        except OSError:
            self.close()
            raise

    def _spread(self, path: str, first: socket.socket, ours: bool) -> None:
        spread = ours and first.family in _SPREAD
        workers = len(self._by_worker)
        mates = self._mates(first, workers) if spread else [first] * workers
        for theirs, mate in zip(self._by_worker, mates, strict=True):
            theirs[path] = Inherited(mate.fileno(), int(first.family), not spread)

    def _mates(self, first: socket.socket, number: int) -> list[socket.socket]:
        # Not before it is bound: so bound, it was nobody else's.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mates = [first]
        for _ in range(number - 1):
            mate = socket.socket(first.family, socket.SOCK_STREAM)
            self._kept.append(mate)
            mate.setblocking(False)
            mate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            mate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            mate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            mate.bind(first.getsockname())
            mate.listen(BACKLOG)
            mates.append(mate)
        return mates

    def of(self, worker: int) -> Mapping[str, Inherited]:
        """
        @param worker: counted from 0.
        @return: its sockets by the paths of the listeners' options.
        """
        return self._by_worker[worker]

    def close(self) -> None:
        """Listen no more with those that were made here, whoever has them too."""
        for mate in self._kept:
            # One that does not listen yet cannot be shut.
            with suppress(OSError):
                mate.shutdown(socket.SHUT_RDWR)
            mate.close()
        self._kept.clear()
