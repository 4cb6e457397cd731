"""
Streams of HTTP/2 whose fields want to be something else in HTTP/1.1.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.http2 import Http2Clients
from tests.hostile.corpus import STREAMS, Asked, FieldsCase
from tests.hostile.memory import Line, MemoryWorld
from tests.hostile.recording import Recorder, answer

REFUSED = ("400", "405", "reset", "over")
"""What C{refused} may look like: nothing reaches a server in any case."""


def frames(case: FieldsCase, encoder: Encoder, continued: bool = False) -> bytes:
    """
    The case's stream, its number 1.

    @param continued: whether its head comes in frames of seven bytes.
    """
    block = encoder.encode(case.fields, huffman=False)
    size = 7 if continued else len(block)
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    sent: list[Frame] = [HeadersFrame(1, pieces[0])]
    sent += [ContinuationFrame(1, piece) for piece in pieces[1:]]
    sent[-1].flags.add("END_HEADERS")
    if case.body is not None:
        sent.append(DataFrame(1, case.body))
    if case.trailers:
        sent.append(HeadersFrame(1, encoder.encode(case.trailers), flags=["END_HEADERS"]))
    last = sent[0] if case.body is None else sent[-1]
    last.flags.add("END_STREAM")
    return b"".join(frame.serialize() for frame in sent)


class _Play:
    """One case in one world."""

    def __init__(self) -> None:
        self._world = MemoryWorld(Http2Clients)
        self._client = self._world.client()
        self._recorders: dict[Line, Recorder] = {}
        self.asked: list[Asked] = []
        # It reads what we are sent; what it would send is only used to begin.
        config = H2Configuration(header_encoding="latin-1", validate_inbound_headers=False)
        self._h2 = H2Connection(config)
        self._h2.initiate_connection()
        good = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
        self._h2.send_headers(1, good)

    def _serve(self, line: Line, heard: bytes) -> None:
        for asked in self._recorders.setdefault(line, Recorder()).feed(heard):
            self.asked.append(asked)
            line.send(answer(asked))

    def run(self, case: FieldsCase, continued: bool) -> str:
        """@return: the verdict."""
        preface = H2Connection(H2Configuration())
        preface.initiate_connection()
        client, verdict = self._client, ""
        client.send(preface.data_to_send() + frames(case, Encoder(), continued))
        self._world.settle(self._serve)
        for event in self._h2.receive_data(client.heard):
            if isinstance(event, ResponseReceived):
                verdict = verdict or str(dict(event.headers)[":status"])
            elif isinstance(event, StreamReset):
                verdict = verdict or "reset"
            elif isinstance(event, ConnectionTerminated):
                verdict = verdict or "over"
        self._world.close()
        return verdict

    @property
    def broken(self) -> list[str]:
        return [each for recorder in self._recorders.values() for each in recorder.broken]

    @property
    def raw(self) -> bytes:
        return b"".join(recorder.raw for recorder in self._recorders.values())


class StreamCorpusTests(SynchronousTestCase):
    """Whatever stands in a stream, the server gets one message that says it, or nothing."""

    def check(self, continued: bool) -> None:
        wrong: list[Any] = []
        for case in STREAMS:
            play = _Play()
            verdict = play.run(case, continued)
            seen = [] if case.seen is None else [case.seen]
            verdicts = REFUSED if case.verdict == "refused" else (case.verdict,)
            named = {name for asked in play.asked for name, _ in asked.fields}
            passed = [name for name in case.absent if name in named]
            if b"/smuggled" in play.raw or [*play.broken, *passed]:
                wrong.append((case.name, play.raw, play.broken))
            if verdict not in verdicts or play.asked != seen:
                wrong.append((case.name, verdict, play.asked))
        self.assertEqual([], wrong)

    def test_whole(self) -> None:
        """In one frame each."""
        self.check(False)

    def test_continued(self) -> None:
        """With their fields in many frames."""
        self.check(True)

    def test_names(self) -> None:
        """Each case has a name of its own, a source and a reason."""
        self.assertEqual(len(STREAMS), len({case.name for case in STREAMS}))
        for case in STREAMS:
            self.assertRegex(case.rfc, r"\A\d{4} [\d.]+\Z")
            self.assertTrue(case.why)
