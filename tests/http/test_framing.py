"""
What is a message, and what is none: RFC 9112 by tables.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.chunked import LAST, ChunkedDecoder, chunk
from dynbalance.http.fields import MAX_FIELDS, BadMessage
from dynbalance.http.request import is_hopeless, parse_request
from dynbalance.http.response import CHUNKED, UNTIL_CLOSE, parse_response


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    """A head of these field lines."""
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Likewise of a response."""
    return b"\r\n".join([start, *lines, b"", b""])


CL, TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"

REFUSED = (
    # RFC 9112 section 2.2: line ends and control characters
    (400, request(b"X: a\rb")),
    (400, request(b"X: a\nb")),
    (400, request(b"X: a\r\rb")),
    (400, request(b"X: a\x00b")),
    (400, request(b"X: a\x0bb")),
    (400, request(b"X: a\x7fb")),
    (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    (400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    # section 2.3: versions
    (400, request(start=b"GET /")),
    (400, request(start=b"GET / http/1.1")),
    (400, request(start=b"GET / HTTP/1.10")),
    (400, request(start=b"GET / HTTP/1")),
    (400, request(start=b"GET / HTTP/ 1.1")),
    (400, request(start=b"GET / HTTPS/1.1")),
    (505, request(start=b"GET / HTTP/0.9")),
    (505, request(start=b"GET / HTTP/2.0")),
    (505, request(start=b"PRI * HTTP/2.0", host=b"")),
    # section 3: the request line has exactly two spaces
    (400, request(start=b"GET  / HTTP/1.1")),
    (400, request(start=b"GET /  HTTP/1.1")),
    (400, request(start=b"GET / HTTP/1.1 ")),
    (400, request(start=b"GET\t/ HTTP/1.1")),
    (400, request(start=b"GET /\tHTTP/1.1")),
    (400, request(start=b"GET /a b HTTP/1.1")),
    (400, request(start=b"/ HTTP/1.1")),
    (400, request(start=b"G\xc4T / HTTP/1.1")),
    (400, request(start=b"G(T / HTTP/1.1")),
    (400, request(start=b"G" * 65 + b" / HTTP/1.1")),
    # section 3.2: targets
    (400, request(start=b"GET * HTTP/1.1")),
    (400, request(start=b"GET a HTTP/1.1")),
    (400, request(start=b"GET a:80 HTTP/1.1")),
    (400, request(start=b"GET /a#b HTTP/1.1")),
    (400, request(start=b"GET ftp://a/ HTTP/1.1")),
    (400, request(start=b"GET http:// HTTP/1.1")),
    (400, request(start=b"GET http:///x HTTP/1.1")),
    (400, request(start=b"GET http://u@a/ HTTP/1.1")),
    (400, request(start=b"GET http:/a HTTP/1.1")),
    (400, request(start=b"GET http://a\\b/ HTTP/1.1")),
    (405, request(start=b"CONNECT a:80 HTTP/1.1")),
    (405, request(start=b"TRACE / HTTP/1.1")),
    # section 3.2: Host
    (400, request(host=b"")),
    (400, request(host=b"Host:")),
    (400, request(host=b"Host: ")),
    (400, request(b"Host: a")),
    (400, request(b"host: b")),
    (400, request(host=b"Host: a b")),
    (400, request(host=b"Host: a/b")),
    (400, request(host=b"Host: u@a")),
    (400, request(host=b"Host: a:b")),
    (400, request(host=b"Host: a:123456")),
    (400, request(host=b"Host: [::1")),
    (400, request(host=b"Host: \xe4")),
    # section 5: field lines
    (400, request(b"X : a")),
    (400, request(b"X\t: a")),
    (400, request(b": a")),
    (400, request(b"X")),
    (400, request(b"X Y: a")),
    (400, request(b"X\xe4: a")),
    (400, request(b"X@: a")),
    (400, request(b"(X): a")),
    (400, request(b"X: a", b" b")),
    (400, request(b"X: a", b"\tb")),
    (431, request(*[b"X: a"] * MAX_FIELDS)),
    # section 6.2: Content-Length
    (400, request(b"Content-Length: ")),
    (400, request(b"Content-Length: +5")),
    (400, request(b"Content-Length: -5")),
    (400, request(b"Content-Length: 5 5")),
    (400, request(b"Content-Length: 5,5")),
    (400, request(b"Content-Length: 5, 6")),
    (400, request(b"Content-Length: 0x5")),
    (400, request(b"Content-Length: 5.0")),
    (400, request(b"Content-Length: \xb2")),
    (400, request(b"Content-Length: 9999999999999999999")),
    (400, request(b"Content-Length: 18446744073709551621")),
    (400, request(CL, CL)),
    (400, request(CL, b"content-length: 6")),
    (400, request(b"Content-Length : 5")),
    # section 6.1: Transfer-Encoding; chunked must be the last coding (400),
    # and another one before it is not known here (501)
    (400, request(CL, TE)),
    (400, request(TE, CL)),
    (400, request(b"Content-Length: 0", TE)),
    (400, request(b"Transfer-Encoding: ")),
    (400, request(b"Transfer-Encoding: identity")),
    (400, request(b"Transfer-Encoding: gzip")),
    (400, request(b"Transfer-Encoding: chunked, gzip")),
    (400, request(b"Transfer-Encoding: xchunked")),
    (400, request(b"Transfer-Encoding: chunked\x0b")),
    (400, request(b"Transfer-Encoding : chunked")),
    (400, request(b"Transfer-Encoding:", b" chunked")),
    (400, request(b'Transfer-Encoding: "chunked"')),
    (400, request(b"Transfer-Encoding: chunked;q=1")),
    (400, request(TE, b"Transfer-Encoding: identity")),
    (501, request(b"Transfer-Encoding: gzip, chunked")),
    (400, request(TE, start=b"POST / HTTP/1.0")),
    # RFC 9110 section 10.1.1
    (417, request(b"Expect: 200-ok")),
    (400, request(b"Expect: 100-continue", b"Expect: 100-continue")),
    # Fields that mean one thing at a time
    (400, request(b"Authorization: a", b"authorization: b")),
    (400, request(b"If-Match: a", b"If-Match: a")),
)

REFUSED_EITHER = (
    # 400 or 501: which one depends on what is looked at first
    request(TE, TE),
    request(b"Transfer-Encoding: chunked, chunked"),
    request(b"Transfer-Encoding: chunked, identity"),
    request(b"Transfer-Encoding: ,chunked"),
    request(b"Transfer-Encoding: chunked,"),
)

ACCEPTED = (
    # target and Host as the server will get them, length, keep_alive
    (request(), b"/", b"a", 0, True),
    (request(host=b"host:\ta \t"), b"/", b"a", 0, True),
    (request(host=b"Host: [::1]:80"), b"/", b"[::1]:80", 0, True),
    (request(host=b"Host: A_b.example.:8080"), b"/", b"A_b.example.:8080", 0, True),
    (request(start=b"GET /a?b=c%20&d[]=\xe4 HTTP/1.1"), b"/a?b=c%20&d[]=\xe4", b"a", 0, True),
    (request(start=b"GET //a//b/../c HTTP/1.1"), b"//a//b/../c", b"a", 0, True),
    (request(start=b"OPTIONS * HTTP/1.1"), b"*", b"a", 0, True),
    (request(start=b"OPTIONS http://b HTTP/1.1"), b"*", b"b", 0, True),
    (request(start=b"GET http://b HTTP/1.1"), b"/", b"b", 0, True),
    (request(start=b"GET HTTP://b:1?x HTTP/1.1"), b"/?x", b"b:1", 0, True),
    (request(start=b"GET https://b/c?d HTTP/1.1"), b"/c?d", b"b", 0, True),
    (request(start=b"get / HTTP/1.1"), b"/", b"a", 0, True),
    (request(start=b"GET / HTTP/1.9"), b"/", b"a", 0, True),
    (request(start=b"GET / HTTP/1.0"), b"/", b"a", 0, False),
    (request(start=b"GET / HTTP/1.0", host=b""), b"/", b"", 0, False),
    (request(b"Connection: Keep-Alive", start=b"GET / HTTP/1.0"), b"/", b"a", 0, True),
    (request(b"Connection: x , CLOSE"), b"/", b"a", 0, False),
    (request(b"Connection: keep-alive", b"Connection: close"), b"/", b"a", 0, False),
    (request(CL), b"/", b"a", 5, True),
    (request(b"Content-Length: \t 5 \t"), b"/", b"a", 5, True),
    (request(b"Content-Length: 0005"), b"/", b"a", 5, True),
    (request(b"Content-Length: 0"), b"/", b"a", 0, True),
    (request(TE), b"/", b"a", -1, True),
    (request(b"transfer-encoding:\tChunked "), b"/", b"a", -1, True),
    (request(b"X:", b"X: \xe4\xff", b"X: a:b c\td"), b"/", b"a", 0, True),
    (request(*[b"X: a"] * (MAX_FIELDS - 1)), b"/", b"a", 0, True),
    (request(b"X: " + b"a" * 30000), b"/", b"a", 0, True),
)


class RequestTests(SynchronousTestCase):
    """L{parse_request}."""

    def test_refused(self) -> None:
        """What can be read in two ways, or in none, is refused with its status."""
        for status, block in REFUSED:
            with self.assertRaises(BadMessage, msg=repr(block[:200])) as caught:
                parse_request(block)
            self.assertEqual(caught.exception.status, status, block[:200])

    def test_refused_either(self) -> None:
        """Codings twice over are refused."""
        for block in REFUSED_EITHER:
            with self.assertRaises(BadMessage, msg=repr(block)) as caught:
                parse_request(block)
            self.assertIn(caught.exception.status, (400, 501))

    def test_refused_again(self) -> None:
        """That is so the second time, too: nothing bad is remembered as good."""
        self.test_refused()

    def test_accepted(self) -> None:
        """What is a request is one, with the target and Host that it means."""
        for block, target, host, length, keep_alive in ACCEPTED:
            head = parse_request(block)
            self.assertEqual(
                (head.target, head.host, head.length, head.keep_alive),
                (target, host, length, keep_alive),
                block[:200],
            )

    def test_expect(self) -> None:
        """The expectation counts in HTTP/1.1 only."""
        expect = b"Expect: 100-Continue"
        self.assertTrue(parse_request(request(expect)).expect)
        self.assertFalse(parse_request(request(expect, start=b"GET / HTTP/1.0")).expect)

    def test_upgrade(self) -> None:
        """An upgrade counts in HTTP/1.1, named by Connection, without a body, not to h2c."""
        fields = (b"Upgrade: h2c, a, b", b"Connection: upgrade")
        self.assertEqual(parse_request(request(*fields)).upgrade, b"a, b")
        for block in (
            request(*fields, start=b"GET / HTTP/1.0"),
            request(fields[0]),
            request(*fields, CL),
            request(*fields, TE),
            request(b"Upgrade: H2C", fields[1]),
        ):
            self.assertEqual(parse_request(block).upgrade, b"", block)
            self.assertNotIn(b"pgrade", parse_request(block).forward)

    def test_hopeless(self) -> None:
        """Whether more bytes can help is known from the beginning alone."""
        good = request(b"X: y")
        for at in range(len(good)):
            self.assertFalse(is_hopeless(good[:at]), good[:at])
        for bad in (
            b"GET /\r\n",
            b"GET / HTTP/1.1\n",
            b"\n",
            b"G\x00",
            b"G\rE",
            b"GET / HTTP/1.1\r\nX\n",
        ):
            self.assertTrue(is_hopeless(bad), bad)


REFUSED_ANSWERS = (
    # RFC 9112 section 4: the status line
    response(start=b"HTTP/2.0 200 OK"),
    response(start=b"HTTP/0.9 200 OK"),
    response(start=b"http/1.1 200 OK"),
    response(start=b"HTTP/1.1 20 OK"),
    response(start=b"HTTP/1.1 2000 OK"),
    response(start=b"HTTP/1.1 099 OK"),
    response(start=b"HTTP/1.1  200 OK"),
    response(start=b"HTTP/1.1 200OK"),
    response(start=b"HTTP/1.1 +20 OK"),
    response(start=b"ICY 200 OK"),
    response(start=b"HTTP/1.1 200 O\x00K"),
    response(start=b"HTTP/1.1 200 O\rK"),
    response(start=b"HTTP/1.1 200 O\nK"),
    # section 5: field lines
    response(b"X : a"),
    response(b": a"),
    response(b"X"),
    response(b"X: a\rb"),
    response(b"X: a\nb"),
    response(b"X: a\x00"),
    response(b"X: a", b" b"),
    response(*[b"X: a"] * (MAX_FIELDS + 1)),
    # section 6
    response(CL, CL),
    response(b"Content-Length: 5, 5"),
    response(b"Content-Length: -1"),
    response(b"Content-Length: x"),
    response(b"Content-Length: 9999999999999999999"),
    response(CL, TE),
    response(TE, TE),
    response(b"Transfer-Encoding: gzip"),
    response(b"Transfer-Encoding: gzip, chunked"),
    response(TE, start=b"HTTP/1.0 200 OK"),
)

ACCEPTED_ANSWERS = (
    # status, length, bodyless, keep_alive
    (response(CL), 200, 5, False, True),
    (response(TE), 200, CHUNKED, False, True),
    (response(), 200, UNTIL_CLOSE, False, True),
    (response(start=b"HTTP/1.1 200"), 200, UNTIL_CLOSE, False, True),
    (response(start=b"HTTP/1.1 200 "), 200, UNTIL_CLOSE, False, True),
    (response(start=b"HTTP/1.1 999 a \xe4\tb"), 999, UNTIL_CLOSE, False, True),
    (response(start=b"HTTP/1.0 200 OK"), 200, UNTIL_CLOSE, False, False),
    (response(b"Connection: close"), 200, UNTIL_CLOSE, False, False),
    (response(start=b"HTTP/1.1 103 Early Hints"), 103, UNTIL_CLOSE, True, True),
    (response(start=b"HTTP/1.1 204 No Content"), 204, UNTIL_CLOSE, True, True),
    (response(CL, start=b"HTTP/1.1 204 No Content"), 204, 5, True, False),
    (response(TE, start=b"HTTP/1.1 204 No Content"), 204, CHUNKED, True, False),
    (response(CL, start=b"HTTP/1.1 304 Not Modified"), 304, 5, True, True),
)


class ResponseTests(SynchronousTestCase):
    """L{parse_response}."""

    def test_refused(self) -> None:
        """An answer that cannot be trusted is none."""
        for block in REFUSED_ANSWERS:
            with self.assertRaises(BadMessage, msg=repr(block[:200])):
                parse_response(block)

    def test_accepted(self) -> None:
        """What is an answer is one, with the framing that it means."""
        for block, status, length, bodyless, keep_alive in ACCEPTED_ANSWERS:
            head = parse_response(block)
            self.assertEqual(
                (head.status, head.length, head.bodyless, head.keep_alive),
                (status, length, bodyless, keep_alive),
                block[:200],
            )

    def test_unchanged(self) -> None:
        """A head that may be passed on as it came is known as such."""
        self.assertTrue(parse_response(response(CL, b"x:  y ")).unchanged)
        self.assertFalse(parse_response(response(CL, b"Keep-Alive: x")).unchanged)
        self.assertFalse(parse_response(response(CL, start=b"HTTP/1.0 200 OK")).unchanged)


class ChunkedTests(SynchronousTestCase):
    """L{ChunkedDecoder}: RFC 9112 section 7.1."""

    GOOD = (
        (b"0\r\n\r\n", b""),
        (b"1\r\na\r\n0\r\n\r\n", b"a"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n", b"0123456789" * 2),
        (b"000001\r\na\r\n0\r\n\r\n", b"a"),
        (b"1;x=y\r\na\r\n0;z\r\n\r\n", b"a"),
        (b"1 ; x\r\na\r\n0\t;\r\n\r\n", b"a"),
        (b'1;x="\xe4 y"\r\na\r\n0\r\n\r\n', b"a"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"1\r\na\r\n0\r\nX: y\r\nContent-Length: 5\r\nZ:\r\n\r\n", b"a"),
        (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
        (b"1;x\r\na\r\n2\r\nbc\r\n1;y\r\nd\r\n0\r\n\r\n", b"abcd"),
    )

    BAD = (
        b"\r\n",
        b"x\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"+1\r\na\r\n0\r\n\r\n",
        b"-1\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1_0\r\n",
        b"1\na\r\n0\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"1;\x00\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;a\nb\r\na\r\n",
        b"10000000000000000\r\n",
        b"ffffffffffffffffffff\r\n",
        b"\xb2\r\n",
        b"0\r\n\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"1;" + b"x" * 5000,
        b"1;" + b"x" * 5000 + b"\r\na\r\n",
        b"0\r\n" + b"X: y\r\n" * 5000,
        (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 20,
        (b"1;" + b"x" * 1000 + b"\r\na\r\n1\r\na\r\n") * 20,
    )

    def test_good(self) -> None:
        """A body is read to its end and no further, in any two pieces."""
        for data, payload in self.GOOD:
            for at in range(len(data) + 1):
                decoder = ChunkedDecoder()
                first, used = decoder.feed(data[:at])
                self.assertEqual(used, min(at, len(data)))
                second, used = decoder.feed(data[at:] + b"GET")
                self.assertTrue(decoder.done)
                self.assertEqual((first + second, used), (payload, len(data) - at), (data, at))

    def test_bad(self) -> None:
        """A broken body is refused, in any two pieces."""
        for data in self.BAD:
            for at in {*range(min(len(data), 40)), len(data) // 2}:
                decoder = ChunkedDecoder()
                with self.assertRaises(BadMessage, msg=repr((data[:100], at))):
                    decoder.feed(data[:at])
                    decoder.feed(data[at:])

    def test_bytes(self) -> None:
        """Byte by byte, too."""
        for data, payload in self.GOOD:
            decoder = ChunkedDecoder()
            got = b"".join(decoder.feed(data[i : i + 1])[0] for i in range(len(data)))
            self.assertEqual((got, decoder.done), (payload, True))

    def test_long_with_extensions(self) -> None:
        """Extensions on chunks that carry something may go on for ever."""
        decoder = ChunkedDecoder()
        piece = b"1000;signature=" + b"x" * 64 + b"\r\n" + b"y" * 4096 + b"\r\n"
        self.assertEqual(sum(len(decoder.feed(piece)[0]) for _ in range(1000)), 4096000)

    def test_next_message(self) -> None:
        """Nothing that follows the end is taken, even if it looks like more of the body."""
        for rest in (LAST, chunk(b"a") + LAST, b"\r\n"):
            for body in (b"", b"a"):
                data = (chunk(body) if body else b"") + LAST
                decoder = ChunkedDecoder()
                self.assertEqual(decoder.feed(data + rest), (body, len(data)))
                self.assertTrue(decoder.done)

    def test_longest(self) -> None:
        """A chunk of any size is waited for; its end is not looked for before."""
        decoder = ChunkedDecoder()
        data = b"fffffffffffffff\r\n" + LAST
        self.assertEqual(decoder.feed(data), (LAST, len(data)))
        self.assertFalse(decoder.done)

    def test_written(self) -> None:
        """What is written here is read here."""
        decoder = ChunkedDecoder()
        data = chunk(b"a" * 17) + chunk(b"b") + LAST
        self.assertEqual(decoder.feed(data), (b"a" * 17 + b"b", len(data)))
        self.assertTrue(decoder.done)
