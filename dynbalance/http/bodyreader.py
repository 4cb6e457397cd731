"""
The body of a request as it comes from a client.
"""

from __future__ import annotations

from dynbalance.http.chunked import ChunkedDecoder
from dynbalance.http.fields import BadMessage


class BodyReader:
    """
    @param length: of the body; -1 when it is chunked.
    @param limit: bytes that it may have; 0 for no limit.
    @ivar missing: what is still to come of it: bytes, or -1 while a chunked one
        goes on.
    @ivar size: bytes read so far.
    """

    __slots__ = ("_decoder", "_limit", "missing", "size")

    def __init__(self, length: int, limit: int) -> None:
        self.missing = length
        self.size = 0
        self._limit = limit
        self._decoder = ChunkedDecoder() if length < 0 else None

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """
        @return: the body's next piece, and what comes after the body.
        @raise BadMessage: its framing is broken, or it is too large (413).
        """
        rest = b""
        if self._decoder is not None:
            piece, used = self._decoder.feed(data)
            rest = data[used:]
            if self._decoder.done:
                self.missing = 0
        else:
            piece = data
            if len(data) > self.missing:
                piece, rest = data[: self.missing], data[self.missing :]
            self.missing -= len(piece)
        self.size += len(piece)
        if self.size > self._limit > 0:
            raise BadMessage("the request's body is too large", 413)
        return piece, rest

    def passed(self, size: int) -> None:
        """So many bytes of a body of known length were not shown to this."""
        self.missing -= size
        self.size += size
