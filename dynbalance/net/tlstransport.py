"""
TLS on a connection: the protocol of the transport beneath it, and the
transport of the protocol above it.

Twisted's own layer is not used here, for three reasons: it goes on delivering
after C{pauseProducing}, what a session between two connections cannot have; it
ends a connection at the first C{close_notify}, so that half of it cannot be
closed; and it writes on the reactor's next turn.  This one writes through, as
the transports of L{dynbalance.net.transport} do, and keeps nothing that was
written: the bytes that a slow peer has not taken wait beneath, where the
producers are.

Knows records and the two ends of a connection; refuses to know certificates,
which are L{dynbalance.net.tls}'s.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dynbalance.net.pemfiles import reasons
from dynbalance.net.stacked import Stacked
from dynbalance.net.tls import Refused, expected_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

LINGER = 5.0
"""Seconds that a server has to take our end, if it was not heard before."""

_RECORD = 16384


class Above(typing.Protocol):
    """Who waits for a handshake."""

    def established(self, transport: TlsTransport) -> None:
        """The peer is who it should be: attach a protocol, or close."""

    def handshake_failed(self, why: str) -> None:
        """It is not, or it went; the connection is being closed."""


@implementer(INegotiated, IPushProducer, IConsumer, IHalfCloseableProtocol)
class TlsTransport(Stacked):
    """
    @param connection: whose state says which side we are.
    @param clock: calls later.
    @param peer: see L{Stacked}.
    @param linger: the peer may say something after the handshake that is not
        for the protocol, as servers do with their tickets.  To close with that
        unread would be a reset, and cost the peer what we have written.
    @ivar disconnecting: we were asked to close.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        clock: IReactorTime,
        above: Above,
        peer: Any = None,
        linger: bool = False,
    ) -> None:
        super().__init__(peer)
        self.disconnecting = False
        self._connection = connection
        self._clock = clock
        # Gone once it was told, so that no circle is left of the two.
        self._above: Above | None = above
        self._protocol: Any = None
        self._established = False
        # No TLS any more: whatever still comes or is written is dropped.
        self._broken = False
        # Each side has said its last: the peer, we, and the peer's TCP.
        self._heard_all = self._said_all = self._cut = False
        self._producing = False
        self._paused = False
        # What has come and was not delivered, because of a pause.
        self._unread = False
        self._delivery: IDelayedCall | None = None
        # Whether to linger still, and the end of it.
        self._linger = linger
        self._lingering: IDelayedCall | None = None
        self._reason: Failure | None = None

    def __repr__(self) -> str:
        return f"<TlsTransport of {self._protocol!r} over {self.transport!r}>"

    # What the transport beneath sees.

    def connectionMade(self) -> None:
        self._shake_hands()

    def dataReceived(self, data: bytes) -> None:
        if self._broken or self.disconnecting or self._heard_all:
            return
        self._connection.bio_write(data)
        if self._established or self._shake_hands():
            self._deliver()

    def readConnectionLost(self) -> None:
        """The peer's TCP ended; that alone is no end of what it says in TLS."""
        self._cut = True
        if self._lingering is not None:
            self._close_beneath()
        if self._broken or self.disconnecting or self._heard_all:
            return
        if self._established:
            self._deliver()
        else:
            self._fail("the peer closed the connection during the handshake")

    def writeConnectionLost(self) -> None:
        if not self.disconnecting and IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        self._linger_no_more()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(self._reason or reason)
        elif not self._established and not self._broken:
            self._broken = True
            self._give_up(f"during the handshake: {reason.getErrorMessage()}")

    # The handshake

    def _shake_hands(self) -> bool:
        """@return: whether it is done."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except (SSL.Error, Refused) as failed:
            self._flush()
            self._fail(expected_of(self._connection).refusal or _words(failed))
            return False
        self._flush()
        self._established = True
        above, self._above = self._above, None
        assert above is not None
        above.established(self)
        return True

    def _give_up(self, why: str) -> None:
        above, self._above = self._above, None
        if above is not None:
            above.handshake_failed(why)

    def attach(self, protocol: Any) -> None:
        """Let C{protocol} have the connection; to be called once, when it is established."""
        self._protocol = protocol
        protocol.makeConnection(self)

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What was agreed on by ALPN, such as C{b"h2"}."""
        return self._connection.get_alpn_proto_negotiated() or None

    @property
    def server_name(self) -> str:
        """The server that the client asked for, in lower case; empty if it did not say."""
        name = self._connection.get_servername() or b""
        return name.decode("ascii", "replace").lower()

    def getPeerCertificate(self) -> Any:
        """@return: an L{OpenSSL.crypto.X509}, or C{None}."""
        return self._connection.get_peer_certificate()

    # Reading

    def _deliver(self) -> None:
        self._unread = False
        while self.connected and not (self._broken or self.disconnecting or self._heard_all):
            if self._paused:
                self._unread = True
                break
            try:
                data = self._connection.recv(_RECORD)
            except SSL.WantReadError:
                if self._cut:
                    self._fail("the peer closed the connection without saying so in TLS")
                break
            except SSL.ZeroReturnError:
                self._hear_the_end()
            except SSL.Error as failed:
                self._fail(_words(failed))
            else:
                # Tickets come before all data.
                self._linger = False
                self._protocol.dataReceived(data)
        if not self._broken:
            # An answer of TLS itself, such as to a change of keys.
            self._flush()

    def _hear_the_end(self) -> None:
        self._heard_all = True
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            self.disconnecting = True
            self._leave()

    def pauseProducing(self) -> None:
        self._paused = True
        if self.connected:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.connected or self.disconnecting or self._broken:
            return
        if not self._cut:
            self.transport.resumeProducing()
        if self._unread and self._delivery is None:
            # Not at once: whoever resumes does not expect data before we return.
            self._delivery = self._clock.callLater(0, self._deliver_later)

    def _deliver_later(self) -> None:
        self._delivery = None
        self._deliver()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Writing

    def write(self, data: bytes) -> None:
        if not self.connected or self._said_all or self._broken:
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self._connection.send(left) :]
        except SSL.Error as failed:
            self._fail(_words(failed))
        else:
            self._flush(len(data))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def _flush(self, expected: int = _RECORD >> 2) -> None:
        """
        Write what TLS has made of what was written.

        @param expected: bytes of which it was made.
        """
        size = expected + (expected >> 8) + 512
        while True:
            try:
                records = self._connection.bio_read(size)
            except SSL.WantReadError:
                return
            self.transport.write(records)
            if len(records) < size:
                return

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self.transport.queued if self.connected else 0

    @property
    def clear(self) -> bool:
        """As that of the transport beneath."""
        return self.transport.clear

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)
        self._producing = True

    def unregisterProducer(self) -> None:
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()
            if self.disconnecting and self.connected:
                self._leave()

    # The end

    def loseConnection(self) -> None:
        """Close when what was written, and what the producer will write, is sent."""
        if self.disconnecting or self._broken or not self.connected:
            return
        self.disconnecting = True
        if not self._established:
            self._broken = True
            self._above = None
        if self._producing:
            self.transport.pauseProducing()
        else:
            self._leave()

    def loseWriteConnection(self) -> None:
        """Say no more, but go on hearing."""
        if self.connected and not self._broken:
            self._say_the_end()
            self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        self._broken = True
        self._above = None
        if self.connected:
            self.transport.abortConnection()

    def _say_the_end(self) -> None:
        if self._said_all or self._broken:
            return
        self._said_all = True
        try:
            self._connection.shutdown()
        except SSL.Error as failed:
            self._fail(_words(failed))
        else:
            self._flush()

    def _leave(self) -> None:
        """Close in order.  That the peer answers in TLS is not waited for."""
        self._say_the_end()
        if self._linger and not (self._cut or self._heard_all or self._broken):
            self._stop_producing()
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()
            self._lingering = self._clock.callLater(LINGER, self._linger_enough)
        else:
            self._close_beneath()

    def _linger_enough(self) -> None:
        self._lingering = None
        self._close_beneath()

    def _linger_no_more(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _fail(self, why: str) -> None:
        if self._broken:
            return
        self._broken = True
        self._reason = Failure(ConnectionLost(f"TLS: {why}"))
        if not self._established:
            self._give_up(why)
        self._close_beneath()

    def _close_beneath(self) -> None:
        self._linger_no_more()
        self._stop_producing()
        self.transport.loseConnection()

    def _stop_producing(self) -> None:
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()


def _words(failed: Exception) -> str:
    if isinstance(failed, SSL.SysCallError):
        return "the peer closed the connection"
    return reasons(failed) if isinstance(failed, SSL.Error) else str(failed)
