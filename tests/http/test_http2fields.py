"""
Heads between HTTP/2 and HTTP/1.1.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.fields import BadMessage
from dynbalance.http.http2fields import request_block, response_fields
from dynbalance.http.response import parse_response

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/p"), (b":authority", b"a")]


class RequestTests(SynchronousTestCase):
    """What is read by the reader of HTTP/1.1."""

    def test_written(self) -> None:
        """The authority is the host; fields keep their order; a body has its framing."""
        fields = [*GET, (b"x", b"1"), (b"host", b"A"), (b"y", b"2")]
        self.assertEqual(
            b"GET /p HTTP/1.1\r\nHost: a\r\nx: 1\r\ny: 2\r\n\r\n", request_block(fields, False)
        )
        chunked = b"GET /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(chunked, request_block(GET, True))
        sized = [*GET, (b"content-length", b"3")]
        self.assertNotIn(b"chunked", request_block(sized, True))
        host = [(b":method", b"GET"), (b":path", b"/"), (b"host", b"b")]
        self.assertIn(b"\r\nHost: b\r\n", request_block(host, False))

    def test_refused(self) -> None:
        """Whatever would make another head of it than what it says."""
        for more in (
            (b"x", b"1\r\ny: 2"), (b"x", b"1\n"), (b"x", b"\0"), (b"x: y", b"z"), (b"", b"z"),
            (b"x\r\ny", b"z"), (b"X", b"z"), (b"transfer-encoding", b"chunked"), (b"host", b"b"),
            (b":path", b"/ HTTP/1.1"), (b":path", b"/\r\nx:"), (b":method", b"GET /x"),
            (b":authority", b"a\r\nx: y"), (b"content-length", b"5"),
        ):  # fmt: skip
            with self.assertRaises(BadMessage, msg=str(more)) as caught:
                request_block([*GET, more], False)
            self.assertEqual(400, caught.exception.status)


class ResponseTests(SynchronousTestCase):
    """What a client of HTTP/2 gets."""

    def test_fields(self) -> None:
        """Names are in lower case, and nothing is said of the connection."""
        head = parse_response(
            b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade, x-hop\r\nUpgrade: h2c\r\n"
            b"X-Hop: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual(
            (
                (b":status", b"426"), (b"set-cookie", b"a"), (b"set-cookie", b"b"),
                (b"content-length", b"0"),
            ),
            response_fields(head.status, head.forward),
        )  # fmt: skip
