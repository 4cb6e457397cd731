"""
Two readings of one message are impossible: whatever we take for a message, h11
and llhttp read in the same way or refuse, and so do they what we pass on.
"""

from __future__ import annotations

from typing import Any

import h11
import httptools
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.chunked import LAST, ChunkedDecoder, chunk
from dynbalance.http.fields import BadMessage
from dynbalance.http.request import parse_request
from dynbalance.http.response import CHUNKED, UNTIL_CLOSE, parse_response

ADDED = b"X-Real-IP: 1.2.3.4\r\n\r\n"
NOW = settings(max_examples=400, deadline=None, database=None)


@frozen
class Reading:
    """What somebody takes a stream of bytes for."""

    method: bytes
    target: bytes
    body: bytes
    rest: bytes


def cut_body(length: int, data: bytes) -> tuple[bytes, bytes] | None:
    """A body and what follows it; C{None} when it is not complete."""
    if length != CHUNKED:
        return (data[:length], data[length:]) if len(data) >= length else None
    decoder = ChunkedDecoder()
    body, used = decoder.feed(data)
    return (body, data[used:]) if decoder.done else None


def our_reading(data: bytes) -> Reading | None:
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    try:
        head = parse_request(data[:end])
        cut = cut_body(head.length, data[end:])
    except BadMessage:
        return None
    return cut and Reading(head.method, data.split(b" ", 2)[1], *cut)


def reading_of_h11(data: bytes) -> Reading | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request: Any = connection.next_event()
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return None
            body += event.data
    except h11.RemoteProtocolError:
        return None
    return Reading(request.method, request.target, body, connection.trailing_data[0])


class _Collector:
    """llhttp's view of one request."""

    def __init__(self) -> None:
        self.target = b""
        self.body = b""
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        if not self.messages:
            self.target += url

    def on_body(self, body: bytes) -> None:
        if not self.messages:
            self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def reading_of_llhttp(data: bytes, rest: bytes) -> Reading | None:
    """@param rest: what we say is the rest; llhttp does not tell."""
    seen = _Collector()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data[: len(data) - len(rest)])
    except httptools.HttpParserUpgrade:
        if not data[: len(data) - len(rest)].endswith(b"\r\n\r\n"):
            # It takes the body for the new protocol's. No server gets to see
            # such a request: the other test would say so.
            return None
    except httptools.HttpParserError:
        return None
    # Complete with exactly these bytes, and not without the last one.
    assert seen.messages == 1, data
    return Reading(parser.get_method(), seen.target, seen.body, rest)


NAMES = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"X",
        b"Host",
        b"Upgrade",
        b"Expect",
        b"content-length ",
        b"Transfer_Encoding",
        b"X-Forwarded-For",
        b"TE",
        b"Trailer",
        b"X\t",
    ]
)
VALUES = st.sampled_from(
    [
        b"0",
        b"3",
        b"5",
        b" 5",
        b"+5",
        b"5,5",
        b"chunked",
        b"Chunked ",
        b"gzip, chunked",
        b"identity",
        b"close",
        b"keep-alive",
        b"upgrade",
        b"websocket",
        b"a",
        b"",
        b"\t",
        b"100-continue",
        b"content-length",
        b"transfer-encoding, x",
        b"\xe4",
        b"a\rb",
        b"a\nb",
        b"a\x00",
    ]
)
LINES = st.builds(lambda n, c, v: n + c + v, NAMES, st.sampled_from([b": ", b":", b" :"]), VALUES)
GOOD_LINES = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"X: y",
        b"X:",
        b"Connection: close",
        b"Connection: upgrade, content-length, x",
        b"Upgrade: websocket",
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
        b"05\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\n\r\n",
        b"2\r\nhello\r\n0\r\n\r\n",
    ]
)
FOLLOWING = st.sampled_from([b"", b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n", b"\r\n", b"x"])


def messages(starts: list[bytes], hosts: list[bytes]) -> st.SearchStrategy[bytes]:
    """Messages, most of them nearly right."""
    whole = st.builds(
        lambda start, host, fields, body, more: (
            b"\r\n".join([start, *host, *fields, b"", body]) + more
        ),
        st.sampled_from(starts),
        st.sampled_from([[host] if host else [] for host in hosts]),
        st.lists(st.one_of(GOOD_LINES, LINES), max_size=3),
        BODIES,
        FOLLOWING,
    )
    bits = st.sampled_from(
        [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b",", b";", b"\xff", b"0", b"a", b""]
    )
    mutated = st.builds(
        lambda data, at, bit, drop: (
            data[: at % (len(data) + 1)] + bit + data[at % (len(data) + 1) + drop :]
        ),
        whole,
        st.integers(0, 400),
        bits,
        st.integers(0, 2),
    )
    return st.one_of(whole, mutated)


REQUESTS = messages(
    [
        b"GET / HTTP/1.1",
        b"POST /a?b HTTP/1.1",
        b"PUT http://c/d HTTP/1.1",
        b"POST / HTTP/1.0",
        b"OPTIONS * HTTP/1.1",
        b"HEAD / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"DELETE /x HTTP/1.1",
    ],
    [b"Host: a", b"Host: a:80", b"host:a", b""],
)
RESPONSES = messages(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 500 \xe4",
    ],
    [b"Server: x", b""],
)


class RequestReadingTests(SynchronousTestCase):
    """Requests."""

    @NOW
    @given(REQUESTS)
    def test_read_alike(self, data: bytes) -> None:
        """Nobody reads another request than we do."""
        ours = our_reading(data)
        if ours is not None:
            # An empty line means nothing after a message; h11 eats it.
            for theirs in (reading_of_h11(data), reading_of_llhttp(data, ours.rest)):
                if theirs is not None:
                    self.assertEqual(theirs, ours, data)

    @NOW
    @given(REQUESTS)
    def test_passed_on(self, data: bytes) -> None:
        """What a server gets is one request, with the meaning that it had."""
        ours = our_reading(data)
        if ours is None:
            return
        head = parse_request(data[: data.find(b"\r\n\r\n") + 4])
        body = ours.body
        if head.length < 0:
            body = (chunk(body) if body else b"") + LAST
        sent = (head.forward if head.host else head.compose(b"default", frozenset())) + ADDED + body
        theirs = reading_of_h11(sent)
        if theirs is None:
            self.assertTrue(any(byte > 0x7F for byte in head.target), sent)
        else:
            self.assertEqual(theirs, Reading(head.method, head.target, ours.body, b""), sent)
        # And llhttp and we ourselves do not read it in another way.
        meant = Reading(head.method, head.target, ours.body, b"")
        self.assertEqual(our_reading(sent), meant)
        self.assertIn(reading_of_llhttp(sent, b""), (meant, None))

    @NOW
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.data())
    def test_any_split(self, pieces: list[bytes], data: st.DataObject) -> None:
        """A chunked body reads the same however it arrives."""
        sent = b"".join(chunk(piece) for piece in pieces) + LAST
        decoder = ChunkedDecoder()
        got = b""
        while sent and not decoder.done:
            size = data.draw(st.integers(1, len(sent)))
            payload, used = decoder.feed(sent[:size])
            self.assertEqual(used, size)
            got += payload
            sent = sent[size:]
        self.assertEqual((got, decoder.done, sent), (b"".join(pieces), True, b""))


def response_of_h11(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, body, and what follows."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    try:
        response: Any = connection.next_event()
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(b"")
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return None
    except h11.RemoteProtocolError:
        return None
    return response.status_code, body, connection.trailing_data[0]


class ResponseReadingTests(SynchronousTestCase):
    """Responses."""

    @NOW
    @given(RESPONSES)
    def test_alike_and_passed_on(self, data: bytes) -> None:
        """h11 reads what we read, and in what we pass on it reads the same."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        try:
            head = parse_response(data[:end])
            length = 0 if head.bodyless else head.length
            cut = (data[end:], b"") if length == UNTIL_CLOSE else cut_body(length, data[end:])
        except BadMessage:
            return
        if cut is None:
            return
        body, rest = cut
        theirs = response_of_h11(data)
        if theirs is not None:
            self.assertEqual(theirs, (head.status, body, rest), data)
        if length >= 0:
            sent = head.whole + body
        else:
            sent = head.forward + b"Transfer-Encoding: chunked\r\n\r\n"
            sent += (chunk(body) if body else b"") + LAST
        self.assertEqual(response_of_h11(sent), (head.status, body, b""), sent)
        if head.unchanged:
            self.assertEqual(head.whole, data[:end])
