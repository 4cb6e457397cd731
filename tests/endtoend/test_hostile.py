"""
The corpus of hostile messages (L{tests.hostile}) before the daemon itself: real
sockets, a real reactor, and a server that reads strictly and remembers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import h11

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import BOUND, LOOPBACK, EndToEndCase, free_port, until_end, wait_until
from tests.hostile.corpus import OPEN, REQUESTS, RESPONSES, WAITS, Asked, RequestCase, ResponseCase
from tests.hostile.recording import Recorder, answer
from tests.hostile.test_requests import Outcome, expected, statuses, whole, wrong_fields
from tests.hostile.test_responses import FRESH, NEXT, ResponseJudge, read_answer

Says = Callable[[socket.socket, Asked], bool]
"""Answers a request; C{False} ends the connection."""


def _ok(skt: socket.socket, asked: Asked) -> bool:
    skt.sendall(answer(asked))
    return True


class StrictServer:
    """
    Listens on loopback, in threads of the test's process.

    @ivar says: what it does with each request.
    @ivar recorders: of its connections since L{forget}.
    """

    def __init__(self, case: EndToEndCase) -> None:
        self.says: Says = _ok
        self.recorders: list[Recorder] = []
        self._asked: list[Asked] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        case.addCleanup(self._listening.close)
        case.addCleanup(self._shut)
        threading.Thread(target=self._accept, daemon=True).start()

    def _shut(self) -> None:
        # To wake the thread, which a mere close would not.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                skt, _ = self._listening.accept()
            except OSError:
                return
            skt.settimeout(4 * BOUND)
            threading.Thread(target=self._serve, args=(skt,), daemon=True).start()

    def _serve(self, skt: socket.socket) -> None:
        recorder = Recorder()
        with self._lock:
            self.recorders.append(recorder)
        with skt, contextlib.suppress(OSError):
            while data := skt.recv(65536):
                for asked in recorder.feed(data):
                    with self._lock:
                        self._asked.append(asked)
                    if not self.says(skt, asked):
                        return

    def take(self) -> tuple[Asked, ...]:
        """What it was asked since the last time."""
        with self._lock:
            asked, self._asked = tuple(self._asked), []
        return asked


class HostileCase(EndToEndCase):
    """
    One daemon for a whole corpus, and one strict server behind it.

    @cvar buffering: whether the daemon waits for all of a request first.
    """

    buffering = False

    def setUp(self) -> None:
        self.server = StrictServer(self)
        servers = f'[{{ address = "{LOOPBACK}:{self.server.port}", max_fails = 0 }}]'
        small = '[[http]]\nlisten = "tcp:{}:interface=127.0.0.1"\nmax_header_size = 1024\n'
        upstream = {"next_upstream": [], "request_buffering": self.buffering}
        self.small = free_port()
        self.daemon = Daemon(
            self, servers=servers, upstream=upstream, more=small.format(self.small)
        )

    def connect(self, port: int) -> socket.socket:
        skt = socket.create_connection((LOOPBACK, port), BOUND)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return skt

    def good(self) -> bool:
        """Somebody else is served as if nothing were."""
        with self.connect(self.daemon.http) as skt:
            skt.sendall(b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return until_end(skt).startswith(b"HTTP/1.1 200 OK\r\n")


class RequestTests(HostileCase):
    """What clients send."""

    def play(self, case: RequestCase) -> Outcome:
        """One case, and then a client that means well."""
        port = self.small if case.http else self.daemon.http
        due = expected(case)
        with self.connect(port) as skt:
            with contextlib.suppress(ConnectionError):
                skt.sendall(whole(case))
            heard, closed = b"", False
            if case.end == OPEN:
                while len(self.answers(heard, case)[0]) < len(due.answers):
                    data = skt.recv(65536)
                    if not data:
                        closed = True
                        break
                    heard += data
            elif case.end == WAITS:
                assert self.good()
                skt.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    heard = skt.recv(65536)
                    closed = not heard
            else:
                heard, closed = until_end(skt), True
        answers, rest = self.answers(heard, case)
        if case.end == WAITS:
            seen = tuple(each for each in self.server.take() if each.target != b"/good")
        else:
            seen = self.server.take()
        return Outcome(answers, seen, rest, closed)

    @staticmethod
    def answers(heard: bytes, case: RequestCase) -> tuple[tuple[int, ...], bytes]:
        answers, rest = statuses(heard, case.methods)
        return tuple(status for status in answers if status != 100), rest

    def test_requests(self) -> None:
        """The server gets well-formed messages that say what the client said, or nothing."""
        wrong = []
        for case in REQUESTS:
            for recorder in self.server.recorders:
                recorder.raw = b""
                recorder.asked.clear()
            outcome = self.play(case)
            if outcome != expected(case):
                wrong.append(f"{case.name}: {outcome}, not {expected(case)}")
            recorders = list(self.server.recorders)
            wrong += [f"{case.name}: {each}" for each in wrong_fields(case, LOOPBACK, recorders)]
        wrong += [each for recorder in self.server.recorders for each in recorder.broken]
        self.assertEqual([], wrong, "\n".join(wrong))
        self.assertTrue(self.good())
        address = f"{LOOPBACK}:{self.server.port}"
        wait_until(lambda: self.daemon.counts() == {address: 0}, "the count to be 0")


class BufferedRequestTests(RequestTests):
    """The same where a server is chosen when the whole request is here."""

    buffering = True


class ResponseTests(HostileCase, ResponseJudge):
    """What servers send."""

    def play(self, case: ResponseCase) -> None:
        """One case, and then another request."""
        served: list[socket.socket] = []

        def says(skt: socket.socket, asked: Asked) -> bool:
            served.append(skt)
            if asked.target == b"/next":
                skt.sendall(FRESH)
                return True
            skt.sendall(case.sent)
            return case.then == "keep"

        self.server.says = says
        skt = self.connect(self.daemon.http)
        skt.sendall(case.request)
        heard, ended = b"", False
        while True:
            got = read_answer(heard, case.request, ended)
            if (got.status and got.whole) or ended:
                break
            try:
                data = skt.recv(65536)
            except ConnectionError:
                data = b""
            heard, ended = heard + data, not data
        if ended:
            skt.close()
            skt = self.connect(self.daemon.http)
        with skt:
            try:
                skt.sendall(NEXT)
                fresh = skt.recv(65536)
            except ConnectionError:
                fresh = b""
        if not fresh:
            # It was about to be closed: so the next one comes over a new one.
            with self.connect(self.daemon.http) as other:
                other.sendall(NEXT)
                fresh = other.recv(65536)
        following = read_answer(fresh, NEXT, False)
        self.assertEqual((200, b"fresh", b""), (following.status, following.body, following.rest))
        self.judge(case, got, served[0] is served[-1])

    def test_responses(self) -> None:
        """A client gets one answer or sees that it is none, and the next one gets its own."""
        wrong = []
        for case in RESPONSES:
            try:
                self.play(case)
            except (AssertionError, h11.RemoteProtocolError, OSError) as error:
                wrong.append(f"{case.name}: {error!r}")
        self.assertEqual([], wrong, "\n".join(wrong))
        self.server.says = _ok
        self.assertTrue(self.good())
