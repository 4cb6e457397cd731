"""
A server that reads its requests strictly, and remembers what they were.

Each is read twice: by h11, and by rules of our own on the bytes as they came,
which leave nothing that anybody else could read in another way.
"""

from __future__ import annotations

import re
from typing import Any

import h11

from tests.hostile.corpus import Asked

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e\x80-\xff]+ HTTP/1\.1\Z")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\Z")
_CHUNKS = re.compile(rb"(?:[1-9a-f][0-9a-f]*\r\n.*\r\n)*0\r\n\r\n\Z", re.DOTALL)
_LONGEST = 2**20
_ASCII = bytes(range(128)) + b"x" * 128


class Recorder:
    """
    What came over one connection.

    @ivar raw: all of it.
    @ivar asked: the messages that are whole.
    @ivar broken: why something of it is no message.
    """

    def __init__(self) -> None:
        self.raw = b""
        self.asked: list[Asked] = []
        self.broken: list[str] = []
        # Of the message that comes.
        self._begin()

    def _begin(self) -> None:
        self._bytes = b""
        self._body = b""
        self._request: Any = None
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST)

    def feed(self, data: bytes) -> list[Asked]:
        """@return: the messages that end in C{data}."""
        self.raw += data
        complete: list[Asked] = []
        while data and not self.broken:
            if not self._bytes:
                # h11 takes no other bytes in a target; servers do, and we pass them on.
                line, end, rest = data.partition(b"\r\n")
                self._h11.receive_data(line.translate(_ASCII) + end + rest)
            else:
                self._h11.receive_data(data)
            self._bytes += data
            data = b""
            try:
                while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                    if isinstance(event, h11.Request):
                        self._request = event
                    elif isinstance(event, h11.Data):
                        self._body += event.data
                    elif isinstance(event, h11.EndOfMessage):
                        data = self._h11.trailing_data[0]
                        complete.append(self._end(self._bytes[: len(self._bytes) - len(data)]))
                        self._begin()
                        break
            except h11.RemoteProtocolError as error:
                self.broken.append(f"h11: {error} in {self._bytes!r}")
        self.asked += complete
        return complete

    def _end(self, message: bytes) -> Asked:
        head, _, body = message.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        names = [line.partition(b":")[0].lower() for line in lines[1:]]
        if not _START.match(lines[0]):
            self.broken.append(f"the request line {lines[0]!r}")
            lines[0] = b"- - -"
        self.broken += [f"the line {line!r}" for line in lines[1:] if not _FIELD.match(line)]
        if names.count(b"host") != 1:
            self.broken.append(f"{names.count(b'host')} times Host")
        framing = [name for name in names if name in (b"content-length", b"transfer-encoding")]
        if len(framing) > 1:
            self.broken.append(f"framed by {framing}")
        if framing == [b"transfer-encoding"]:
            if b"Transfer-Encoding: chunked" not in lines or not _CHUNKS.match(body):
                self.broken.append(f"chunked as {body!r}")
        elif framing and b"Content-Length: %d" % len(self._body) not in lines:
            self.broken.append(f"the length in {lines}")
        elif body != self._body:
            self.broken.append(f"the body {body!r}")
        return Asked(
            self._request.method,
            lines[0].split(b" ")[1],
            self._body,
            tuple((bytes(name), bytes(value)) for name, value in self._request.headers),
        )


def answer(asked: Asked) -> bytes:
    """What the server says to a request that it has read."""
    return OK[:-2] if asked.method == b"HEAD" else OK
