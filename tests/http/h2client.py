"""
A client that speaks HTTP/2 to a listener of L{tests.http.world}, without TLS.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes

from dynbalance.http.http2 import Http2Client, Http2Clients
from tests.http.world import HttpTestCase, World


class Http2World(World):
    """A world whose clients speak HTTP/2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.port.stopListening()
        self.pump()
        self.port = self.hub.listenTCP(0, Http2Clients(self.listener), interface="127.0.0.1")

    def h2(self, window: int = 65535) -> H2:
        return H2(self, window)

    @property
    def connection(self) -> Http2Client:
        """Our end of the only client."""
        (client,) = self.listener.channels
        assert isinstance(client, Http2Client)
        return client


class H2:
    """
    @ivar heads: of the responses, by stream.
    @ivar informed: statuses of the informational ones.
    @ivar bodies: what came of them.
    @ivar ended: streams whose response is whole.
    @ivar resets: why others, or these, were given up.
    @ivar opened: by how much our windows grew.
    @ivar farewells: codes of the connection's end.
    """

    def __init__(self, world: Http2World, window: int = 65535) -> None:
        self.wire = world.client()
        self.world = world
        self.conn = H2Connection(H2Configuration(header_encoding="latin-1"))
        self.conn.config.validate_outbound_headers = False
        self.conn.config.normalize_outbound_headers = False
        self.conn.initiate_connection()
        if window != 65535:
            self.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.heads: dict[int, dict[str, str]] = {}
        self.informed: list[str] = []
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.resets: dict[int, ErrorCodes] = {}
        self.opened: dict[int, int] = {}
        self.farewells: list[ErrorCodes] = []
        self.acknowledges = True
        self.flush()

    def flush(self) -> None:
        self.wire.send(self.conn.data_to_send())

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        more: tuple[tuple[str, str], ...] = (),
        body: bytes | None = None,
        ends: bool = True,
    ) -> int:
        """@return: the new stream."""
        stream: int = self.conn.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "https")]
        fields += [(":authority", "a.example"), *more]
        self.conn.send_headers(stream, fields, end_stream=body is None and ends)
        if body is not None:
            self.conn.send_data(stream, body, end_stream=ends)
        self.flush()
        return stream

    def say(self, stream: int, data: bytes, end: bool = False) -> None:
        """More of a body, which may be longer than a frame."""
        for at in range(0, len(data), 16384):
            self.conn.send_data(stream, data[at : at + 16384])
        if end:
            self.conn.end_stream(stream)
        self.flush()

    def look(self) -> H2:
        """Take what came."""
        for _ in range(200):
            data = self.wire.take()
            if not data:
                break
            for event in self.conn.receive_data(data):
                self._note(event)
            self.flush()
        return self

    def _note(self, event: Any) -> None:
        if isinstance(event, ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)
            self.bodies[event.stream_id] = b""
        elif isinstance(event, InformationalResponseReceived):
            self.informed.append(dict(event.headers)[":status"])
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.acknowledges:
                size = event.flow_controlled_length
                self.conn.acknowledge_received_data(size, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.append(event.stream_id)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, WindowUpdated):
            before = self.opened.get(event.stream_id, 0)
            self.opened[event.stream_id] = before + event.delta
        elif isinstance(event, ConnectionTerminated):
            self.farewells.append(event.error_code)

    def status(self, stream: int) -> str:
        self.look()
        return self.heads[stream][":status"]


class Http2TestCase(HttpTestCase):
    """As L{HttpTestCase}."""

    def h2_world(self, *args: Any, **kwargs: Any) -> Http2World:
        world = Http2World(*args, **kwargs)
        self._worlds.append(world)
        return world
