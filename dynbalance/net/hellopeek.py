"""
Looks which server a TLS client asks for, and leaves every byte in the kernel.

Where only a part has come, the socket is told to wake us when there is more
than that (C{SO_RCVLOWAT}): what stays in the kernel would wake us for ever
otherwise.
"""

from __future__ import annotations

import socket
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from dynbalance.net.clienthello import MAX_HELLO, NotTls, read_hello

if TYPE_CHECKING:
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.hub import Hub

PATIENCE = 10.0
"""Seconds within which a client has to say what it wants."""

_PAUSE = 0.25


class Listening(Protocol):
    """Who wants to know."""

    def asked_for(self, server_name: str) -> None:
        """
        The client has said; empty if it asks for no server by name, does not
        speak TLS, or has ended.  The socket is the caller's again.
        """

    def said_nothing(self) -> None:
        """It did not say in time.  The socket is the caller's again."""


class HelloPeek:
    """
    One client until it is known what it asks for.

    Exactly one of the two methods of C{listening} is called, perhaps before
    L{start} returns; none after L{cancel}.

    @param skt: bare and not registered anywhere; nobody else may use it
        meanwhile.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = (
        "_deadlines",
        "_hub",
        "_listening",
        "_seen",
        "_skt",
        "_until",
        "deadline",
        "due",
    )

    def __init__(
        self, hub: Hub, deadlines: Deadlines, skt: socket.socket, listening: Listening
    ) -> None:
        self.deadline = inf
        self.due = inf
        self._hub = hub
        self._deadlines = deadlines
        self._skt = skt
        self._listening = listening
        self._seen = 0
        # When to give up, if it is looked at by the clock.
        self._until: float | None = None

    def __repr__(self) -> str:
        return f"<HelloPeek {self._seen} bytes>"

    def start(self, patience: float = PATIENCE) -> None:
        """@param patience: seconds within which it has to be known."""
        self._deadlines.set(self, patience)
        self._hub.addReader(self)
        self.doRead()

    def cancel(self) -> None:
        """Look no more; the socket is the caller's again."""
        self._leave()

    # What the hub sees.

    def fileno(self) -> int:
        return self._skt.fileno()

    def logPrefix(self) -> str:
        return "hello"

    def doRead(self) -> None:
        try:
            data = self._skt.recv(MAX_HELLO, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            # Whoever uses the socket next meets it again.
            self._tell("")
            return
        try:
            hello = read_hello(data)
        except NotTls:
            self._tell("")
            return
        if hello is not None:
            self._tell(hello.server_name)
        elif self._skt.family == socket.AF_UNIX:
            self._seen = len(data)
            self._look_later()
        elif len(data) > self._seen:
            self._seen = len(data)
            self._wake_after(self._seen + 1)
        else:
            # Awake without anything new: that was all.
            self._tell("")

    def _look_later(self) -> None:
        """A unix socket has no such mark, and is readable with what it has."""
        if self._until is None:
            self._until = self.deadline
            self._hub.hand_over(self._skt.fileno())
        left = max(0.0, self._until - self._deadlines.now())
        self._deadlines.set(self, min(_PAUSE, left))

    def connectionLost(self, reason: Any) -> None:
        self._leave()
        self._listening.said_nothing()

    def deadline_passed(self) -> None:
        if self._until is not None and self._deadlines.now() < self._until:
            self.doRead()
            return
        self._leave()
        self._listening.said_nothing()

    def _tell(self, server_name: str) -> None:
        self._leave()
        self._listening.asked_for(server_name)

    def _leave(self) -> None:
        self._deadlines.forget(self)
        if self._skt.fileno() >= 0:
            self._hub.hand_over(self._skt.fileno())
            if self._seen and self._skt.family != socket.AF_UNIX:
                self._wake_after(1)

    def _wake_after(self, size: int) -> None:
        self._skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
