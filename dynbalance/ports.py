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
    @ivar port: of Twisted.
    @ivar door: what it leads to.
    """

    text: str
    port: IListeningPort
    door: Door

    def pause(self) -> None:
        """Leave who comes in the kernel."""
        self.port.stopReading()  # type: ignore[attr-defined]

    def accept(self) -> None:
        """Let in who comes, and who has come meanwhile."""
        self.port.startReading()  # type: ignore[attr-defined]

    def close(self) -> Deferred[Any]:
        return maybeDeferred(self.port.stopListening)

    def leave(self) -> Deferred[Any]:
        """Close our copy only: another process goes on with the socket."""
        port: Any = self.port
        port._shouldShutdown = False
        if port.socket.family == socket.AF_UNIX:
            # Nor is its path ours any more.
            port._bindPath, port.lockFile = "\0left", None
        return self.close()

    @property
    def socket(self) -> socket.socket:
        """That it listens on."""
        listening: socket.socket = self.port.socket  # type: ignore[attr-defined]
        return listening

    @property
    def is_lent(self) -> bool:
        """Whether somebody else opened it, and nobody can open it again."""
        return self.text.startswith("systemd:")


def open_ports(
    wanted: Iterable[Wanted],
    before: Iterable[OpenPort],
    inherited: Mapping[str, Inherited] | None = None,
    taken: Mapping[str, Inherited] = MappingProxyType({}),
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
            given = taken.get(want.text) if inherited is None else inherited[want.option]
            here = _opened(want, given, problems)
            if here is None:
                continue
            fresh.append(here)
        found.append(here)
    if problems:
        close_all(fresh)
        raise ConfigError(problems)
    return found


def _opened(want: Wanted, given: Inherited | None, problems: list[str]) -> OpenPort | None:
    door = Door()
    ports: list[IListeningPort] = []

    def listen() -> Any:
        if given is not None:
            return given.adopted(want.reactor, door)
        return serverFromString(want.reactor, want.text).listen(door)

    def failed(failure: Any) -> None:
        why = failure.getErrorMessage()
        if want.text.startswith("systemd:") and failure.check(LookupError):
            why = "systemd has opened no such socket for this process"
        problems.append(f"{want.option}.listen: {want.text}: {why}")

    maybeDeferred(listen).addCallbacks(ports.append, failed)
    if not ports:
        return None
    opened = OpenPort(want.text, ports[0], door)
    opened.pause()
    return opened


def close_all(ports: Iterable[OpenPort]) -> Deferred[Any]:
    """@return: fires when none is open."""
    return DeferredList([each.close() for each in ports])
