"""
Clients of HTTP/2 that keep us busy for nothing: each is let go of, with a word,
after a bounded number of frames.
"""

from __future__ import annotations

from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.http2 import Http2Clients
from dynbalance.http.http2frames import ALLOWANCE, PREFACE, BadFrames, FrameReader
from tests.hostile.memory import Line, MemoryWorld

HEAD = [(":method", "POST"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
FAR_TOO_MANY = 20 * ALLOWANCE


class FloodTests(SynchronousTestCase):
    """What is bounded: frames taken, requests begun, and bytes that we say."""

    def setUp(self) -> None:
        self.world = MemoryWorld(Http2Clients)
        self.client = self.world.client()
        self.begun = 0
        self.client.send(PREFACE + SettingsFrame(0).serialize())
        self.world.settle(self.serve)

    def serve(self, line: Line, heard: bytes) -> None:
        """A server that takes everything and never answers."""
        self.begun += heard.count(b"POST / HTTP/1.1\r\n")

    def head(self, stream: int, end: bool = True) -> Frame:
        # Nothing is put into a table: any stream may be the first.
        block = b"".join(Encoder().encode([field], huffman=False) for field in HEAD)
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(stream, block, flags=flags)

    def flood(self, *once: Frame, then: list[Frame] | None = None) -> int:
        """@return: how many rounds of C{then} were listened to."""
        self.client.send(b"".join(frame.serialize() for frame in once))
        self.world.settle(self.serve)
        for number in range(FAR_TOO_MANY):
            if self.client.ended:
                return number
            for frame in then or ():
                self.client.send(frame.serialize())
            self.world.settle(self.serve)
        raise AssertionError("it is listened to for ever")

    def farewell(self) -> ErrorCodes:
        """What the client is told; everything it is told is little."""
        self.assertLess(len(self.client.heard), 100_000)
        self.world.close()
        heard = memoryview(self.client.heard)
        while heard:
            frame, size = Frame.parse_frame_header(heard[:9])
            frame.parse_body(heard[9 : 9 + size])
            heard = heard[9 + size :]
        self.assertIsInstance(frame, GoAwayFrame)
        return ErrorCodes(frame.error_code)

    def test_empty_data(self) -> None:
        """Pieces of a body with nothing in them."""
        self.flood(self.head(1, end=False), then=[DataFrame(1, b"")])
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual(self.begun, 1)

    def test_padding_alone(self) -> None:
        """Likewise with padding, which takes from the window for nothing."""
        for padding in (0, 200):
            frame = DataFrame(1, b"", pad_length=padding, flags=["PADDED"])
            self.flood(self.head(1, end=False), then=[frame])
            self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)
            self.setUp()

    def test_tiny_data(self) -> None:
        """A body of a byte a frame: fifty thousand at once are enough."""
        frames = [DataFrame(1, b"x" * 15)] * 100
        rounds = self.flood(self.head(1, end=False), then=frames)
        self.assertTrue(500 <= rounds <= 501, rounds)
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual(self.begun, 1)

    def test_small_data(self) -> None:
        """A byte more, and a frame brings as much as a request of HTTP/1.1."""
        self.client.send(self.head(1, end=False).serialize())
        for _ in range(510):
            self.client.send(DataFrame(1, b"x" * 16).serialize() * 100)
            self.world.settle(self.serve)
        self.assertFalse(self.client.ended)
        self.world.close()

    def dribble(self, step: int, rounds: int) -> int:
        """
        A client that opens its windows by C{step} bytes again and again.

        @return: how many bytes it gets by that.
        """
        body = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
        self.client.send(SettingsFrame(0, settings={4: 0}).serialize() + self.head(1).serialize())
        self.world.settle(lambda line, heard: line.send(body))
        begun = len(self.client.heard)
        window = b"".join(
            WindowUpdateFrame(stream, window_increment=step).serialize() for stream in (0, 1)
        )
        for _ in range(rounds):
            self.client.send(window)
            self.world.settle(self.serve)
        return len(self.client.heard) - begun

    def test_dribble(self) -> None:
        """A response a byte at a time, each of which the client asks for."""
        self.assertLessEqual(self.dribble(1, ALLOWANCE), ALLOWANCE * 10)
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertTrue(self.client.ended)

    def test_small_window(self) -> None:
        """A client that has little room, and says so each time, gets all of it."""
        rounds = 2 * ALLOWANCE
        self.assertEqual(self.dribble(256, rounds), (256 + 9) * rounds)
        self.world.close()

    def test_empty_continuations(self) -> None:
        """A head that goes on without a byte."""
        frame = HeadersFrame(1, b"\x82")
        rounds = self.flood(frame, then=[ContinuationFrame(1, b"")])
        self.assertLessEqual(rounds, ALLOWANCE + 1)
        self.farewell()
        self.assertEqual(self.begun, 0)

    def test_long_continuations(self) -> None:
        """A head that goes on and on."""
        rounds = self.flood(HeadersFrame(1, b"\x82"), then=[ContinuationFrame(1, b"\x82" * 1000)])
        self.assertLess(rounds, 100)
        self.assertNotEqual(self.farewell(), ErrorCodes.NO_ERROR)

    def test_compressed_head(self) -> None:
        """A small head that becomes a large one: one long value, and many references to it."""
        encoder = Encoder()
        first = encoder.encode([*HEAD, ("x", "y" * 3900)], huffman=False)
        # 62 is the youngest entry of the table.
        bomb = encoder.encode(HEAD, huffman=False) + b"\xbe" * 12_000
        self.client.send(
            HeadersFrame(1, first, flags=["END_HEADERS", "END_STREAM"]).serialize()
            + HeadersFrame(3, bomb, flags=["END_HEADERS", "END_STREAM"]).serialize()
        )
        self.world.settle(self.serve)
        self.assertTrue(self.client.ended)
        self.farewell()
        self.assertEqual(self.begun, 1)

    def test_priorities(self) -> None:
        """Streams that nobody opens, told to depend on each other."""
        self.flood(then=[PriorityFrame(5, depends_on=3, stream_weight=1)])
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)

    def test_full_settings(self) -> None:
        """The same settings thousands of times in each frame."""
        frame = SettingsFrame(0).serialize()
        settings = b"".join(kind.to_bytes(2, "big") + bytes(4) for kind in range(100, 2800))
        frame = len(settings).to_bytes(3, "big") + frame[3:] + settings
        for _ in range(10):
            self.client.send(frame)
            self.world.settle(self.serve)
        self.assertTrue(self.client.ended)
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)

    def test_made_to_reset(self) -> None:
        """
        Requests that we are made to give up by a window that is too large:
        rapid reset without a reset of the client's.
        """
        for number in range(FAR_TOO_MANY):
            if self.client.ended:
                break
            stream = 2 * number + 1
            self.client.send(
                self.head(stream).serialize()
                + WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize()
            )
            self.world.settle(self.serve)
        self.assertTrue(self.client.ended)
        self.assertLessEqual(self.begun, ALLOWANCE + 1)
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)

    def test_streams_beyond_the_limit(self) -> None:
        """More requests at once than are taken: refused, and then let go of."""
        for number in range(FAR_TOO_MANY):
            if self.client.ended:
                break
            self.client.send(self.head(2 * number + 1).serialize())
            self.world.settle(self.serve)
        self.assertTrue(self.client.ended)
        self.assertEqual(self.begun, 128)
        self.assertEqual(self.farewell(), ErrorCodes.ENHANCE_YOUR_CALM)


class FrameReaderTests(SynchronousTestCase):
    """Who sends little, seldom."""

    def setUp(self) -> None:
        self.now = 0.0
        self.reader = FrameReader(1000, lambda: self.now)
        self.take(PREFACE)

    def take(self, data: bytes) -> int:
        return sum(1 for _ in self.reader.feed(data))

    def test_typed(self) -> None:
        """A byte a frame, from as many as can type at a time."""
        second = DataFrame(1, b"x").serialize() * 1500
        for _ in range(100):
            self.now += 1.0
            self.assertEqual(1500, self.take(second))

    def test_not_typed(self) -> None:
        """More than that for a while."""
        second = DataFrame(1, b"x").serialize() * 5000
        with self.assertRaises(BadFrames):
            for _ in range(20):
                self.now += 1.0
                self.take(second)

    def test_last(self) -> None:
        """The last frame of a body may be as small as it is."""
        last = DataFrame(1, b"x", flags=["END_STREAM"]).serialize()
        self.assertEqual(60_000, self.take(last * 60_000))
