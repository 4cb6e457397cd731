"""
HTTP/2 frame by frame: windows, resets, and the end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from tests.endtoend.certificates import TlsCase, listener_tls
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, wait_until
from tests.endtoend.servers import Backend
from tests.net.authority import client_context


class Client:
    """
    @ivar bodies: what came of each stream.
    @ivar ended: streams whose response is whole.
    @ivar events: all other ones.
    """

    def __init__(self, case: Http2Tests, window: int = 65535) -> None:
        context = client_context(case.authority.file, alpn=["h2"])
        plain = socket.create_connection((LOOPBACK, case.daemon.http), 10)
        self.socket: ssl.SSLSocket = context.wrap_socket(plain, server_hostname="a.example")
        case.addCleanup(self.socket.close)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = H2Connection(H2Configuration(header_encoding="ascii"))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.statuses: dict[int, str] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.events: list[Event] = []
        self.closed = False
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> int:
        """@return: the new stream."""
        stream: int = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "https")]
        fields.append((":authority", "a.example"))
        self.bodies[stream] = bytearray()
        self.h2.send_headers(stream, fields, end_stream=body is None)
        self.flush()
        while body:
            room = min(
                self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size
            )
            if not room:
                self.read()
                continue
            self.h2.send_data(stream, body[:room])
            self.flush()
            body = body[room:]
        if body is not None:
            self.h2.end_stream(stream)
            self.flush()
        return stream

    def read(self, acknowledge: bool = True) -> None:
        """Take what comes next."""
        data = self.socket.recv(65536)
        self.closed = not data
        for event in self.h2.receive_data(data) if data else ():
            if isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                if acknowledge:
                    size = event.flow_controlled_length
                    self.h2.acknowledge_received_data(size, event.stream_id)
            elif isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            else:
                self.events.append(event)
        if not self.closed:
            self.flush()

    def until_ended(self, *streams: int) -> None:
        while not self.ended.issuperset(streams):
            self.read()
            assert not self.closed


class Http2Tests(TlsCase):
    """A client that counts its windows."""

    def setUp(self) -> None:
        super().setUp()
        self.backend = Backend(self)
        self.daemon = Daemon(self, more=listener_tls("http", self.pair))
        self.daemon.add(self.backend.port)

    def test_small_windows(self) -> None:
        """Large bodies pass through small windows, both ways and on several streams."""
        client = Client(self, window=1000)
        body = os.urandom(300_000)
        streams = [client.ask("/echo", "POST", body) for _ in range(3)]
        client.until_ended(*streams)
        for stream in streams:
            self.assertEqual("200", client.statuses[stream])
            self.assertEqual(body, bytes(client.bodies[stream]))

    def test_stalled_client(self) -> None:
        """Who takes nothing holds up its server, not the others, and costs no time or memory."""
        client = Client(self, window=2**31 - 1)
        stalled = client.ask(f"/flow/{256 << 20}")
        while not client.bodies[stalled]:
            client.read(acknowledge=False)
        time.sleep(0.3)
        flowed, used, size = self.backend.told("/flowed"), self._cpu(), self.daemon.process.memory()
        time.sleep(0.5)
        self.assertEqual(flowed, self.backend.told("/flowed"))
        self.assertLess(flowed, 64 << 20)
        self.assertLess(self._cpu() - used, 0.2)
        self.assertLess(size, 200 << 20)
        other = Client(self)
        other.until_ended(other.ask("/"))

    def test_closed_window(self) -> None:
        """Waiting for a window to open is no work."""
        client = Client(self, window=10)
        stream = client.ask("/echo", "POST", b"0123456789abcdef")
        while len(client.bodies[stream]) < 10:
            client.read(acknowledge=False)
        used = self._cpu()
        time.sleep(0.5)
        self.assertLess(self._cpu() - used, 0.2)
        client.h2.increment_flow_control_window(100, stream)
        client.flush()
        client.until_ended(stream)
        self.assertEqual(b"0123456789abcdef", bytes(client.bodies[stream]))

    def test_reset(self) -> None:
        """A stream that the client gives up is given up at the server; others go on."""
        client = Client(self)
        held = client.ask("/held")
        wait_until(lambda: self.backend.told("/waiting") == 1, "the request")
        client.h2.reset_stream(held)
        client.flush()
        wait_until(lambda: self.daemon.counts() == {self.backend.address: 0}, "the slot")
        client.until_ended(client.ask("/"))

    def test_rubbish(self) -> None:
        """Who agrees on HTTP/2 and speaks something else is closed; so are frames that lie."""
        rude = client_context(self.authority.file, alpn=["h2"])
        plain = socket.create_connection((LOOPBACK, self.daemon.http), 10)
        with rude.wrap_socket(plain, server_hostname="a.example") as client_socket:
            client_socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while client_socket.recv(65536):
                pass
        for data in (b"\0" * 100, b"\0\0\x08\x06\0\0\0\0\x01" + b"x" * 8):
            client = Client(self)
            client.read()
            client.socket.sendall(data)
            with contextlib.suppress(ConnectionError):
                while client.socket.recv(65536):
                    pass
        client = Client(self)
        client.until_ended(client.ask("/"))

    def test_many_resets(self) -> None:
        """Streams that are opened and given up at once leave nothing behind."""
        client = Client(self)
        for _ in range(300):
            stream = client.ask("/held")
            client.h2.reset_stream(stream)
        client.flush()
        client.until_ended(client.ask("/"))
        wait_until(lambda: self.daemon.counts() == {self.backend.address: 0}, "the slots")

    def test_requests_that_lie(self) -> None:
        """What HTTP/1.1 may not carry to a server is refused."""
        client = Client(self)
        cases = (
            ("/", {"x-a": "b\rc"}), ("/", {"host": "b.example"}), ("/a b", {}), ("x", {}),
            ("/", {"transfer-encoding": "chunked"}),
        )  # fmt: skip
        for path, more in cases:
            client = Client(self)
            client.h2.config.validate_outbound_headers = False
            client.h2.config.normalize_outbound_headers = False
            stream = client.h2.get_next_available_stream_id()
            client.bodies[stream] = bytearray()
            fields = [(":method", "GET"), (":path", path), (":scheme", "https")]
            fields += [(":authority", "a.example"), *more.items()]
            client.h2.send_headers(stream, fields, end_stream=True)
            client.flush()
            with contextlib.suppress(ConnectionError):
                while not (client.closed or stream in client.ended):
                    client.read()
            self.assertIn(client.statuses.get(stream, "400"), ("400",), (path, more))

    def test_broken_response(self) -> None:
        """A response that breaks off resets its stream, and no other."""
        client = Client(self)
        broken = client.ask(f"/flow/{256 << 20}")
        while not client.bodies[broken]:
            client.read()
        self.backend.process.kill()
        while not any(isinstance(event, StreamReset) for event in client.events):
            client.read()
        self.assertNotIn(broken, client.ended)
        stream = client.ask("/")
        client.until_ended(stream)
        self.assertEqual("502", client.statuses[stream])

    def test_idle(self) -> None:
        """A connection that asks for nothing is closed after C{keepalive_timeout}."""
        self.daemon = Daemon(
            self,
            name="impatient",
            http={"keepalive_timeout": 0.5, "client_header_timeout": 0.5, "mount_admin": True},
            more='hosts = ["a.example"]\n' + listener_tls("http", self.pair),
        )
        self.daemon.add(self.backend.port)
        client, silent = Client(self), Client(self)
        client.until_ended(client.ask("/"))
        slow = client.ask("/held")
        wait_until(lambda: self.backend.told("/waiting") == 1, "the request")
        time.sleep(1.0)
        self.backend.told("/release")
        client.until_ended(slow)
        status = client.ask("/upstream/health")
        client.until_ended(status)
        self.assertIn(b'"code":200', client.bodies[status])
        for each in (client, silent):
            while not each.closed:
                each.read()
            self.assertTrue(any(isinstance(e, ConnectionTerminated) for e in each.events))

    def test_end(self) -> None:
        """At the daemon's end a client hears of it, gets its answer, and is closed."""
        client, idle = Client(self), Client(self)
        idle.until_ended(idle.ask("/"))
        held = client.ask("/held")
        wait_until(lambda: self.backend.told("/waiting") == 1, "the request")
        self.daemon.process.signal(15)
        while not any(isinstance(event, ConnectionTerminated) for event in idle.events):
            idle.read()
        self.backend.told("/release")
        # To this library nothing may come behind a farewell: the frames are read by hand.
        data = b"".join(iter(lambda: client.socket.recv(65536), b""))
        self.assertIn(b"backend", data)
        self.assertNotIn(held, client.ended)
        self.assertEqual(0, self.daemon.process.wait())

    def _cpu(self) -> float:
        """Seconds of processor time that the daemon has used."""
        with open(f"/proc/{self.daemon.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
