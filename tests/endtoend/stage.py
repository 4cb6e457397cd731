"""
Servers that do as they are told, and a client that looks closely: what one
request makes of both is a value that can be compared.

Everything runs in threads of the test's process, on loopback, and ends with
the test.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader

from attrs import frozen

from tests.endtoend.harness import BOUND, LOOPBACK, EndToEndCase

_UNTOLD = {"server", "date", "connection", "keep-alive"}
"""Fields of an answer that each balancer may write as it likes."""


@frozen
class Act:
    """
    What a server does with one request.

    @ivar answer: is sent when the request is here, or all of its head when
        C{early}.
    @ivar pause: seconds after each byte of the body.
    @ivar then: C{"keep"} the connection, C{"close"} or C{"reset"} it, C{"hang"}
        until the other side closes it, or until then C{"echo"} what comes.
    """

    answer: bytes = b""
    then: str = "keep"
    early: bool = False
    pause: float = 0.0

    def send(self, skt: socket.socket, line: str) -> None:
        """@param line: of the request; what asks with HEAD gets no body."""
        head, end, body = self.answer.partition(b"\r\n\r\n")
        whole = head + end + body * (not line.startswith("HEAD "))
        if not self.pause:
            skt.sendall(whole)
            return
        skt.sendall(head + end)
        for byte in body:
            time.sleep(self.pause)
            skt.sendall(bytes([byte]))


def answer(
    status: str = "200 OK", body: bytes = b"ok", more: str = "", then: str = "keep"
) -> Act:
    """An answer of known length, marked as a server's own."""
    head = f"HTTP/1.1 {status}\r\nX-Own: 1\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return Act(head.encode() + body, then)


def bare(head: str, body: bytes = b"", then: str = "keep") -> Act:
    """An answer whose framing is in C{head}."""
    lines = head.split("\n")
    return Act("\r\n".join([lines[0], "X-Own: 1", *lines[1:], "", ""]).encode() + body, then)


OK = answer()
CLOSE = Act(then="close")
RESET = Act(then="reset")
HANG = Act(then="hang")


@frozen
class Asked:
    """
    A request as a server got it.

    @ivar server: which one, from 0.
    @ivar connection: its connections are counted from 0.
    @ivar fields: name in lower case and value, sorted.
    """

    server: int
    connection: int
    line: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Stage:
    """
    The servers of one scene.

    @ivar asked: what they were asked, in this order.
    @ivar busy: requests that are not whole yet, or that nobody has given up
        though they are not answered.
    @ivar lock: for what their threads share.
    """

    def __init__(self, case: EndToEndCase, casts: Sequence[Sequence[Act] | None]) -> None:
        """
        @param casts: for each server what it does with its first, second, ...
            request; with all later ones it does the last.  C{None} is a server
            that nobody started.
        """
        self.asked: list[Asked] = []
        self.busy = 0
        self.lock = threading.Lock()
        self._ports: list[int] = []
        for number, acts in enumerate(casts):
            listening = socket.socket()
            listening.bind((LOOPBACK, 0))
            case.addCleanup(listening.close)
            self._ports.append(listening.getsockname()[1])
            if acts is not None:
                listening.listen(64)
                # To wake the thread, which a mere close would not.
                case.addCleanup(_shut, listening)
                _begin(self._accept, listening, number, list(acts))

    @property
    def ports(self) -> Sequence[int]:
        return self._ports

    def _accept(self, listening: socket.socket, number: int, acts: list[Act]) -> None:
        turns = _turns(acts)
        connections = 0
        while True:
            try:
                skt, _ = listening.accept()
            except OSError:
                return
            skt.settimeout(BOUND)
            _begin(self.serve, skt, number, connections, turns)
            connections += 1

    def serve(
        self, skt: socket.socket, number: int, connection: int, turns: Iterator[Act]
    ) -> None:
        """
        Serve a connection to its end.

        @param number: the server's.
        @param connection: the connection's, among those of the server.
        @param turns: what to do next, for all connections of the server.
        """
        with skt, contextlib.suppress(OSError), skt.makefile("rb") as reading:
            while (head := _head(reading)) is not None:
                line, fields = head
                with self.lock:
                    # One request belongs to one act, whoever comes at the same time.
                    act = next(turns)
                    place = len(self.asked)
                    told = tuple(sorted(fields))
                    self.asked.append(Asked(number, connection, line, told))
                    self.busy += 1
                try:
                    if act.early:
                        act.send(skt, line)
                    body = b"".join(_body(reading, dict(fields)))
                    self.asked[place] = Asked(number, connection, line, told, body)
                    if not act.early:
                        act.send(skt, line)
                    if act.then == "hang":
                        skt.recv(1)
                finally:
                    with self.lock:
                        self.busy -= 1
                while act.then == "echo" and (data := reading.read1(65536)):
                    skt.sendall(data)
                if act.then == "reset":
                    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if act.then != "keep":
                    return


def _begin(target: Callable[..., None], *args: object) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def _shut(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)


def _turns(acts: list[Act]) -> Iterator[Act]:
    yield from acts
    while True:
        yield acts[-1]


def _head(reading: BufferedReader) -> tuple[str, list[tuple[str, str]]] | None:
    lines: list[str] = []
    while True:
        line = reading.readline().decode("latin-1")
        if not line.endswith("\r\n"):
            return None
        if line == "\r\n":
            break
        lines.append(line[:-2])
    split = (line.partition(":") for line in lines[1:])
    return lines[0], [(name.lower(), value.strip()) for name, _, value in split]


def _body(reading: BufferedReader, fields: dict[str, str]) -> Iterator[bytes]:
    if fields.get("transfer-encoding") != "chunked":
        yield reading.read(int(fields.get("content-length", "0")))
        return
    while size := int(reading.readline(), 16):
        yield reading.read(size)
        reading.read(2)
    reading.readline()


@frozen
class Answer:
    """
    An answer as a client got it.

    @ivar fields: those that count, sorted; none of an answer that is not a
        server's own.
    @ivar body: likewise.
    @ivar whole: whether it was what its framing had announced.
    @ivar kept: whether the connection stays.
    """

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = True
    kept: bool = True


NOTHING = Answer(0, whole=False, kept=False)
"""The connection was closed without a word."""


class Client:
    """A client's connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), BOUND)

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def hears(self, seconds: float) -> bool:
        """Whether something comes within this time."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def ask(self, request: bytes) -> Answer:
        """One request and the answer to it."""
        self.send(request)
        line = request.partition(b"\r\n")[0]
        return self.listen(line.partition(b" ")[0].decode("latin-1"), line.endswith(b"/1.0"))

    def listen(self, method: str = "GET", old: bool = False) -> Answer:
        """
        An answer.

        @param method: of the request.
        @param old: it was one of HTTP/1.0, for which connections do not stay
            unless that is said.
        """
        response = http.client.HTTPResponse(self.socket, method=method)
        try:
            response.begin()
        except (http.client.BadStatusLine, ConnectionError):
            return NOTHING
        body, whole = b"", True
        try:
            # Piece by piece, so that nothing is lost when the connection breaks.
            while piece := response.read1(65536):
                body += piece
            whole = not response.length
        except (http.client.IncompleteRead, ConnectionError):
            whole = False
        kept = whole and not response.will_close
        if old:
            kept = kept and response.getheader("connection", "").lower() == "keep-alive"
        return _seen(response.status, response.getheaders(), body, whole, kept)

    def switch(self, request: bytes, early: bytes, *words: bytes) -> Answer:
        """
        Ask for another protocol, whose server says each word again.

        @param early: sent behind the request, without a wait for the answer.
        @return: all that was heard up to the end, as a body.
        """
        self.send(request + early)
        heard = b""
        for word in (early, *words):
            if word != early:
                self.send(word)
            while not heard.endswith(word) and (data := self.socket.recv(65536)):
                heard += data
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while data := self.socket.recv(65536):
                heard += data
        head, _, rest = heard.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        split = [line.split(": ", 1) for line in lines[1:]]
        status = int(lines[0].split(" ")[1])
        return _seen(status, [(name, value) for name, value in split], rest, True, False)


def _seen(
    status: int, fields: Sequence[tuple[str, str]], body: bytes, whole: bool, kept: bool
) -> Answer:
    told = [(name.lower(), value) for name, value in fields]
    if ("x-own", "1") not in told:
        return Answer(status, whole=whole, kept=kept)
    counting = tuple(sorted(field for field in told if field[0] not in _UNTOLD))
    return Answer(status, counting, body, whole, kept)


def request(
    method: str = "GET", target: str = "/", more: str = "", body: bytes = b"", host: str = "HOST"
) -> bytes:
    """
    A request; with a body, or where one is expected, it has its length.

    @param host: C{HOST} stands for the scene's name, which leads to its
        servers.
    """
    expected = method in ("POST", "PUT", "PATCH") and "Transfer-Encoding" not in more
    length = f"Content-Length: {len(body)}\r\n" if body or expected else ""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}{length}\r\n".encode() + body

