"""
Clients that speak HTTP/2, which they agree on by TLS.

hyper-h2 keeps the state of the connection and its streams; what it is given,
L{dynbalance.http.http2frames} has looked at before.  Each request is a
L{Stream} and has an exchange of its own, as any request of HTTP/1.1; this
module knows which stream may send next, and when the connection ends.

A client's windows are opened again as its bytes are taken by servers, each
stream's alone: one whose server is slow holds up no other.  Trailers of
requests end here, like those of HTTP/1.1; responses have none.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hyperframe.frame import GoAwayFrame
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone

from dynbalance.http.clientconnection import LINGER
from dynbalance.http.http2frames import CUT, GOAWAY, BadFrames, Frame, FrameReader
from dynbalance.http.http2stream import Stream
from dynbalance.http.http2terms import STREAMS, begun
from dynbalance.log import Logger
from dynbalance.net.clienthost import host_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from dynbalance.http.http2fields import Pair
    from dynbalance.http.listener import HttpListener

_AT_ONCE = 65536
"""Bytes that are given to the transport in one go."""

_OF_RESPONSE, _OF_REQUEST = 2.0, 4.0
"""Frames that a client may answer each frame of a response and each response with."""


class Http2Clients(ServerFactory):
    """
    Makes an L{Http2Client} for each client of a listener that wants HTTP/2.
    """

    noisy = False

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self._listener.admits():
            return None
        client = Http2Client(self._listener, host_of(addr))
        self._listener.channels.add(client)
        return client


class Http2Client(Protocol):
    """
    @ivar client: the peer's address, without a port.
    @ivar suffix: see L{dynbalance.http.channel.Channel}.
    @ivar streams: whose response is not sent to its end, by number.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    transport: Any
    _log = Logger()

    def __init__(self, listener: HttpListener, client: str) -> None:
        self.listener = listener
        self.client = client
        self.suffix = listener.forwarding.origin(client, listener.scheme, b"").fields
        self.streams: dict[int, Stream] = {}
        self.deadline = inf
        self.due = inf
        self._requests = 0
        most = listener.settings.max_header_size
        self._frames = FrameReader(2 * most, listener.deadlines.now)
        self._h2 = begun(most)
        # Streams that have something to send and, as far as is known, a window.
        self._ready: deque[Stream] = deque()
        self._sending = False
        # The transport takes no more.
        self._blocked = False
        self._draining = False
        # Nothing is read or written any more; what waited for the client at
        # the last look.
        self._over = False
        self._unsent = 0

    def __repr__(self) -> str:
        return f"<Http2Client {self.client} {len(self.streams)} streams>"

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self._flush()
        self.listener.deadlines.set(self, self.listener.settings.client_header_timeout)
        if self.listener.draining:
            # It shook hands meanwhile.
            self.drain()

    # Reading

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except BadFrames as bad:
            self._log.debug("{client}: {why}", client=self.client, why=bad)
            self._leave(bad.code)
        except H2Error as failed:
            self._log.debug("{client}: {why}", client=self.client, why=failed)
            # It has its farewell ready.
            self._leave(None)
        else:
            self._flush()

    def _take(self, frame: Frame) -> None:
        if self._over:
            return
        if frame.kind == GOAWAY:
            # To hyper-h2 it is the end; but what was asked for is to be answered.
            self.drain()
            return
        for event in self._h2.receive_data(frame.whole):
            self._heard(event)

    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._begin(event)
        elif isinstance(event, events.DataReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.body(event.data, event.flow_controlled_length)
            else:
                self._taken(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            stream = self.streams.get(event.stream_id)
            if stream is not None and not stream.heard_all:
                stream.body_ended()
        elif isinstance(event, events.StreamReset):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                self._close(stream)
        elif isinstance(event, events.WindowUpdated):
            if event.stream_id in self.streams:
                self.wants_to_send(self.streams[event.stream_id])
            elif not event.stream_id:
                self._send()
        elif isinstance(event, events.RemoteSettingsChanged):
            # All windows may have grown.
            for stream in list(self.streams.values()):
                self.wants_to_send(stream)

    def _begin(self, event: events.RequestReceived) -> None:
        if self._draining or len(self.streams) >= STREAMS:
            self._frames.spend()
            self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self.listener.deadlines.clear(self)
        stream = self.streams[event.stream_id] = Stream(self, event.stream_id)
        self._requests += 1
        settings = self.listener.settings
        stream.begin(event.headers, event.stream_ended is None)
        last = self._requests >= settings.keepalive_requests or not settings.keepalive_timeout
        if last or self.listener.draining:
            self.drain()

    # What the streams tell

    def taken(self, stream: Stream, size: int) -> None:
        """So many bytes of its body were handed on."""
        self._taken(stream.number, size)
        self._flush()

    def _taken(self, number: int, size: int) -> None:
        if size and not self._over:
            self._h2.acknowledge_received_data(size, number)

    def send_head(self, stream: Stream, fields: tuple[Pair, ...], end: bool) -> None:
        """@param end: nothing follows."""
        if self._over:
            return
        self._h2.send_headers(stream.number, fields, end_stream=end)
        if end:
            self._sent_all(stream)
        self._flush()

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """Give the stream up."""
        if not self._over:
            self._h2.reset_stream(stream.number, code)
        self._close(stream)
        self._flush()

    def wants_to_send(self, stream: Stream) -> None:
        """It has got something, or a window for what it has."""
        if (stream.pending or stream.finished) and stream not in self._ready:
            self._ready.append(stream)
        self._send()

    # Sending

    def _send(self) -> None:
        """Each stream in turn sends a frame, as long as somebody takes them."""
        if self._sending or self._over:
            return
        self._sending = True
        ready, size = self._ready, 0
        while ready and not (self._blocked or self._over):
            stream = ready.popleft()
            room = self._h2.local_flow_control_window(stream.number)
            if stream.pending and room <= 0:
                if self._h2.outbound_flow_control_window <= 0:
                    # Nobody may; its turn stays the next.
                    ready.appendleft(stream)
                    break
                # Who opens its window wakes it.
                continue
            size += self._send_frame(stream, room)
            if size >= _AT_ONCE:
                size = 0
                self._write_out()
        self._sending = False
        self._write_out()

    def _send_frame(self, stream: Stream, room: int) -> int:
        data = b""
        if stream.pending:
            data = stream.take(min(room, self._h2.max_outbound_frame_size))
        end = stream.finished and not stream.pending
        self._h2.send_data(stream.number, data, end_stream=end)
        if not stream.pending or len(data) >= CUT:  # not what a tiny window lets through
            self._frames.earn(_OF_RESPONSE)
        if end:
            self._sent_all(stream)
        else:
            if stream.pending:
                self._ready.append(stream)
            stream.was_sent()
        return len(data)

    def _sent_all(self, stream: Stream) -> None:
        if not stream.heard_all:
            # RFC 9113 section 8.1: the rest of the request is not asked for.
            self._h2.reset_stream(stream.number, ErrorCodes.NO_ERROR)
        stream.finished = True
        self._frames.earn(_OF_REQUEST)
        self._close(stream)

    def _flush(self) -> None:
        if not self._sending:
            self._write_out()

    def _write_out(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.transport.write(data)

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self._blocked = True

    def resumeProducing(self) -> None:
        self._blocked = False
        self._send()

    def stopProducing(self) -> None:
        """The transport is going; C{connectionLost} follows."""

    # The end

    def _close(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        if stream in self._ready:
            self._ready.remove(stream)
        stream.close()
        if self.streams or self._over:
            return
        if self._draining:
            self._leave(ErrorCodes.NO_ERROR)
        else:
            self.listener.deadlines.set(self, self.listener.settings.keepalive_timeout)

    def retire(self) -> None:
        """As L{drain}, if a request is under way; otherwise the next one is the last."""
        if self.streams:
            self.drain()

    def drain(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        if self._draining or self._over:
            return
        self._draining = True
        if not self.streams:
            self._leave(ErrorCodes.NO_ERROR)
            return
        self._flush()
        self.transport.write(self._farewell(ErrorCodes.NO_ERROR))

    def _farewell(self, code: ErrorCodes) -> bytes:
        # Not by hyper-h2: to it, this would be the end of everything.
        last = self._h2.highest_inbound_stream_id
        return GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()

    def _leave(self, code: ErrorCodes | None) -> None:
        """
        Close, with all streams.

        While the client may still be sending, first only our side is closed,
        as L{dynbalance.http.channel.Channel} does.

        @param code: what is said of it; C{None} for what was said already.
        """
        if self._over:
            return
        self._write_out()
        if code is not None:
            self.transport.write(self._farewell(code))
        self._over = True
        for stream in list(self.streams.values()):
            self._close(stream)
        self.transport.unregisterProducer()
        self._unsent = self.transport.queued
        self.listener.deadlines.set(self, LINGER)
        self.transport.loseWriteConnection()

    def deadline_passed(self) -> None:
        if not self._over:
            self._leave(ErrorCodes.NO_ERROR)
            return
        unsent, self._unsent = self._unsent, self.transport.queued
        if self._unsent < unsent:
            # It takes the rest slowly, but it takes it.
            self.listener.deadlines.set(self, LINGER)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        for stream in list(self.streams.values()):
            self._close(stream)
        self.listener.deadlines.forget(self)
        self.listener.channels.discard(self)
        self.listener.closed(self)
