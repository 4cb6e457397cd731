"""
The listening sockets that workers accept from.

Each worker has one of its own for every TCP listener, all bound to one place,
and the kernel spreads new connections over them by the clients' addresses and
ports (C{SO_REUSEPORT}).  The parent keeps them all: what waits in the socket
of a worker that died is accepted by its successor.

A unix socket, or one that systemd opened, there is only once: all workers
accept from it.  So it is with sockets that another crew has left, when they are
fewer than the workers: one more would be asked of the kernel while the other
crew may yet go on, and who waits in it would be lost then.  When they are more, no
queue is left alone: each worker accepts from as many as all can have alike, and
the rest is everybody's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
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
    @ivar ports: of Twisted: one, or those that another process has left.
    @ivar taken: whether it has left them.
    """

    option: str
    listen: str
    ports: tuple[Any, ...]
    taken: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether nobody else, such as systemd, has opened it."""
        return not self.listen.startswith("systemd:")


class Sockets:
    """
    The sockets of all listeners for all workers: those of now, and those that
    are prepared for what comes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._now: dict[str, _Set] = {}
        self._next: dict[str, _Set] = {}

    def prepare(self, opened: Iterable[Opened]) -> None:
        """
        Have sockets for the listeners to come; those of a port that is there
        already stay the same.

        @raise OSError: one cannot be had; nothing has changed.
        """
        self._abandon()
        coming: dict[str, _Set] = {}
        try:
            for each in opened:
                here = next((own for own in self._now.values() if own.ports == each.ports), None)
                coming[each.option] = here or _Set.made(each, self._workers)
        except OSError:
            self._next = coming
            self._abandon()
            raise
        self._next = coming

    def switch(self) -> None:
        """What was prepared is that of now; what is in neither is closed."""
        before, self._now, self._next = self._now, self._next, {}
        self._close_unless(before, self._now)

    def _abandon(self) -> None:
        """What was prepared does not come."""
        given_up, self._next = self._next, {}
        self._close_unless(given_up, self._now)

    def of(self, worker: int) -> Mapping[str, tuple[Inherited, ...]]:
        """
        @param worker: counted from 0.
        @return: its sockets of now by the paths of the listeners' options.
        """
        return {option: each.of(worker) for option, each in self._now.items()}

    def of_ports(self, ports: Sequence[Any]) -> tuple[socket.socket, ...]:
        """
        @param ports: of Twisted, as they were opened.
        @return: all sockets there; none if no listener is.
        """
        here = (own.sockets for own in self._now.values() if own.ports == ports)
        return next(here, ())

    def leave(self) -> None:
        """Close the copies that are here: another process goes on with the sockets."""
        self._abandon()
        before, self._now = self._now, {}
        for each in before.values():
            each.leave()

    def close(self) -> None:
        """Listen no more with those that were made here, whoever has them too."""
        self._abandon()
        self.switch()

    def _close_unless(self, sets: Mapping[str, _Set], kept: Mapping[str, _Set]) -> None:
        for each in sets.values():
            if not any(each is other for other in kept.values()):
                each.close()


@frozen(slots=True, eq=False)
class _Set:
    """
    The sockets of one port.

    @ivar ports: of Twisted, which have the first of them.
    @ivar sockets: all.
    @ivar workers: how many there are.
    """

    ports: tuple[Any, ...]
    sockets: tuple[socket.socket, ...]
    workers: int

    @classmethod
    def made(cls, opened: Opened, workers: int) -> _Set:
        """@raise OSError: a socket cannot be had."""
        here: tuple[socket.socket, ...] = tuple(port.socket for port in opened.ports)
        first = here[0]
        if opened.taken or not opened.is_ours or first.family not in _SPREAD:
            return cls(opened.ports, here, workers)
        # Not before it is bound: so bound, it was nobody else's.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mates: list[socket.socket] = []
        try:
            mates.extend(_mate(first) for _ in range(workers - 1))
        except OSError:
            for mate in mates:
                mate.close()
            raise
        return cls(opened.ports, (first, *mates), workers)

    def of(self, worker: int) -> tuple[Inherited, ...]:
        even = len(self.sockets) // self.workers
        own = self.sockets[worker * even : (worker + 1) * even]
        rest = self.sockets[self.workers * even :]
        return tuple(
            Inherited(each.fileno(), int(each.family), shared)
            for sockets, shared in ((own, False), (rest, True))
            for each in sockets
        )

    @property
    def _mates(self) -> tuple[socket.socket, ...]:
        """Those that Twisted's ports do not have."""
        return self.sockets[len(self.ports) :]

    def leave(self) -> None:
        for mate in self._mates:
            mate.close()

    def close(self) -> None:
        for mate in self._mates:
            # Whoever has it too shall not go on listening.
            mate.shutdown(socket.SHUT_RDWR)
            mate.close()


def _mate(first: socket.socket) -> socket.socket:
    """Another socket that listens where C{first} does."""
    mate = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        mate.setblocking(False)
        mate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mate.bind(first.getsockname())
        mate.listen(BACKLOG)
    except OSError:
        mate.close()
        raise
    return mate
