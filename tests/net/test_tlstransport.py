import gc
import ssl
from typing import Any
from weakref import ref

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import INegotiated, ISSLTransport
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dynbalance.net.prefaced import Prefaced
from dynbalance.net.tls import ClientTls, ServerTls
from dynbalance.net.tlsport import TlsListener
from dynbalance.net.tlstransport import TlsTransport
from tests.net.authority import client_context
from tests.net.building import Factory, HalfNotes, Notes, Source
from tests.net.tlscase import TlsCase

MUCH = bytes(range(256)) * 40_000


class Paused(Notes):
    """Pauses when it is made, and after each piece of data."""

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()


class TlsTransportTests(TlsCase):
    def test_both_ways(self) -> None:
        """Bytes go both ways as they were written, and small ones at once."""
        protocol, peer = self.served()
        peer.send(b"question")
        self.pump.until(lambda: protocol.got)
        self.assertEqual(protocol.got, b"question")
        protocol.transport.write(b"an ")
        protocol.transport.writeSequence([b"ans", b"wer"])
        protocol.transport.write(b"")
        self.assertEqual(self.hub.getWriters(), [])
        peer.expect(b"an answer")

    def test_versions(self) -> None:
        """The same with TLS 1.2."""
        protocol, peer = self.served(newest=ssl.TLSVersion.TLSv1_2)
        self.assertEqual(peer.ssl.version(), "TLSv1.2")
        peer.send(b"question")
        self.pump.until(lambda: protocol.got)
        protocol.transport.write(b"answer")
        peer.expect(b"answer")

    def test_much_both_ways(self) -> None:
        """What the kernel does not take is queued beneath, and arrives in order."""
        protocol, peer = self.served()
        protocol.transport.write(MUCH)
        protocol.transport.write(b"the end")
        self.assertGreater(protocol.transport.queued, 0)
        peer.expect(MUCH + b"the end")
        self.assertEqual(protocol.transport.queued, 0)
        peer.send(MUCH)
        self.pump.until(lambda: len(protocol.got) >= len(MUCH))
        self.assertEqual(protocol.got, MUCH)

    def test_data_with_the_handshake(self) -> None:
        """What comes with the last bytes of the handshake reaches the protocol."""
        port, factory = self.serve()
        peer = self.call(port)
        flush = peer.flush
        # The end of the client's handshake leaves with its first bytes only.
        peer.flush = lambda: None if peer.ssl.cipher() else flush()  # type: ignore[method-assign]
        peer.handshake()
        peer.flush = flush  # type: ignore[method-assign]
        self.assertEqual(factory.built, [])
        peer.send(b"early")
        self.pump.until(lambda: factory.built and factory.built[0].got)
        self.assertEqual(factory.built[0].got, b"early")

    def test_pushing_producer(self) -> None:
        """A producer is paused while much is queued, and resumed when it is gone."""
        protocol, peer = self.served()
        source = Source()
        protocol.transport.registerProducer(source, True)
        protocol.transport.write(b"little")
        self.assertEqual(source.told, [])
        protocol.transport.write(MUCH)
        self.assertEqual(source.told, ["pause"])
        peer.expect(b"little" + MUCH)
        self.assertEqual(source.told, ["pause", "resume"])
        protocol.transport.unregisterProducer()

    def test_pulled_producer(self) -> None:
        """A producer that waits to be asked is asked until it has no more."""
        protocol, peer = self.served()
        transport = protocol.transport

        class Pulled(Source):
            left = 5

            def resumeProducing(self) -> None:
                self.left -= 1
                transport.write(b"piece ")
                if not self.left:
                    transport.unregisterProducer()

        transport.registerProducer(Pulled(), False)
        peer.expect(b"piece " * 5)

    def test_producer_and_loss(self) -> None:
        """A producer hears when the connection is lost."""
        protocol, peer = self.served()
        source = Source()
        protocol.transport.registerProducer(source, True)
        peer.peer.abort()
        self.pump.until(lambda: protocol.lost)
        self.assertEqual(source.told, ["stop"])

    def test_pause_holds_at_once(self) -> None:
        """After a pause nothing is delivered, although it was decrypted or has come already."""
        protocol, peer = self.served(Paused)
        peer.send(b"1" * 16384 + b"2" * 16384 + b"3" * 10)
        self.pump.settle()
        self.assertEqual(protocol.got, b"")
        protocol.transport.resumeProducing()
        self.assertEqual(protocol.got, b"")
        self.pump.until(lambda: protocol.got)
        self.pump.settle()
        self.assertEqual(protocol.got, b"1" * 16384)
        protocol.transport.resumeProducing()
        protocol.transport.resumeProducing()
        self.pump.settle()
        self.assertEqual(protocol.got, b"1" * 16384 + b"2" * 16384)
        protocol.transport.resumeProducing()
        self.pump.settle()
        self.assertEqual(protocol.got[32768:], b"3" * 10)
        protocol.transport.resumeProducing()

    def test_pause_holds_the_end(self) -> None:
        """Data that was held back comes before the end that came with it."""
        for kind in ("told", "cut"):
            protocol, peer = self.served(Paused)
            peer.send(b"1" * 16384 + b"last")
            if kind == "told":
                peer.end()
            peer.peer.end()
            self.pump.settle()
            protocol.transport.resumeProducing()
            self.pump.settle()
            self.assertEqual((protocol.got, protocol.lost), (b"1" * 16384, []))
            protocol.transport.resumeProducing()
            self.pump.until(lambda protocol=protocol: protocol.got.endswith(b"last"))
            protocol.transport.resumeProducing()
            self.pump.until(lambda protocol=protocol: protocol.lost)
            of_type = ConnectionDone if kind == "told" else ConnectionLost
            self.assertIsInstance(protocol.lost[0], of_type)

    def test_resumed_and_lost(self) -> None:
        """A connection that goes before its delivery was resumed leaves nothing behind."""
        protocol, peer = self.served(Paused)
        peer.send(b"1" * 16384 + b"2")
        self.pump.settle()
        protocol.transport.resumeProducing()
        self.pump.settle()
        protocol.transport.resumeProducing()
        protocol.transport.abortConnection()
        self.pump.until(lambda: protocol.lost)
        self.assertEqual(protocol.got, b"1" * 16384)
        protocol.transport.resumeProducing()
        protocol.transport.pauseProducing()

    def test_we_close(self) -> None:
        """The peer hears all that was written, and in TLS that it was all."""
        protocol, peer = self.served()
        protocol.transport.write(MUCH)
        protocol.transport.loseConnection()
        protocol.transport.loseConnection()
        protocol.transport.write(b"too late")
        peer.expect(MUCH)
        peer.expect_end()
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionDone)
        protocol.transport.write(b"later still")
        self.assertEqual(protocol.transport.queued, 0)

    def test_we_close_with_a_producer(self) -> None:
        """What a producer writes until it unregisters is part of all."""
        protocol, peer = self.served()
        protocol.transport.registerProducer(Source(), True)
        protocol.transport.loseConnection()
        protocol.transport.write(b"still")
        # It is not read, and therefore not kept either.
        readers = self.hub.getReaders()
        self.assertNotIn(protocol.transport.transport, readers)
        peer.send(b"not heard")
        self.pump.settle()
        self.assertEqual(protocol.lost, [])
        protocol.transport.unregisterProducer()
        peer.expect(b"still")
        peer.expect_end()
        self.pump.until(lambda: protocol.lost)
        self.assertEqual(protocol.got, b"")

    def test_peer_closes(self) -> None:
        """The peer's end ends a protocol that knows no half, cleanly, after the data."""
        protocol, peer = self.served()
        peer.send(b"last")
        peer.end()
        self.pump.until(lambda: protocol.lost)
        self.assertEqual(protocol.got, b"last")
        self.assertIsInstance(protocol.lost[0], ConnectionDone)
        peer.expect_end()

    def test_peer_closes_while_we_produce(self) -> None:
        """That it is registered as a producer does not keep a protocol from its end."""
        protocol, peer = self.served()
        protocol.transport.registerProducer(Source(), True)
        peer.end()
        self.pump.until(lambda: protocol.lost)
        protocol.transport.unregisterProducer()

    def test_cut_off(self) -> None:
        """An end of TCP alone may be anybody's doing: it is no clean end."""
        for kind in (Notes, HalfNotes):
            protocol, peer = self.served(kind)
            peer.send(b"last")
            peer.peer.end()
            self.pump.until(lambda protocol=protocol: protocol.lost)
            self.assertEqual(protocol.got, b"last")
            self.assertIsInstance(protocol.lost[0], ConnectionLost)
            self.assertIn("without saying so in TLS", str(protocol.lost[0]))

    def test_reset(self) -> None:
        """A reset is a lost connection."""
        protocol, peer = self.served()
        peer.peer.abort()
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionLost)

    def test_garbage(self) -> None:
        """Bytes that are no records end the connection with OpenSSL's reason."""
        protocol, peer = self.served()
        peer.peer.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionLost)
        self.assertIn("TLS: ", str(protocol.lost[0]))
        self.assertIn("mac", str(protocol.lost[0]))

    def test_abort(self) -> None:
        """An abort closes at once, whatever is queued."""
        protocol, _ = self.served()
        protocol.transport.write(MUCH)
        protocol.transport.abortConnection()
        protocol.transport.write(b"nothing")
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionAborted)

    def test_half_closed_by_peer(self) -> None:
        """Who knows half-closed connections hears of the peer's end, and can go on."""
        protocol, peer = self.served(HalfNotes)
        peer.send(b"all")
        peer.end()
        peer.peer.end()
        self.pump.until(lambda: protocol.ends)
        self.pump.settle()
        self.assertEqual((protocol.got, protocol.ends, protocol.lost), (b"all", ["read"], []))
        # There is nothing to read any more.
        protocol.transport.pauseProducing()
        protocol.transport.resumeProducing()
        self.assertNotIn(protocol.transport.transport, self.hub.getReaders())
        protocol.transport.write(MUCH)
        protocol.transport.loseConnection()
        # Python's ssl reads no more after its own end; what came is what counts.
        peer.peer.pump.until(lambda: peer.peer.read() or peer.peer.ended)
        self.assertGreater(len(peer.peer.got), len(MUCH))
        self.pump.until(lambda: protocol.lost)

    def test_half_closed_by_us(self) -> None:
        """Our end is said in TLS and in TCP, and the peer is still heard."""
        protocol, peer = self.served(HalfNotes)
        protocol.transport.write(MUCH)
        protocol.transport.loseWriteConnection()
        protocol.transport.loseWriteConnection()
        protocol.transport.write(b"too late")
        peer.expect(MUCH)
        peer.expect_end()
        self.pump.until(lambda: protocol.ends)
        self.assertEqual((protocol.ends, protocol.lost), (["write"], []))
        peer.send(b"still heard")
        self.pump.until(lambda: protocol.got)
        peer.end()
        self.pump.until(lambda: "read" in protocol.ends)
        protocol.transport.loseConnection()
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionDone)

    def test_what_it_says_of_itself(self) -> None:
        """It is a transport of Twisted's that is TLS."""
        protocol, peer = self.served()
        transport = protocol.transport
        self.assertTrue(ISSLTransport.providedBy(transport))
        verifyObject(INegotiated, transport)
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", *peer.peer.skt.getsockname()))
        self.assertEqual(transport.getHost(), IPv4Address("TCP", *peer.peer.skt.getpeername()))
        self.assertEqual(transport.server_name, "a.example")
        self.assertIsNone(transport.getPeerCertificate())
        self.assertIsNone(transport.negotiatedProtocol)
        self.assertTrue(transport.getTcpNoDelay())
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpKeepAlive())
        self.assertIn("TlsTransport", repr(transport))

    def test_stop_producing(self) -> None:
        """Who produces for another and is stopped by it closes."""
        protocol, peer = self.served()
        protocol.transport.stopProducing()
        peer.expect_end()


class TlsListenerTests(TlsCase):
    def test_a_protocol_that_fails(self) -> None:
        """An exception of the protocol ends its connection alone, and is logged."""

        class Failing(Notes):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        protocol, peer = self.served(Failing)
        peer.send(b"x")
        self.pump.until(lambda: protocol.lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nothing_is_left(self) -> None:
        """What was made for a connection goes with it, without a collection of garbage."""
        port, factory = self.serve()
        self.addCleanup(gc.enable)
        gc.disable()
        left: list[Any] = []
        for ending in ("peer", "we", "abort", "no handshake"):
            peer = self.call(port)
            if ending == "no handshake":
                self.pump.until(lambda: self.listener.active)
                left.append(ref(next(iter(self.listener.arrivals)).transport))
                peer.peer.end()
                self.pump.until(lambda: not self.listener.active)
                self.pump.settle()
                continue
            peer.handshake()
            self.pump.until(lambda: factory.built)
            protocol = factory.built.pop()
            left.append(ref(protocol.transport))
            if ending == "peer":
                peer.end()
            elif ending == "we":
                protocol.transport.loseConnection()
            else:
                protocol.transport.abortConnection()
            self.pump.until(lambda protocol=protocol: protocol.lost)
            del protocol
            self.pump.settle()
        self.assertEqual([of() for of in left], [None] * 4)

    def test_by_protocol(self) -> None:
        """What was agreed on by ALPN chooses the factory."""
        h2 = Factory(Notes)
        port, factory = self.serve(
            ServerTls([self.pair_a], alpn=("h2", "http/1.1")), by_protocol={b"h2": h2}
        )
        for offered, agreed in ((["http/1.1", "h2"], b"h2"), (["http/1.1"], b"http/1.1")):
            peer = self.call(port, client_context(self.authority.file, alpn=offered)).handshake()
            of = h2 if agreed == b"h2" else factory
            self.pump.until(lambda of=of: of.built)
            self.assertEqual(of.built[0].transport.negotiatedProtocol, agreed)
            self.assertEqual(peer.ssl.selected_alpn_protocol(), agreed.decode())
        plain = self.call(port).handshake()
        self.pump.until(lambda: len(factory.built) == 2)
        self.assertIsNone(plain.ssl.selected_alpn_protocol())

    def test_deadline(self) -> None:
        """A handshake has its time, however busily it comes; afterwards there is no limit."""
        port, factory = self.serve(patience=5.0)
        done = self.call(port).handshake()
        slow = self.client(port)
        hello = b"\x16\x03\x01\x02\x00"
        for byte in hello:
            slow.send(bytes((byte,)))
            self.pump.settle()
            self.pump.advance(0.9)
        self.assertEqual((self.listener.active, self.listener.failed), (1, 0))
        self.pump.advance(0.8)
        slow.expect_end()
        self.assertEqual((self.listener.active, self.listener.failed), (0, 1))
        done.send(b"still here")
        self.pump.until(lambda: factory.built[0].got)

    def test_no_tls(self) -> None:
        """Who does not speak TLS is let go, and not one protocol is made."""
        port, factory = self.serve()
        for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(100)):
            peer = self.client(port)
            peer.send(data)
            peer.expect_end()
        gone = self.client(port)
        gone.end()
        gone.expect_end()
        reset = self.client(port)
        self.pump.until(lambda: self.listener.active)
        reset.abort()
        self.pump.until(lambda: not self.listener.active)
        self.assertEqual((factory.built, self.listener.failed), ([], 4))

    def test_factory_refuses(self) -> None:
        """A factory may refuse a client after its handshake."""
        port, _ = self.serve(kind=lambda: None)
        peer = self.call(port)
        peer.handshake()
        peer.expect_end()

    def test_abort_all(self) -> None:
        """Handshakes under way can be ended at once."""
        port, _ = self.serve()
        peer = self.client(port)
        self.pump.until(lambda: self.listener.active)
        self.listener.abort_all()
        peer.expect_end()
        self.assertEqual(self.listener.failed, 0)

    def test_factories_start_and_stop(self) -> None:
        """The factories behind it hear of the port's beginning and end."""
        _, factory = self.serve()
        self.assertEqual(factory.numPorts, 1)
        self.ports.pop().stopListening()
        self.pump.settle()
        self.assertEqual(factory.numPorts, 0)

    def test_behind_a_proxy(self) -> None:
        """A PROXY header comes in clear, before TLS, and says who the client is."""
        factory = Factory(Notes)
        inner = TlsListener(ServerTls([self.pair_a]), factory, self.hub, self.deadlines)
        port = self.listen(Prefaced(inner, self.hub, self.deadlines))
        peer = self.call(port)
        peer.peer.send(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n")
        peer.handshake()
        peer.send(b"question")
        self.pump.until(lambda: factory.built and factory.built[0].got)
        self.assertEqual(
            factory.built[0].transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 56324)
        )


class DirectTlsTransportTests(TlsTransportTests):
    """The same without epoll."""

    epoll = False


class Wire:
    """
    One direction of a connection in memory: a transport as far as TLS needs one.

    @ivar to: the protocol at the other end.
    """

    queued = 0

    def __init__(self) -> None:
        self.to: Any = None
        self.on_the_way = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.on_the_way += data

    def loseConnection(self) -> None:
        self.closed = True

    loseWriteConnection = loseConnection

    def resumeProducing(self) -> None:
        """It never pauses."""

    def carry(self, size: int) -> None:
        """Let some bytes arrive, or the end behind them."""
        data, self.on_the_way = self.on_the_way[:size], self.on_the_way[size:]
        if data:
            self.to.dataReceived(data)


class BackToBackTests(TlsCase):
    """Our two ends, joined in memory."""

    @given(
        st.lists(st.integers(1, 400), min_size=1, max_size=20),
        st.lists(st.tuples(st.booleans(), st.integers(0, 40_000)), max_size=6),
    )
    @settings(max_examples=25, deadline=None)
    def test_any_split(self, sizes: list[int], said: list[tuple[bool, int]]) -> None:
        """However the records are cut up on their way, both hear all, and the end."""
        clock = Clock()
        protocols = [Notes(), Notes()]

        class Above:
            def __init__(self, protocol: Notes) -> None:
                self.protocol = protocol

            def established(self, transport: TlsTransport) -> None:
                transport.attach(self.protocol)

        client = ClientTls(ca=self.authority.file).connection("a.example")
        server = ServerTls([self.pair_a]).connection()
        ends = [
            TlsTransport(connection, clock, Above(protocol))
            for connection, protocol in zip((client, server), protocols, strict=True)
        ]
        wires = [Wire(), Wire()]
        for wire, end, other in zip(wires, ends, reversed(ends), strict=True):
            wire.to = other
            end.makeConnection(wire)
        turn = 0

        def carry() -> None:
            nonlocal turn
            while wires[0].on_the_way or wires[1].on_the_way:
                wires[turn % 2].carry(sizes[turn % len(sizes)])
                turn += 1

        carry()
        expected = [b"", b""]
        for from_client, size in said:
            data = bytes((turn % 251,)) * size
            protocols[0 if from_client else 1].transport.write(data)
            expected[1 if from_client else 0] += data
        carry()
        protocols[0].transport.loseConnection()
        carry()
        ends[0].readConnectionLost()
        self.assertEqual([protocol.got for protocol in protocols], expected)
        self.assertEqual([wire.closed for wire in wires], [True, True])
        self.assertEqual(clock.getDelayedCalls(), [])
