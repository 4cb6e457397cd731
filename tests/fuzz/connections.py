"""
What holds for whole connections, whatever is sent over them: the same in any
pieces, to a server whose requests are always messages, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h11

from dynbalance.http.http2 import Http2Clients
from dynbalance.http.http2frames import PREFACE
from tests.hostile.memory import Line, MemoryWorld
from tests.hostile.recording import Recorder, answer
from tests.hostile.test_responses import FRESH, NEXT, read_answer

_GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class _Servers:
    """Strict servers; each says to its requests what C{says} says."""

    def __init__(self, says: Callable[[Line, bytes], bytes] | None = None) -> None:
        self._says = says
        self._recorders: dict[Line, Recorder] = {}
        self.seen: list[tuple[bytes, bytes, bytes]] = []

    def serve(self, line: Line, heard: bytes) -> None:
        recorder = self._recorders.setdefault(line, Recorder())
        for asked in recorder.feed(heard):
            self.seen.append((asked.method, asked.target, asked.body))
            line.send(answer(asked) if self._says is None else self._says(line, asked.target))
        assert not recorder.broken, recorder.broken


def http1_client(whole: bytes, pieces: Iterable[bytes]) -> None:
    """A client of HTTP/1.1."""

    def outcome(parts: Iterable[bytes]) -> object:
        world, servers = MemoryWorld(), _Servers()
        client = world.client()
        for part in parts:
            client.send(part)
            world.settle(servers.serve)
        world.close()
        return servers.seen, client.ended

    assert outcome([whole]) == outcome(pieces)


def http2_client(whole: bytes, pieces: Iterable[bytes]) -> None:
    """A client of HTTP/2, from behind its preface."""

    def outcome(parts: Iterable[bytes]) -> object:
        world, servers = MemoryWorld(Http2Clients), _Servers()
        client = world.client()
        client.send(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        for part in parts:
            client.send(part)
            world.settle(servers.serve)
        world.close()
        return client.ended

    assert outcome([whole]) == outcome(pieces)


def server(whole: bytes, pieces: Iterable[bytes]) -> None:
    """A server: its client gets an answer or sees that it is none; the next one gets its own."""
    first: list[Line] = []

    def says(line: Line, target: bytes) -> bytes:
        if target == b"/next":
            return FRESH
        first.append(line)
        return b""

    world, servers = MemoryWorld(), _Servers(says)
    client = world.client()
    client.send(_GET)
    world.settle(servers.serve)
    for piece in pieces:
        first[0].send(piece)
        world.settle(servers.serve)
    first[0].close()
    world.settle(servers.serve)
    try:
        got = read_answer(client.heard, _GET, client.ended)
        assert got.whole or client.ended
        assert not got.rest, got
    except h11.RemoteProtocolError:
        # It knows no statuses from 600 on, and no bytes in a reason that we pass on.
        assert client.heard.startswith(b"HTTP/1.1 "), client.heard
    if client.ended:
        client = world.client()
    client.heard = b""
    client.send(NEXT)
    world.settle(servers.serve)
    assert read_answer(client.heard, NEXT, client.ended).body == b"fresh", client.heard
    world.close()
