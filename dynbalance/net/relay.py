"""
Moves bytes between two connected sockets, both ways.

Knows bytes, back-pressure and the end of each direction; refuses to know who
talks and for how long they may be silent.

A message goes by one C{recv} and one C{send}.  When a read comes full there is
more where it came from, and that direction goes on by C{splice} through a
pipe: the bytes never enter Python, and what is under way is bounded by the
pipe.  A side that cannot be written stops the reading of the other.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import TYPE_CHECKING, Any

from dynbalance.net.pipes import SPLICE as _SPLICE
from dynbalance.net.pipes import SPLICE_FLAGS as _FLAGS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from dynbalance.net.hub import Hub
    from dynbalance.net.pipes import Pipes

_CHUNK = 16384
_BULK = 1048576
_ROUNDS = 8
_WRITE = 1


class Ending(Enum):
    """Why a relay is done."""

    FINISHED = "finished"
    """Both directions ended, or one did and half-close is off."""

    CLIENT_LOST = "client lost"
    SERVER_LOST = "server lost"

    IDLE = "idle"
    """Nobody said anything for too long."""

    ABORTED = "aborted"


class _Side:
    """
    One of the two sockets, and the direction that is read from it.

    @ivar moved: bytes read from it.
    @ivar ended: it will say no more.
    @ivar lost: nor will it hear.
    @ivar blocked: the other side takes no more now, so this one is not read.
    """

    __slots__ = (
        "_bulk",
        "_hub",
        "_pipe",
        "_piped",
        "_recv",
        "_relay",
        "_send",
        "_unsent",
        "blocked",
        "ended",
        "fileno",
        "lost",
        "moved",
        "other",
        "socket",
    )

    other: _Side

    def __init__(self, relay: Relay, skt: socket.socket, send: Callable[[bytes], int]) -> None:
        self._relay = relay
        self._hub = relay.hub
        self.socket = skt
        self.fileno = skt.fileno
        self._recv = skt.recv
        self._send = send
        self._unsent = b""
        self._bulk = False
        self._pipe: tuple[int, int] | None = None
        self._piped = 0
        self.moved = 0
        self.ended = self.lost = self.blocked = False

    # What the hub sees.

    def logPrefix(self) -> str:
        return "relay"

    def doRead(self) -> None:
        if self._bulk:
            self._pump()
            return
        try:
            data = self._recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        if not data:
            self._end()
            return
        relay = self._relay
        relay.last = self._hub.now
        size = len(data)
        self.moved += size
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._refused()
            return
        if sent < size:
            self._unsent = data[sent:]
            self._block()
        elif size == _CHUNK and relay.splices:
            self._bulk = True

    def doWrite(self) -> None:
        self.other._flush()

    def connectionLost(self, reason: Any) -> None:
        """The hub closes, or a mistake of ours was caught there."""
        self._relay.finish(Ending.ABORTED)

    # The direction that begins here.

    def _flush(self) -> None:
        """The other side can be written again."""
        if self._unsent:
            try:
                sent = self._send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self._refused()
                return
            self._relay.last = self._hub.now
            self._unsent = self._unsent[sent:]
            if self._unsent:
                return
        if self._pipe is not None:
            # Reading on at once leaves the epoll as it is while the other
            # side stays the slower one.
            self._pump()
        elif self.ended:
            self._pass_end_on()
        else:
            self._unblock()

    def _pump(self) -> None:
        """Splice on, as long as there is something and it is taken."""
        if self._pipe is None:
            self._pipe = self._relay.pipes.take()
            if self._pipe is None:
                self._bulk = False
                return
        source, drain = self._pipe
        for _ in range(_ROUNDS):
            size = _CHUNK
            if not self._piped:
                try:
                    size = 0 if self.ended else _SPLICE(self.fileno(), drain, _BULK, flags=_FLAGS)
                except BlockingIOError:
                    self._dry()
                    return
                except OSError as failed:
                    self._dry()
                    if failed.errno == errno.EINVAL:
                        # No splice for this kind of socket.
                        self._relay.splices = self._bulk = False
                    else:
                        self._break()
                    return
                if not size:
                    self._dry()
                    self._end()
                    return
                self._piped = size
                self.moved += size
            try:
                self._piped -= _SPLICE(source, self.other.fileno(), self._piped, flags=_FLAGS)
            except BlockingIOError:
                self._block()
                return
            except OSError:
                self._refused()
                return
            self._relay.last = self._hub.now
            if self._piped:
                self._block()
                return
            if size < _CHUNK:
                self._bulk = False
                self._dry()
                return

    def _dry(self) -> None:
        """There is nothing to move now: neither the pipe nor the wait to write is needed."""
        if self._pipe is not None:
            self._relay.pipes.give_back(self._pipe)
            self._pipe = None
        self._unblock()

    def _block(self) -> None:
        if not self.blocked:
            self.blocked = True
            if not self.ended:
                self._hub.removeReader(self)
            self._hub.addWriter(self.other)

    def _unblock(self) -> None:
        if self.blocked:
            self.blocked = False
            self._hub.removeWriter(self.other)
            if not self.ended:
                self._hub.addReader(self)

    def _break(self) -> None:
        """Reading failed: what came before is still passed on, as nginx does."""
        self.lost = True
        self._end()

    def _refused(self) -> None:
        """
        Writing failed: the other side hears nothing any more, but what it
        said before that is still passed on.
        """
        self._unsent = b""
        self._drop_pipe()
        if self.blocked:
            self.blocked = False
            self._hub.removeWriter(self.other)
        if not self.ended:
            self.ended = True
            self._hub.removeReader(self)
        self.other.lost = True
        if self.other.ended:
            self._relay.lose(self.other)

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._hub.removeReader(self)
        if not self.blocked:
            self._pass_end_on()

    def _pass_end_on(self) -> None:
        self._unblock()
        relay = self._relay
        if self.lost:
            relay.lose(self)
        elif not relay.half_close or (self.other.ended and not self.other.blocked):
            relay.finish(Ending.FINISHED)
        else:
            try:
                self.other.socket.shutdown(_WRITE)
            except OSError:
                relay.lose(self.other)

    def close(self) -> None:
        self._hub.forget(self.fileno())
        self._drop_pipe()
        self.socket.close()

    def _drop_pipe(self) -> None:
        if self._pipe is not None:
            if self._piped:
                self._relay.pipes.destroy(self._pipe)
            else:
                self._relay.pipes.give_back(self._pipe)
            self._pipe = None
            self._piped = 0

    def __repr__(self) -> str:
        which = "client" if self is self._relay.client else "server"
        return f"<{which} of {self._relay}>"


class Relay:
    """
    Two sockets whose bytes go to each other, from L{start} to C{done}.

    @ivar client: its C{moved} counts the bytes from the client.
    @ivar server: likewise from the server.
    @ivar last: when bytes were moved last, in seconds of the hub's clock.
    @ivar half_close: whether the end of one direction is passed on alone.
    @ivar splices: whether bulk goes by C{splice}.
    """

    __slots__ = ("_done", "client", "half_close", "hub", "last", "pipes", "server", "splices")

    def __init__(
        self,
        hub: Hub,
        pipes: Pipes,
        client: socket.socket,
        server: socket.socket,
        done: Callable[[Ending], None],
        half_close: bool = True,
    ) -> None:
        """
        @param client: connected and non-blocking; the relay's from now on.
        @param server: likewise.
        @param done: called once, when both are closed.
        """
        self.hub = hub
        self.pipes = pipes
        self.half_close = half_close
        self.splices = _SPLICE is not None
        self.last = hub.seconds()
        self._done: Callable[[Ending], None] | None = done
        self.client = _Side(self, client, server.send)
        self.server = _Side(self, server, client.send)
        self.client.other = self.server
        self.server.other = self.client

    def start(self) -> None:
        self.hub.addReader(self.client)
        self.hub.addReader(self.server)

    def lose(self, side: _Side) -> None:
        """C{side} cannot be used any more."""
        self.finish(Ending.CLIENT_LOST if side is self.client else Ending.SERVER_LOST)

    def finish(self, ending: Ending) -> None:
        """Close both sides; what is still under way is dropped."""
        done, self._done = self._done, None
        if done is not None:
            self.client.close()
            self.server.close()
            done(ending)

    def __repr__(self) -> str:
        return f"<Relay {self.client.moved} bytes up, {self.server.moved} down>"
