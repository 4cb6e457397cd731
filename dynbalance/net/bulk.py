"""
A known number of bytes from one transport to another by C{splice}: they never
enter Python.

Stands in for the one's C{doRead} and the other's C{doWrite} until the last byte
is written; pauses the writer's producer as the transport would.  Knows sockets,
the pipe and the count; refuses to know whose bytes they are.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import main

from dynbalance.net.pipes import SPLICE as _SPLICE
from dynbalance.net.pipes import SPLICE_FLAGS as _FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IPushProducer

    from dynbalance.net.pipes import Pipes
    from dynbalance.net.transport import WriteThrough

_MOST = 1048576
_ROUNDS = 8


class Bulk:
    """
    Bytes on their way past the protocols.

    @ivar left: bytes that are still to be read.
    """

    __slots__ = ("_done", "_drain", "_moved", "_pipes", "_source", "_tap", "_target", "left")

    def __init__(
        self,
        source: WriteThrough,
        target: WriteThrough,
        size: int,
        pipe: tuple[int, int],
        pipes: Pipes,
        moved: Callable[[int], None],
        done: Callable[[bool], None],
    ) -> None:
        """
        @param target: with a streaming producer and nothing queued.
        @param size: bytes to move.
        @param pipe: an empty one; it goes back to C{pipes}.
        @param moved: called with each number of bytes that was read.
        @param done: called once, when all is written, with whether the source
            has said nothing more so far.
        """
        self.left = size
        self._source = source
        self._target = target
        self._tap, self._drain = pipe
        self._pipes = pipes
        self._moved = moved
        self._done: Callable[[bool], None] | None = done
        source.doRead = self._read  # type: ignore[method-assign]
        target.doWrite = self._write  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<Bulk {self.left} left of {self._source} to {self._target}>"

    def _read(self) -> Any:
        """What the hub calls when the source has something."""
        source, target = self._source, self._target
        for _ in range(_ROUNDS):
            try:
                size = _SPLICE(source.fileno(), self._drain, min(self.left, _MOST), flags=_FLAGS)
            except BlockingIOError:
                return None
            except OSError as failed:
                if failed.errno != errno.EINVAL:
                    return main.CONNECTION_LOST
                # No splice for this kind of socket.
                self.drop()
                return source.doRead()
            if not size:
                return main.CONNECTION_DONE
            self.left -= size
            target.beside = size
            self._moved(size)
            self._pour()
            if target.beside:
                # An error is met again there, and told as the target's.
                target.startWriting()
                self._producer.pauseProducing()
                return None
            if not self.left:
                self._finish()
            if self._done is None:
                return None
        return None

    def _write(self) -> Any:
        """What the hub calls when the target takes something again."""
        target = self._target
        if not self._pour():
            return main.CONNECTION_LOST
        if not target.beside:
            target.stopWriting()
            # Whoever is told may end all this.
            self._producer.resumeProducing()
            if not self.left and self._done is not None:
                self._finish()
        return None

    @property
    def _producer(self) -> IPushProducer:
        return cast("IPushProducer", self._target.producer)

    def _pour(self) -> bool:
        """
        Empty the pipe as far as the target takes it.

        @return: whether the target can be written at all.
        """
        target = self._target
        try:
            target.beside -= _SPLICE(self._tap, target.fileno(), target.beside, flags=_FLAGS)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _finish(self) -> None:
        done = self._done
        assert done is not None
        self.drop()
        done(_is_silent(self._source.socket))

    def drop(self) -> None:
        """Stop here: what is in the pipe is lost, and the transports are as before."""
        if self._done is None:
            return
        self._done = None
        target = self._target
        del self._source.doRead
        del target.doWrite
        if target.beside:
            target.beside = 0
            target.stopWriting()
            self._pipes.destroy((self._tap, self._drain))
        else:
            self._pipes.give_back((self._tap, self._drain))


def _is_silent(skt: socket.socket) -> bool:
    try:
        skt.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
