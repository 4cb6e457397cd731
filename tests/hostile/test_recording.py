"""The strict server is strict."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.recording import Recorder

GOOD = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


class RecorderTests(SynchronousTestCase):
    """L{Recorder}."""

    def test_good(self) -> None:
        """Messages are told apart, however they come."""
        for size in (1, 7, 1000):
            recorder, data = Recorder(), GOOD + CHUNKED + GOOD
            for at in range(0, len(data), size):
                recorder.feed(data[at : at + size])
            self.assertEqual([], recorder.broken)
            self.assertEqual([b"/a", b"/b", b"/a"], [asked.target for asked in recorder.asked])
            self.assertEqual([b"hi"] * 3, [asked.body for asked in recorder.asked])

    def test_broken(self) -> None:
        """What somebody could read in another way is told, even where h11 takes it."""
        for data in (
            GOOD.replace(b"Host: a", b"Host: a\r\nX: a\nY: b"),
            GOOD.replace(b"Host: a", b"Host: a\r\nX: a\r\n b"),
            GOOD.replace(b"Host: a", b"Host: a\r\nhost: a"),
            GOOD.replace(b"\r\n", b"\n"),
            GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
            GOOD.replace(b"Content-Length: 2", b"Content-Length: 2\r\ncontent-length: 2"),
            GOOD.replace(b"Content-Length: 2", b"Content-Length: 2, 2"),
            CHUNKED.replace(b"chunked", b"CHUNKED"),
            CHUNKED.replace(b"Host: a", b"Host: a\r\nContent-Length: 2"),
            CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"),
            CHUNKED.replace(b"2\r\nhi", b"2;x\r\nhi"),
            b"nonsense\r\n\r\n",
        ):
            recorder = Recorder()
            recorder.feed(data)
            self.assertTrue(recorder.broken, data)
