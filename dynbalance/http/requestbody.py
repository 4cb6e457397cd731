"""
The body of a request on its way to a server, and what is kept of it so that it
can be sent again.
"""

from __future__ import annotations

from dynbalance.http.chunked import LAST, chunk


class RequestBody:
    """
    @param chunked: whether it is sent in chunks.
    @param room: bytes that are kept for another attempt.
    @ivar complete: all of it was read from the client.
    """

    __slots__ = ("_chunked", "_kept", "_room", "_size", "complete")

    def __init__(self, chunked: bool, room: int) -> None:
        self.complete = False
        self._chunked = chunked
        self._room = room
        self._kept: list[bytes] | None = []
        self._size = 0

    @property
    def is_replayable(self) -> bool:
        """Whether all that was read of it is still here."""
        return self._kept is not None

    @property
    def is_long(self) -> bool:
        """Whether it has outgrown what is kept once it flows."""
        return self._size > self._room

    def add(self, data: bytes) -> bytes:
        """@return: what is to be sent for C{data}."""
        return self._keep(chunk(data) if self._chunked else data)

    def end(self) -> bytes:
        """@return: what is to be sent after the last piece."""
        self.complete = True
        return self._keep(LAST) if self._chunked else b""

    def _keep(self, data: bytes) -> bytes:
        if self._kept is not None:
            self._kept.append(data)
            self._size += len(data)
        return data

    def so_far(self) -> bytes:
        """All that is to be sent of it at the beginning of an attempt."""
        return b"".join(self._kept or ())

    def flows(self) -> None:
        """A server takes it: what is too long to be kept is let go."""
        if self.is_long:
            self._kept = None
