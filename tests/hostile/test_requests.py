"""
Requests that want to be read in two ways, in memory and in any pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h11
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.corpus import OPEN, REQUESTS, WAITS, Asked, RequestCase
from tests.hostile.memory import Line, MemoryWorld
from tests.hostile.recording import Recorder, answer

NEXT = b"GET /end HTTP/1.1\r\nHost: end\r\n\r\n"
"""Sent behind each case: read where the case has ended, or not at all."""

_MOST_SPLITS = 150
_LONG = 10_000


@frozen
class Outcome:
    """
    What a case comes to.

    @ivar answers: statuses.
    @ivar rest: bytes that are no whole answer.
    @ivar closed: whether the client hears no more.
    """

    answers: tuple[int, ...]
    seen: tuple[Asked, ...]
    rest: bytes
    closed: bool


def expected(case: RequestCase) -> Outcome:
    """What is said in the corpus, with L{NEXT} behind it."""
    if case.end != OPEN:
        return Outcome(case.answers, case.seen, b"", case.end != WAITS)
    end = Asked(b"GET", b"/end", b"")
    return Outcome((*case.answers, 200), (*case.seen, end), b"", False)


def whole(case: RequestCase) -> bytes:
    """All that the client sends."""
    return case.sent if case.end == WAITS else case.sent + NEXT


def statuses(data: bytes, methods: tuple[str, ...]) -> tuple[tuple[int, ...], bytes]:
    """
    The answers in what a client got, read strictly.

    @param methods: of the requests.
    @return: their statuses, and what is no answer.
    """
    found: list[int] = []
    number = 0
    while data:
        connection = h11.Connection(h11.CLIENT)
        method = methods[min(number, len(methods) - 1)]
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        heads: list[int] = []
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return tuple(found), data
                if isinstance(event, (h11.Response, h11.InformationalResponse)):
                    heads.append(event.status_code)
        except h11.RemoteProtocolError:
            return tuple(found), data
        found += heads
        number += 1
        data = connection.trailing_data[0]
    return tuple(found), b""


def wrong_fields(case: RequestCase, client: str, recorders: list[Recorder]) -> list[str]:
    """What servers saw that they must not see, and the reverse."""
    raw = b"".join(recorder.raw for recorder in recorders)
    lines = raw.split(b"\r\n")
    named = {name for recorder in recorders for asked in recorder.asked for name, _ in asked.fields}
    wrong = [f"{name!r} was passed on" for name in case.absent if name in named]
    wanted = [line.replace(b"CLIENT", client.encode()) for line in case.present]
    wrong += [f"{line!r} is not in {raw!r}" for line in wanted if line not in lines]
    return wrong


class _Play:
    """One case in one world, with the strict server behind it."""

    def __init__(self, case: RequestCase) -> None:
        self._case = case
        self._world = MemoryWorld(**case.http)
        self._recorders: dict[Line, Recorder] = {}
        self._asked: list[Asked] = []

    def _serve(self, line: Line, heard: bytes) -> None:
        recorder = self._recorders.setdefault(line, Recorder())
        for asked in recorder.feed(heard):
            self._asked.append(asked)
            line.send(answer(asked))

    def run(self, pieces: list[bytes]) -> Outcome:
        """
        @raise AssertionError: the server got something that is no message, or
            that it must not get.
        """
        client = self._world.client()
        for piece in pieces:
            client.send(piece)
            self._world.settle(self._serve)
        answers, rest = statuses(client.heard, self._case.methods)
        # Which of them were asked to wait for depends on what came with the head.
        answers = tuple(status for status in answers if status != 100)
        outcome = Outcome(answers, tuple(self._asked), rest, client.ended)
        self._world.close()
        recorders = list(self._recorders.values())
        wrong = [each for recorder in recorders for each in recorder.broken]
        wrong += wrong_fields(self._case, "192.0.2.9", recorders)
        assert not wrong, wrong
        return outcome


def splits(data: bytes) -> Iterator[list[bytes]]:
    """C{data} in two pieces everywhere (nearly so, where it is long), and in bytes."""
    step = max(1, len(data) // (_MOST_SPLITS if len(data) < _LONG else 20))
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]
    if step == 1:
        yield [data[at : at + 1] for at in range(len(data))]


class RequestCorpusTests(SynchronousTestCase):
    """The server gets well-formed messages that say what the client said, or nothing."""

    def check(self, pieces: Any) -> None:
        """@param pieces: of what a case sends -> ways to send it."""
        wrong = []
        for case in REQUESTS:
            for way in pieces(whole(case)):
                try:
                    outcome = _Play(case).run(way)
                    self.assertEqual(outcome, expected(case))
                except AssertionError as error:
                    wrong.append(f"{case.name}, as {way}: {error}")
                    break
        self.assertEqual([], wrong, "\n".join(wrong))

    def test_names(self) -> None:
        """Each case has a name of its own, a source and a reason."""
        self.assertEqual(len(REQUESTS), len({case.name for case in REQUESTS}))
        for case in REQUESTS:
            self.assertRegex(case.rfc, r"\A(-|\d{4} [\d.]+)\Z")
            self.assertTrue(case.why)

    def test_whole(self) -> None:
        """All at once."""
        self.check(lambda data: [[data]])

    def test_split(self) -> None:
        """In two pieces anywhere, and byte by byte: nothing depends on it."""
        self.check(splits)
