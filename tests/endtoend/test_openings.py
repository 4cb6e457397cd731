"""
The corpora of what connections begin with (L{tests.hostile.openings}) before
the daemon itself, with servers that write down what reaches them.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket

from attrs import evolve, frozen

from tests.endtoend.certificates import TlsCase, listener_tls
from tests.endtoend.daemon import Daemon, endpoint
from tests.endtoend.harness import (
    BOUND,
    LOOPBACK,
    EndToEndCase,
    accepts,
    free_port,
    program,
    until_end,
    wait_until,
)
from tests.hostile.openings import HELLOS, PREFACES, PrefaceCase

REQUEST = b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

_HAPROXY = """
defaults
 mode tcp
 timeout connect 15s
 timeout client 15s
 timeout server 15s
listen front
 bind 127.0.0.1:{front}
 server back 127.0.0.1:{back} send-proxy-v2 proxy-v2-options crc32c,unique-id
"""


@frozen
class Seen:
    """
    What became of a connection.

    @ivar server: that got it; C{None} for none.
    @ivar data: all that the server got.
    @ivar answer: all that the client got.
    """

    server: int | None = None
    data: bytes = b""
    answer: bytes = b""


class Servers:
    """
    Listens on loopback; what comes is taken by the test itself.
    """

    def __init__(self, case: EndToEndCase, count: int) -> None:
        self._listening = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
        for each in self._listening:
            case.addCleanup(each.close)

    def __getitem__(self, index: int) -> str:
        """The address of one."""
        host, port = self._listening[index].getsockname()
        return f"{host}:{port}"

    def play(
        self, port: int, sent: bytes, ends: bool = True, source: str = LOOPBACK
    ) -> tuple[Seen, int]:
        """
        A client that says C{sent} and no more.

        @param ends: whether it says that it is no more.
        @param source: its address.
        @return: what became of it, and its port.
        """
        with socket.create_connection((LOOPBACK, port), BOUND, (source, 0)) as client:
            mine: int = client.getsockname()[1]
            with contextlib.suppress(OSError):
                client.sendall(sent)
                if ends:
                    client.shutdown(socket.SHUT_WR)
            ready, _, _ = select.select([client, *self._listening], [], [], BOUND)
            assert ready, f"nothing becomes of {sent[:60]!r}"
            server, data = None, b""
            if client not in ready:
                server = self._listening.index(ready[0])
                with ready[0].accept()[0] as skt:
                    skt.settimeout(BOUND)
                    while not data.endswith(b"\r\n\r\n") and (more := skt.recv(65536)):
                        data += more
                    skt.sendall(ANSWER)
            return Seen(server, data, until_end(client)), mine

    def nobody_waits(self) -> bool:
        """Whether no connection has come that was not taken."""
        return not select.select(self._listening, [], [], 0)[0]


class PrefaceTests(EndToEndCase):
    """Where a PROXY header is due."""

    def setUp(self) -> None:
        self.servers = Servers(self, 1)
        servers = f'[{{ address = "{self.servers[0]}", max_fails = 0 }}]'
        self.daemon = Daemon(
            self,
            servers=servers,
            http={"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]},
            stream={"proxy_protocol": True, "upstream": "told"},
            more=f"[upstreams.told]\nproxy_protocol = 1\nservers = {servers}\n",
        )

    def refused(self, case: PrefaceCase, seen: Seen) -> list[str]:
        """What is wrong with the end of a connection that has to be closed."""
        due = case.broken or f"it ends after {len(case.sent)} bytes"
        before = len(self.reasons)
        wrong = [] if seen == Seen() else [f"{case.name}: {seen}"]
        log = self.daemon.process
        lines = wait_until(
            lambda: log.lines_with("broken header from")[before:], f"the log of {case.name}"
        )
        self.reasons += lines
        if len(lines) != 1 or not re.search(f"{LOOPBACK}.*: .*{due}", lines[0]):
            wrong.append(f"{case.name}: {lines}")
        return wrong

    def test_http(self) -> None:
        """A server hears of the client that the header names, or of nobody at all."""
        self.reasons: list[str] = []
        wrong: list[str] = []
        for case in PREFACES:
            due = case.source[0] if case.source else LOOPBACK
            sent = case.sent + REQUEST * case.is_read
            seen, _ = self.servers.play(self.daemon.http, sent, ends=case.waits)
            if not case.is_read:
                wrong += self.refused(case, seen)
            elif case.own:
                # Which is no request.
                if seen.server is not None or b" 400 " not in seen.answer:
                    wrong.append(f"{case.name}: {seen}")
            elif f"\r\nX-Real-IP: {due}\r\n".encode() not in seen.data or seen.answer != ANSWER:
                wrong.append(f"{case.name}: {seen}")
        self.assertEqual([], wrong, "\n".join(wrong))
        self.assertTrue(self.servers.nobody_waits())

    def test_stream(self) -> None:
        """A server is told of the client that the header names, and gets what was behind it."""
        self.reasons = []
        wrong: list[str] = []
        for case in PREFACES:
            seen, port = self.servers.play(self.daemon.stream, case.sent + REQUEST * case.is_read)
            if not case.is_read:
                wrong += self.refused(case, seen)
                continue
            host, port = case.source or (LOOPBACK, port)
            line, _, rest = seen.data.partition(b"\r\n")
            told = re.fullmatch(r"PROXY TCP[46] (\S+) \S+ (\d+) \d+", line.decode())
            if told is None or told.groups() != (host, str(port)):
                wrong.append(f"{case.name}: {line!r}")
            if rest != case.own + REQUEST or seen.answer != ANSWER:
                wrong.append(f"{case.name}: {seen}")
        self.assertEqual([], wrong, "\n".join(wrong))
        self.assertTrue(self.servers.nobody_waits())

    def test_not_believed(self) -> None:
        """From a stranger the header is read to the byte, and not believed."""
        self.daemon.edit('["127.0.0.0/8"]', '["10.0.0.0/8"]')
        self.daemon.reload()
        for case in PREFACES:
            if case.source and not case.own:
                seen, _ = self.servers.play(self.daemon.http, case.sent + REQUEST, ends=False)
                self.assertIn(f"\r\nX-Real-IP: {LOOPBACK}\r\n".encode(), seen.data, case.name)
                self.assertEqual(ANSWER, seen.answer, case.name)

    def test_haproxy(self) -> None:
        """HAProxy's own header with a checksum is believed."""
        directory = self.directory("haproxy")
        port = free_port()
        file = os.path.join(directory, "haproxy.cfg")
        with open(file, "w") as out:
            out.write(_HAPROXY.format(front=port, back=self.daemon.http))
        haproxy = self.start("haproxy", [program("haproxy"), "-db", "-f", file], directory)
        haproxy.until(lambda: accepts(port), "listens")
        seen, _ = self.servers.play(port, REQUEST, ends=False, source="127.0.0.2")
        self.assertIn(b"\r\nX-Real-IP: 127.0.0.2\r\n", seen.data)
        self.assertEqual(ANSWER, seen.answer)


class HelloTests(TlsCase):
    """Where the name in a ClientHello leads."""

    def setUp(self) -> None:
        super().setUp()
        self.servers = Servers(self, 3)
        at = '[{{ address = "{}", max_fails = 0 }}]'
        self.ended = free_port(), free_port()
        pools = [
            f"[upstreams.{name}]\nservers = {at.format(self.servers[index])}\n"
            for index, name in enumerate("ab", 1)
        ]
        self.daemon = Daemon(
            self,
            servers=at.format(self.servers[0]),
            more='[stream.sni_routes]\n"a.example" = "a"\n"b.example" = "b"\n'
            f'[[http]]\nlisten = "{endpoint(self.ended[0])}"\n{listener_tls("http", self.pair)}'
            f'[[stream]]\nlisten = "{endpoint(self.ended[1])}"\n{listener_tls("stream", self.pair)}'
            + "".join(pools),
        )

    def test_led(self) -> None:
        """The server of the name, or that of none, gets every byte."""
        wrong: list[str] = []
        ways = {"a.example": 1, "b.example": 2}
        for case in HELLOS:
            seen, _ = self.servers.play(self.daemon.stream, case.sent)
            due = Seen(ways.get(case.server_name, 0), case.sent, ANSWER)
            if seen != due:
                wrong.append(f"{case.name}: {evolve(seen, data=seen.data[:99])}")
        self.assertEqual([], wrong, "\n".join(wrong))
        self.assertTrue(self.servers.nobody_waits())

    def test_ended_here(self) -> None:
        """Where TLS ends here there is an alert or silence, and no server hears of it."""
        for port in self.ended:
            for case in HELLOS:
                seen, _ = self.servers.play(port, case.sent)
                self.assertIs(None, seen.server, case.name)
                self.assertNotIn(b"HTTP", seen.answer, case.name)
                self.assertIn(seen.answer[:1], (b"", b"\x15", b"\x16"), case.name)
        self.assertTrue(self.servers.nobody_waits())
        seen, _ = self.servers.play(self.daemon.http, REQUEST, ends=False)
        self.assertEqual(ANSWER, seen.answer)
