"""
Clients that speak HTTP/2, which they agree on by TLS.

L{twisted.web} speaks the protocol; what lies between is decided as for
L{dynbalance.http.channel}: the listener's routes, fields, limits and access
log, and the same exchange.  A request is passed on once its body is here, as
twisted.web has it, and trailers go neither way.

Twisted keeps its connection class private, and it has no other that knows when
a stream ends.  What is taken up here beside that: a drain, a bound to what
waits for a slow client, and frames of streams that are over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import priority  # type: ignore[import-untyped]
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.web._http2 import _END_STREAM_SENTINEL as END
from twisted.web._http2 import H2Connection
from twisted.web.http import Request

from dynbalance.http.channel import STALL
from dynbalance.http.http2stream import Stream
from dynbalance.http.listener import host_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from dynbalance.http.listener import HttpListener
    from dynbalance.net.hub import Hub

_AHEAD = 262144
"""Bytes of one response that may wait for the client."""

_BURST = 16
"""Frames that are sent before anybody else's turn comes."""


class Http2Clients(ServerFactory):
    """
    Makes an L{Http2Client} for each client of a listener that wants HTTP/2.
    """

    noisy = False

    def __init__(self, listener: HttpListener, hub: Hub) -> None:
        self._listener = listener
        self._hub = hub

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if not self._listener.admits():
            return None
        client = Http2Client(self._listener, self._hub, host_of(addr))
        self._listener.channels.add(client)
        return client


class Http2Client(H2Connection):
    """
    @ivar client: the peer's address, without a port.
    @ivar suffix: see L{dynbalance.http.channel.Channel}.
    @ivar under_way: requests that are being answered.
    """

    transport: Any
    callLater: Any
    timeOut: Any

    def __init__(self, listener: HttpListener, hub: Hub, client: str) -> None:
        super().__init__(hub)
        self.listener = listener
        self.client = client
        self.suffix = listener.forwarding.origin(client, listener.scheme, b"").fields
        self.under_way: set[Stream] = set()
        self.requestFactory = _Request
        self.callLater = hub.callLater
        self.timeOut = listener.settings.client_header_timeout
        self._requests = 0
        self._draining = False
        # Streams with more waiting than is good.
        self._full: set[int] = set()

    def __repr__(self) -> str:
        return f"<Http2Client {self.client} {len(self.streams)} streams>"

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self.streams

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.registerProducer(self, True)
        if self.listener.draining:
            # It shook hands meanwhile.
            self.drain()

    # Streams

    def _requestReceived(self, event: Any) -> None:
        if self._draining:
            if self._stillProducing:
                self.conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        super()._requestReceived(event)
        self.setTimeout(STALL)
        settings = self.listener.settings
        self._requests += 1
        last = self._requests >= settings.keepalive_requests or not settings.keepalive_timeout
        if last or self.listener.draining:
            self.drain()

    # One read may bring frames of a stream that ended by an earlier one.

    def _requestDataReceived(self, event: Any) -> None:
        if event.stream_id in self.streams:
            super()._requestDataReceived(event)

    def _requestEnded(self, event: Any) -> None:
        if event.stream_id in self.streams:
            super()._requestEnded(event)

    def _requestAborted(self, event: Any) -> None:
        if event.stream_id in self.streams:
            super()._requestAborted(event)

    def _requestDone(self, streamID: int) -> None:
        super()._requestDone(streamID)
        self._full.discard(streamID)
        if self.streams or not self._stillProducing:
            return
        if self._draining:
            self._leave()
        else:
            self.setTimeout(self.listener.settings.keepalive_timeout)

    # Sending

    def remainingOutboundWindow(self, streamID: int) -> int:
        """
        Bytes that a stream may still be given.  The client's window alone is
        no bound to what we keep for it.
        """
        queued = sum(len(each) for each in self._outboundStreamQueues[streamID] if each is not END)
        window: int = self.conn.local_flow_control_window(streamID)
        if queued >= _AHEAD:
            self._full.add(streamID)
        return min(window, _AHEAD) - queued

    def _handleWindowUpdate(self, event: Any) -> None:
        super()._handleWindowUpdate(event)
        waiting, self._sendingDeferred = self._sendingDeferred, None
        if waiting is not None:
            waiting.callback(None)

    def _sendPrioritisedData(self, *args: object) -> None:
        """Send frames in the order of their streams' priorities, until none is left."""
        for _ in range(_BURST):
            if not self._stillProducing:
                return
            try:
                stream = next(self.priority)
            except priority.DeadlockError:
                self._sendingDeferred = Deferred()
                self._sendingDeferred.addCallback(self._sendPrioritisedData)
                return
            if self._consumerBlocked is not None:
                self._consumerBlocked.addCallback(self._sendPrioritisedData)
                return
            self.resetTimeout()
            self._send_frame(stream)
        self._reactor.callLater(0, self._sendPrioritisedData)

    def _send_frame(self, stream: int) -> None:
        queue = self._outboundStreamQueues[stream]
        if queue[0] is END:
            self.conn.end_stream(stream)
            self.transport.write(self.conn.data_to_send())
            self._requestDone(stream)
            return
        room = min(
            self.conn.max_outbound_frame_size, self.conn.local_flow_control_window(stream)
        )
        if room > 0:
            data = queue.popleft()
            if len(data) > room:
                queue.appendleft(data[room:])
                data = data[:room]
            if data:
                self.conn.send_data(stream, data)
                self.transport.write(self.conn.data_to_send())
        if not queue or room <= 0:
            # Whoever writes next, or opens the window, wakes it.
            self.priority.block(stream)
        if stream in self._full and self.remainingOutboundWindow(stream) > 0:
            self._full.discard(stream)
            self.streams[stream].windowUpdated()

    # The end

    def drain(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        if self._draining:
            return
        self._draining = True
        if not self.streams:
            self._leave()
            return
        # Not by the state machine: to it, this would be the end of everything.
        last = self.conn.highest_inbound_stream_id
        self.transport.write(GoAwayFrame(0, last_stream_id=last).serialize())

    def timeoutConnection(self) -> None:
        if any(not stream.paused for stream in self.under_way):
            # It is a server's move, which has a deadline of its own.
            self.setTimeout(STALL)
        else:
            self._leave()

    def _leave(self) -> None:
        self._draining = True
        self._stillProducing = False
        self.conn.close_connection()
        self.transport.write(self.conn.data_to_send())
        self.setTimeout(None)
        if self._abortingCall is None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def forceAbortClient(self) -> None:
        self._abortingCall = None
        self.transport.abortConnection()

    def connectionLost(
        self, reason: Failure = connectionDone, _cancelTimeouts: bool = True
    ) -> None:
        super().connectionLost(reason, _cancelTimeouts)
        if _cancelTimeouts:
            self.listener.channels.discard(self)
            self.listener.closed(self)
        else:
            # It said farewell; with a producer the transport would wait for more.
            self.transport.unregisterProducer()


class _Request(Request):
    """What twisted.web tells of a request, without a look into its body."""

    channel: Any
    content: Any
    _limit = -1

    def handleContentChunk(self, data: bytes) -> None:
        if self._limit < 0:
            self._limit = self._max_body()
        # One piece too much is kept, which tells whoever looks at the size.
        if not self._limit or self.content.tell() <= self._limit:
            super().handleContentChunk(data)

    def _max_body(self) -> int:
        listener = self.channel._conn.listener
        path = (self.channel.path or b"").partition(b"?")[0]
        if listener.mounted is not None and path.startswith(b"/upstream/"):
            limit: int = listener.mounted.max_body
        else:
            host = self.requestHeaders.getRawHeaders(b"host") or [b""]
            limit = listener.upstream_for(host[0], path).settings.client_max_body_size
        return limit

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        self.process()

    def process(self) -> None:
        Stream(self, self.channel._conn).begin()
