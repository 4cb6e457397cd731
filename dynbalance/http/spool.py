"""
A request's body, kept whole until the server has it: in memory while it is
small, in a file without a name once it is not.

Knows bytes and files; refuses to know who sends and who takes them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from io import FileIO

from dynbalance.http.requestbody import RequestBody

PIECE = 65536
"""Bytes that are read back at once."""


class Spool:
    """
    @ivar directory: where the files are; nobody else is let in.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self) -> None:
        """
        Make the directory.

        @raise OSError: it cannot be had.
        """
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)

    def open(self) -> FileIO:
        """
        A new file, which is gone with its last descriptor, whatever happens.

        @raise OSError: there is no more place, or no more descriptor.
        """
        return tempfile.TemporaryFile(dir=self.directory, buffering=0)

    def __repr__(self) -> str:
        return f"<Spool {self.directory}>"


class SpooledBody(RequestBody):
    """
    @param room: bytes that are kept in memory.
    @ivar size: bytes of it so far.
    """

    __slots__ = ("_at", "_file", "_memory", "_spool", "size")

    def __init__(self, spool: Spool, room: int) -> None:
        # It goes on with a length, however it came.
        super().__init__(False, room)
        self.size = 0
        self._spool = spool
        self._memory = bytearray()
        self._file: FileIO | None = None
        self._at = 0

    @property
    def is_replayable(self) -> bool:
        return True

    @property
    def is_long(self) -> bool:
        """Never too long to be taken from the client."""
        return False

    @property
    def left(self) -> int:
        """Bytes that L{read} has not given yet."""
        return self.size - self._at

    def _keep(self, data: bytes) -> bytes:
        """@raise OSError: it cannot be kept."""
        if self._file is None and self.size + len(data) > self._room:
            self._file = self._spool.open()
            self._write(bytes(self._memory))
            self._memory.clear()
        if self._file is None:
            self._memory += data
        else:
            self._write(data)
        self.size += len(data)
        return b""

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def so_far(self) -> bytes:
        """Its first piece, again."""
        self._at = 0
        return self.read()

    def read(self) -> bytes:
        """
        The next piece; empty at the end.

        @raise OSError: it cannot be read back.
        """
        if self._file is None:
            piece = bytes(self._memory[self._at : self._at + PIECE])
        else:
            piece = os.pread(self._file.fileno(), min(PIECE, self.left), self._at)
            if not piece and self.left:
                raise OSError(errno.EIO, "the spooled body is shorter than it was")
        self._at += len(piece)
        return piece

    def flows(self) -> None:
        """Nothing of it is let go before its end."""

    def replace(self, data: bytes) -> None:
        """
        Be another body, all of it.

        @raise OSError: it cannot be kept.
        """
        self.close()
        self._keep(data)

    def close(self) -> None:
        """Nobody wants it any more."""
        file, self._file = self._file, None
        self._memory = bytearray()
        self.size = self._at = 0
        if file is not None:
            file.close()
