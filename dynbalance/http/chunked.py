"""
The chunked transfer coding (RFC 9112 section 7.1), strictly.

What is passed on is always framed anew by L{chunk}: extensions and trailers
end here, and nobody behind us reads a chunk size that we did not write.
"""

from __future__ import annotations

import re

from dynbalance.http.fields import BadMessage

LAST = b"0\r\n\r\n"
"""The end of a chunked body."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_PLAIN = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\Z")
_MAX_LINE = 4096
_MAX_TRAILERS = 16384
_SIZE_LINE, _DATA, _DATA_END, _TRAILERS = range(4)


def chunk(data: bytes) -> bytes:
    """One chunk; C{data} must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """
    Takes a chunked body apart, however it is split into reads.

    @ivar done: the whole body was read, trailers included.
    """

    __slots__ = ("_left", "_line", "_overhead", "_state", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._state = _SIZE_LINE
        self._left = 0
        self._line = b""
        self._trailers = 0
        self._overhead = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """
        @return: the payload in C{data}, and how many of its bytes were taken;
            what is left belongs to the next message.
        @raise BadMessage: the framing is broken; nothing after it is sure.
        """
        payload = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == _SIZE_LINE and not self._line:
                # Nearly all chunks come whole and plain: four lines' worth of
                # looking at once.
                plain = _PLAIN.match(data, at)
                if plain is not None:
                    begin = plain.end()
                    size = int(plain[1], 16)
                    if data.startswith(b"\r\n", begin + size):
                        at = begin + size + 2
                        if size:
                            payload.append(data[begin : begin + size])
                            if self._overhead:
                                self._overhead = max(0, self._overhead - size)
                        else:
                            self.done = True
                        continue
            if self._state == _DATA:
                piece = data[at : at + self._left]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                at = len(data)
                self._check_partial()
            else:
                line = self._line + data[at : end + 1]
                self._line = b""
                at = end + 1
                if len(line) > _MAX_LINE or not line.endswith(b"\r\n"):
                    raise BadMessage("bad line in a chunked body")
                self._take_line(line[:-2])
        return payload[0] if len(payload) == 1 else b"".join(payload), at

    def _check_partial(self) -> None:
        if len(self._line) > _MAX_LINE or (self._state == _DATA_END and self._line != b"\r"):
            raise BadMessage("bad line in a chunked body")

    def _take_line(self, line: bytes) -> None:
        if self._state == _SIZE_LINE:
            size = _SIZE.match(line)
            if size is None:
                raise BadMessage("bad chunk size")
            self._left = int(size[1], 16)
            # Tiny chunks with long extensions cost much and say little.
            extension = len(line) - len(size[1])
            self._overhead = max(0, self._overhead + extension - self._left)
            if self._overhead > _MAX_TRAILERS:
                raise BadMessage("too many chunk extensions")
            self._state = _DATA if self._left else _TRAILERS
        elif self._state == _DATA_END:
            if line:
                raise BadMessage("a chunk is longer than its size")
            self._state = _SIZE_LINE
        elif not line:
            self.done = True
        else:
            self._trailers += len(line)
            if self._trailers > _MAX_TRAILERS or not _TRAILER.match(line):
                raise BadMessage("bad trailer")
