"""
The ports that are open, by what the configuration calls them.

Knows endpoints and how a port is opened before anybody accepts from it; refuses
to know what is served.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort

from dynbalance.errors import ConfigError
from dynbalance.net.door import Door
from dynbalance.workers.sockets import Inherited


@frozen(slots=True)
class Wanted:
    """
    A port that is to be open.

    @ivar option: path of its table.
    @ivar text: the endpoint.
    @ivar reactor: that opens it.
    """

    option: str
    text: str
    reactor: Any


@frozen(slots=True, eq=False)
class OpenPort:
    """
    @ivar text: the endpoint that it was opened by.
    @ivar ports: of Twisted: one, or one for each of the sockets that a crew, whose
        place was taken, had there.
    @ivar door: what they lead to.
    @ivar taken: whether another process listened there before.
    """

    text: str
    ports: tuple[Any, ...]
    door: Door
    taken: bool = False

    @property
    def port(self) -> IListeningPort:
        """The first."""
        first: IListeningPort = self.ports[0]
        return first

    def pause(self) -> None:
        """Leave who comes in the kernel."""
        for port in self.ports:
            port.stopReading()

    def accept(self) -> None:
        """Let in who comes, and who has come meanwhile."""
        for port in self.ports:
            port.startReading()

    def let_wait(self, count: int) -> None:
        """
        @param count: connections that may wait in the kernel to be accepted; it
            cuts that to C{net.core.somaxconn}.  Of a socket that is lent, who
            lends it has said.
        """
        if not self.is_lent:
            for skt in self.sockets:
                skt.listen(count)

    def close(self) -> Deferred[Any]:
        return DeferredList([maybeDeferred(port.stopListening) for port in self.ports])

    def leave(self) -> Deferred[Any]:
        """Close our copies only: another process goes on with the sockets."""
        for port in self.ports:
            port._shouldShutdown = False
            if port.socket.family == socket.AF_UNIX:
                # Nor is its path ours any more.
                port._bindPath, port.lockFile = "\0left", None
        return self.close()

    def own(self) -> None:
        """Whoever has listened there is gone: once this is closed nobody shall."""
        if self.taken and not self.is_lent:
            for port in self.ports:
                port._shouldShutdown = True

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """That it listens on."""
        return tuple(port.socket for port in self.ports)

    @property
    def is_lent(self) -> bool:
        """Whether somebody else opened it, and nobody can open it again."""
        return self.text.startswith("systemd:")


def open_ports(
    wanted: Iterable[Wanted],
    before: Iterable[OpenPort],
    inherited: Mapping[str, tuple[Inherited, ...]] | None = None,
    taken: Mapping[str, tuple[Inherited, ...]] = MappingProxyType({}),
) -> list[OpenPort]:
    """
    Have a port for each that is wanted: one of those that are open, or else a
    new one, from which nobody accepts yet.

    @param before: the open ones; none of them is changed.
    @param inherited: what is listened on instead of any new one, by the paths of
        the listeners.
    @param taken: what another process has given, by the endpoints.
    @return: in the order of C{wanted}.
    @raise ConfigError: naming each that cannot be had; the new ones are closed.
    """
    problems: list[str] = []
    left = list(before)
    found: list[OpenPort] = []
    fresh: list[OpenPort] = []
    for want in wanted:
        here = next((each for each in left if each.text == want.text), None)
        if here is not None:
            left.remove(here)
        else:
            is_taken = inherited is None and want.text in taken
            given = taken.get(want.text) if inherited is None else inherited[want.option]
            here = _opened(want, given, problems, is_taken)
            if here is None:
                continue
            fresh.append(here)
        found.append(here)
    if problems:
        close_all(fresh)
        raise ConfigError(problems)
    return found


def _opened(
    want: Wanted, given: tuple[Inherited, ...] | None, problems: list[str], taken: bool
) -> OpenPort | None:
    door = Door()
    ports: list[Any] = []

    def failed(failure: Any) -> None:
        why = failure.getErrorMessage()
        if want.text.startswith("systemd:") and failure.check(LookupError):
            why = "systemd has opened no such socket for this process"
        problems.append(f"{want.option}.listen: {want.text}: {why}")

    if given is None:
        endpoint = maybeDeferred(serverFromString, want.reactor, want.text)
        endpoint.addCallback(lambda it: it.listen(door)).addCallbacks(ports.append, failed)
    for each in given or ():
        maybeDeferred(each.adopted, want.reactor, door).addCallbacks(ports.append, failed)
    if len(ports) < (1 if given is None else len(given)):
        for port in ports:
            port.stopListening()
        return None
    opened = OpenPort(want.text, tuple(ports), door, taken)
    opened.pause()
    return opened


def close_all(ports: Iterable[OpenPort]) -> Deferred[Any]:
    """@return: fires when none is open."""
    return DeferredList([each.close() for each in ports])
