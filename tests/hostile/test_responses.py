"""
Responses that want to be read in two ways, in memory and in any pieces: each
client gets one well-formed answer, or sees that it is none, and the next
request gets its own.
"""

from __future__ import annotations

from typing import Any

import h11
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.corpus import RESPONSES, ResponseCase
from tests.hostile.memory import Line, MemoryWorld
from tests.hostile.recording import Recorder
from tests.hostile.test_requests import splits

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
FRESH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh"


@frozen
class Got:
    """
    An answer as a client got it.

    @ivar whole: it has an end.
    @ivar rest: bytes behind it.
    """

    status: int
    body: bytes
    whole: bool
    informed: tuple[int, ...]
    names: frozenset[bytes]
    rest: bytes = b""


def read_answer(data: bytes, request: bytes, ended: bool) -> Got:
    """
    @param ended: whether nothing more comes.
    @raise h11.RemoteProtocolError: it is no answer.
    """
    connection = h11.Connection(h11.CLIENT)
    method = request.split(b" ")[0]
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    if data:
        # Nothing at all would be the end.
        connection.receive_data(data)
    status, body, informed, names = 0, b"", [], frozenset[bytes]()
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.InformationalResponse):
            informed.append(event.status_code)
        elif isinstance(event, h11.Response):
            status = event.status_code
            names = frozenset(bytes(name) for name, _ in event.headers)
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            unframed = not names & {b"content-length", b"transfer-encoding"}
            return Got(status, body, bool(status) and ended and unframed, tuple(informed), names)
    rest = connection.trailing_data[0]
    return Got(status, body, True, tuple(informed), names, rest)


class _Play:
    """One case in one world, with a server that says what the case says first."""

    def __init__(self, case: ResponseCase) -> None:
        self._case = case
        self._world = MemoryWorld()
        self._recorders: dict[Line, Recorder] = {}
        self._first: Line | None = None
        self._next: Line | None = None

    def _serve(self, line: Line, heard: bytes) -> None:
        for asked in self._recorders.setdefault(line, Recorder()).feed(heard):
            if asked.target != b"/next":
                self._first = line
            else:
                self._next = line
                line.send(FRESH)

    def run(self, pieces: list[bytes]) -> tuple[Got, bool]:
        """
        @return: what the client got, and whether the next request came over
            the same connection to the server.
        @raise AssertionError: the next request did not get its own answer.
        """
        case, world = self._case, self._world
        client = world.client()
        client.send(case.request)
        world.settle(self._serve)
        assert self._first is not None, "the server was not asked"
        for piece in pieces:
            self._first.send(piece)
            world.settle(self._serve)
        if case.then == "close":
            self._first.close()
            world.settle(self._serve)
        got = read_answer(client.heard, case.request, client.ended)
        if client.ended:
            client = world.client()
        client.heard = b""
        client.send(NEXT)
        world.settle(self._serve)
        fresh = read_answer(client.heard, NEXT, client.ended)
        assert (fresh.status, fresh.body, fresh.rest) == (200, b"fresh", b""), client.heard
        world.close()
        broken = [each for recorder in self._recorders.values() for each in recorder.broken]
        assert not broken, broken
        return got, self._next is self._first


class ResponseJudge(SynchronousTestCase):
    """Compares what a client got with what the corpus says."""

    def judge(self, case: ResponseCase, got: Got, reused: bool) -> None:
        """@param reused: whether the connection to the server was."""
        self.assertFalse(got.names & set(case.absent))
        came = (got.status, got.body, got.whole, got.informed, got.rest, reused)
        body = case.body
        if not case.whole:
            # What comes with a mistake behind it may be passed on before, or not.
            if got.status == 502:
                self.assertEqual(came, (502, b"502 Bad Gateway\n", True, (), b"", False))
                return
            self.assertTrue(case.body.startswith(got.body), got)
            body = got.body
        self.assertEqual(came, (case.status, body, case.whole, case.informed, b"", case.reused))


class ResponseCorpusTests(ResponseJudge):
    """What a server says is one answer to one request, or none."""

    def check(self, pieces: Any) -> None:
        """@param pieces: of what a case sends -> ways to send it."""
        wrong = []
        for case in RESPONSES:
            for way in pieces(case.sent):
                try:
                    self.judge(case, *_Play(case).run(way))
                except (AssertionError, h11.RemoteProtocolError) as error:
                    wrong.append(f"{case.name}, as {way}: {error!r}")
                    break
        self.assertEqual([], wrong, "\n".join(wrong))

    def test_names(self) -> None:
        """Each case has a name of its own, a source and a reason."""
        self.assertEqual(len(RESPONSES), len({case.name for case in RESPONSES}))
        for case in RESPONSES:
            self.assertRegex(case.rfc, r"\A\d{4} [\d.]+\Z")
            self.assertTrue(case.why)

    def test_whole(self) -> None:
        """All at once."""
        self.check(lambda data: [[data]])

    def test_split(self) -> None:
        """In two pieces anywhere, and byte by byte: nothing depends on it."""
        self.check(splits)
