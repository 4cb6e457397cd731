"""
The frames of an HTTP/2 client before anybody acts on them: where each ends,
whether it may be so long, and how many of them say nothing.

Knows the first nine bytes of a frame (RFC 9113 section 4.1) and the time;
refuses to know what a frame does to its stream, which is hyper-h2's part.

hyper-h2 answers each C{PING}, takes each C{RST_STREAM}, and waits for the end
of a frame however long it claims to be.  What a client may make us do without
asking for anything is therefore counted here: each such frame takes something
from an allowance that fills up with time, and with what the client is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from h2.errors import ErrorCodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (RFC 9113 section 3.4)."""

MAX_FRAME = 16384
"""Bytes of a frame's content; we never let anybody send more."""

ALLOWANCE = 1000
"""Frames that say nothing, at once; as many as nghttp2 lets streams be reset."""

PER_SECOND = 33.0
"""How fast the allowance fills up again, as in nghttp2."""

CUT = 256
"""Bytes from which on a frame of a response is worth what the client did to get it."""

_TINY = 16
"""Bytes of a body below which a frame brings less for its cost than a request of HTTP/1.1."""

_OF_TINY = 0.02
"""Nobody types, or tells of what is typed, 1,650 times a second."""

_HEAD = 9
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8
_DATA, _HEADERS, _SETTINGS, _CONTINUATION, GOAWAY = 0, 1, 4, 9, 7
_TEN_SETTINGS = 60


class BadFrames(Exception):
    """
    The connection is not to be gone on with.

    @ivar code: why, as the client is told.
    """

    def __init__(self, code: ErrorCodes, why: str) -> None:
        super().__init__(why)
        self.code = code


@frozen(slots=True)
class Frame:
    """
    @ivar kind: its type.
    @ivar whole: with its first nine bytes.
    """

    kind: int
    whole: bytes


class FrameReader:
    """
    @param max_block: bytes of the fields of a request, as they are sent.
    @param now: seconds.
    """

    __slots__ = ("_block", "_buffer", "_left", "_max_block", "_now", "_preface", "_since")

    def __init__(self, max_block: int, now: Callable[[], float]) -> None:
        self._preface = PREFACE
        self._buffer = b""
        self._max_block = max_block
        # What there is so far of a block of fields.
        self._block = 0
        self._left = float(ALLOWANCE)
        self._now = now
        self._since = now()

    def __repr__(self) -> str:
        return f"<FrameReader {len(self._buffer)} bytes wait, {self._left:.0f} left>"

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        @return: the frames that are whole.  To be taken to the end.
        @raise BadFrames: from the iterator, before the frame at fault.
        """
        data = self._buffer + data if self._buffer else data
        if self._preface:
            size = min(len(self._preface), len(data))
            if data[:size] != self._preface[:size]:
                raise BadFrames(ErrorCodes.PROTOCOL_ERROR, "that is not HTTP/2")
            self._preface, data = self._preface[size:], data[size:]
        at = 0
        while len(data) - at >= _HEAD:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > MAX_FRAME:
                raise BadFrames(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            end = at + _HEAD + size
            if len(data) < end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA and flags & _PADDED and size:
                # Padding is no body.
                size = max(0, size - 1 - data[at + _HEAD])
            self._judge(kind, flags, size)
            yield Frame(kind, data[at:end])
            at = end
        self._buffer = data[at:]

    def _judge(self, kind: int, flags: int, size: int) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self._block += size
            if self._block > self._max_block:
                raise BadFrames(ErrorCodes.ENHANCE_YOUR_CALM, "fields without end")
            if flags & _END_HEADERS:
                self._block = 0
            if kind == _HEADERS or size:
                return
        elif kind == _DATA and (size or flags & _END_STREAM):
            if size < _TINY and not flags & _END_STREAM:
                self.spend(_OF_TINY)
            return
        self.spend(1.0 + size // _TEN_SETTINGS if kind == _SETTINGS else 1.0)

    def spend(self, frames: float = 1.0) -> None:
        """
        The client did something that leads to nothing, or to next to nothing.

        @param frames: how many frames that is worth.
        @raise BadFrames: that was once too often.
        """
        self._left -= frames
        if self._left < 0.0:
            now = self._now()
            self._left += min(float(ALLOWANCE), (now - self._since) * PER_SECOND)
            self._since = now
            if self._left < 0.0:
                raise BadFrames(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that say nothing")

    def earn(self, frames: float) -> None:
        """The client was sent something, and may answer with as many frames."""
        self._left = min(float(ALLOWANCE), self._left + frames)
