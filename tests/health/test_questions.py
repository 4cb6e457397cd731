"""Tests of what health checks ask, and of which answers are good."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.health.judge import Finding
from dynbalance.health.questions import MOST, HttpQuestion, TcpQuestion

GOOD = Finding()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# What has come, whether more may come, what is found; None to wait.
HTTP = [
    (b"", False, None),
    (b"", True, Finding("closed before it answered")),
    (OK[:30], False, None),
    (OK[:30], True, Finding("closed before it answered")),
    (OK, False, GOOD),
    (OK[:-2], False, GOOD),
    (b"HTTP/1.1 500 No\r\n\r\n", False, Finding("status 500")),
    (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", False, GOOD),
    (b"HTTP/1.1 100 Continue\r\n\r\n", False, None),
    (b"HTTP/1.1 103 Early\r\n\r\n" + OK, False, GOOD),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", False, Finding("status 101")),
    (b"SSH-2.0-x\r\n\r\n", False, Finding("invalid response: malformed status line")),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        False,
        Finding("invalid response: malformed field: Duplicate Content-Length"),
    ),
    (b"x" * MOST, False, Finding("invalid response: its head is too large")),
]

TCP = [
    (b"", False, None),
    (b"-LOADING\r\n+PO", False, None),
    (b"-LOADING\r\n+PONG\r\n", False, GOOD),
    (b"", True, Finding("closed before it answered")),
    (b"-ERR no\r\n", True, Finding("unexpected answer: b'-ERR no\\r\\n'")),
    (b"y" * MOST, False, Finding(f"unexpected answer: {b'y' * 60!r}")),
]


class HttpQuestionTests(SynchronousTestCase):
    """A GET."""

    def test_answers(self) -> None:
        """The first final status decides, read as strictly as any response."""
        question = HttpQuestion("/", "", "200-399")
        for answer, ended, finding in HTTP:
            self.assertEqual(finding, question.judge(answer, ended), answer[:50])

    def test_words(self) -> None:
        """It asks the server under its own name, or under the one that it is to have."""
        for host, key, expected in (
            ("", "127.0.0.1:80", b"127.0.0.1:80"),
            ("", "[::1]:80", b"[::1]:80"),
            ("", "unix:/run/x", b"localhost"),
            ("api.example", "127.0.0.1:80", b"api.example"),
        ):
            line, *fields = HttpQuestion("/h?a=1", host, "200").words(key).split(b"\r\n")
            self.assertEqual(b"GET /h?a=1 HTTP/1.1", line)
            self.assertIn(b"Host: " + expected, fields)
            self.assertIn(b"Connection: close", fields)
            self.assertEqual([b"", b""], fields[-2:])


class TcpQuestionTests(SynchronousTestCase):
    """What is sent and expected."""

    def test_answers(self) -> None:
        """What is expected may stand anywhere in the answer."""
        question = TcpQuestion("PING\r\n", "+PONG")
        self.assertEqual(b"PING\r\n", question.words("127.0.0.1:6379"))
        for answer, ended, finding in TCP:
            self.assertEqual(finding, question.judge(answer, ended), answer[:50])

    def test_connection_alone(self) -> None:
        """Who expects nothing is content with a connection."""
        self.assertEqual(GOOD, TcpQuestion("", "").judge(b"", False))
