import os
import socket
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.ssl import PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.trial import util

from dynbalance.net.dial import Target, transport_for
from tests.net.building import Factory, HalfNotes, NetCase, Notes, Source
from tests.net.pump import Backend, Peer

MUCH = bytes(range(256)) * 80_000


class TransportTests(NetCase):
    def test_small_writes_leave_at_once(self) -> None:
        """What the kernel takes is sent by C{write} itself, and nothing waits to write."""
        protocol, peer = self.pair()
        protocol.transport.write(b"one ")
        protocol.transport.writeSequence([b"two ", b"three"])
        self.assertEqual(self.hub.getWriters(), [])
        self.assertEqual(protocol.transport.queued, 0)
        self.assertEqual(peer.skt.recv(100), b"one two three")

    def test_the_rest_is_queued(self) -> None:
        """What the kernel does not take follows in order when the peer reads."""
        protocol, peer = self.pair()
        protocol.transport.write(MUCH)
        self.assertGreater(protocol.transport.queued, 0)
        self.assertEqual(self.hub.getWriters(), [protocol.transport])
        protocol.transport.write(b"the end")
        peer.expect(MUCH + b"the end")
        self.assertEqual(self.hub.getWriters(), [])

    def test_pushing_producer(self) -> None:
        """A producer is paused while much is queued, and resumed when it is gone."""
        protocol, peer = self.pair()
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
        """A producer that waits to be asked is asked again although all was sent at once."""
        protocol, peer = self.pair()
        transport = protocol.transport

        class Pulled(Source):
            left = 5

            def resumeProducing(self) -> None:
                if self.left:
                    self.left -= 1
                    transport.write(b"chunk")
                else:
                    transport.unregisterProducer()
                    transport.loseConnection()

        transport.registerProducer(Pulled(), False)
        peer.expect(b"chunk" * 5)
        peer.expect_end()

    def test_lose_connection_at_rest(self) -> None:
        """With nothing queued the connection ends cleanly, and hears nothing more."""
        protocol, peer = self.pair()
        protocol.transport.write(b"bye")
        protocol.transport.loseConnection()
        peer.send(b"late")
        self.assertEqual(protocol.lost, [])
        peer.expect(b"bye")
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionDone)
        self.assertEqual((protocol.got, len(protocol.lost)), (b"", 1))

    def test_lose_connection_with_a_queue(self) -> None:
        """What is queued is sent before the connection ends."""
        protocol, peer = self.pair()
        protocol.transport.write(MUCH)
        protocol.transport.loseConnection()
        peer.expect(MUCH)
        peer.expect_end()
        self.assertIsInstance(protocol.lost[0], ConnectionDone)

    def test_write_after_lose_connection(self) -> None:
        """What is written before the connection is really closed is still sent, all of it."""
        protocol, peer = self.pair()
        protocol.transport.loseConnection()
        protocol.transport.write(MUCH)
        peer.expect(MUCH)
        peer.expect_end()
        self.assertEqual(len(protocol.lost), 1)

    def test_lose_connection_with_a_producer(self) -> None:
        """A paused producer is let finish before the connection ends."""
        protocol, peer = self.pair()
        source = Source()
        protocol.transport.registerProducer(source, True)
        protocol.transport.write(MUCH)
        protocol.transport.loseConnection()
        peer.expect(MUCH)
        self.assertEqual(source.told, ["pause", "resume"])
        protocol.transport.write(b"last")
        protocol.transport.unregisterProducer()
        peer.expect(b"last")
        peer.expect_end()

    def test_lose_connection_with_a_pulled_producer(self) -> None:
        """A producer that waits to be asked is let finish, too."""
        protocol, peer = self.pair()
        source = Source()
        protocol.transport.registerProducer(source, False)
        protocol.transport.write(b"first")
        protocol.transport.loseConnection()
        self.pump.settle()
        self.assertEqual(protocol.lost, [])
        protocol.transport.write(b" last")
        protocol.transport.unregisterProducer()
        peer.expect(b"first last")
        peer.expect_end()

    def test_abort(self) -> None:
        """An abort resets the connection and drops what is queued."""
        protocol, peer = self.pair()
        protocol.transport.write(MUCH)
        protocol.transport.abortConnection()
        protocol.transport.abortConnection()
        protocol.transport.write(b"never")
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionAborted)
        peer.expect_end()
        self.assertTrue(peer.reset)
        self.assertLess(len(peer.got), len(MUCH))

    def test_peer_ends(self) -> None:
        """The peer's end is the connection's."""
        protocol, peer = self.pair()
        peer.send(b"words")
        peer.end()
        peer.expect_end()
        self.assertEqual(protocol.got, b"words")
        self.assertIsInstance(protocol.lost[0], ConnectionDone)

    def test_peer_resets(self) -> None:
        """A reset is a connection lost, once."""
        protocol, peer = self.pair()
        peer.abort()
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionLost)
        self.pump.settle()
        self.assertEqual(len(protocol.lost), 1)

    def test_error_on_write(self) -> None:
        """A write that fails does not raise; the protocol hears that the connection is lost."""
        protocol, peer = self.pair()
        protocol.transport.pauseProducing()
        source = Source()
        protocol.transport.registerProducer(source, True)
        peer.abort()
        for _ in range(3):
            protocol.transport.write(b"anyone there?")
        self.pump.until(lambda: protocol.lost)
        self.assertIsInstance(protocol.lost[0], ConnectionLost)
        self.assertEqual(source.told[-1], "stop")

    def test_paused(self) -> None:
        """A paused transport reads nothing until it is resumed."""
        protocol, peer = self.pair()
        protocol.transport.pauseProducing()
        peer.send(b"words")
        self.pump.settle()
        self.assertEqual(protocol.got, b"")
        protocol.transport.resumeProducing()
        self.pump.until(lambda: protocol.got == b"words")

    def test_half_close(self) -> None:
        """Each direction ends for itself when the protocol knows of halves."""
        protocol, peer = self.pair(HalfNotes)
        peer.send(b"words")
        peer.end()
        self.pump.until(lambda: protocol.ends == ["read"])
        self.pump.settle()
        self.assertEqual((protocol.got, protocol.ends), (b"words", ["read"]))
        protocol.transport.write(MUCH)
        protocol.transport.loseWriteConnection()
        peer.expect(MUCH)
        peer.expect_end()
        self.assertEqual(protocol.ends, ["read", "write"])
        self.assertEqual(protocol.lost, [])
        protocol.transport.loseConnection()
        self.assertEqual(len(protocol.lost), 1)

    def test_ipv6(self) -> None:
        """Connections by IPv6 know both addresses."""
        factory = Factory(Notes)
        peer = self.client(self.listen(factory, "::1"), "::1")
        peer.send(b"six")
        self.pump.until(lambda: factory.built and factory.built[0].got == b"six")
        transport = factory.built[0].transport
        self.assertEqual(transport.getPeer().host, "::1")
        self.assertEqual(transport.getPeer().port, peer.skt.getsockname()[1])
        self.assertEqual(transport.getHost().host, "::1")

    def test_unix(self) -> None:
        """Connections by a unix socket write through and end like others."""
        path = os.path.join("/tmp", f"dynbalance-test-{os.getpid()}.sock")
        factory = Factory(Notes)
        self.ports.append(self.hub.listenUNIX(path, factory))
        skt = socket.socket(socket.AF_UNIX)
        skt.connect(path)
        peer = Peer(self.pump, skt)
        self.closing.append(peer)
        peer.send(b"near")
        self.pump.until(lambda: factory.built and factory.built[0].got == b"near")
        factory.built[0].transport.write(MUCH)
        factory.built[0].transport.loseConnection()
        peer.expect(MUCH)
        peer.expect_end()

    def test_client(self) -> None:
        """A dialed socket becomes a transport that knows both addresses."""
        backend = Backend(self.pump)
        self.closing.append(backend)
        skt = socket.create_connection(("127.0.0.1", backend.port))
        protocol = Notes()
        target = Target(socket.AF_INET, ("127.0.0.1", backend.port))
        transport = transport_for(self.hub, skt, target, protocol)
        peer = backend.accept()
        self.closing.append(peer)
        peer.send(b"hello")
        self.pump.until(lambda: protocol.got == b"hello")
        self.assertEqual(transport.getPeer().port, backend.port)
        self.assertEqual(transport.getHost().port, skt.getsockname()[1])
        transport.write(MUCH)
        transport.loseConnection()
        peer.expect(MUCH)
        peer.expect_end()

    def test_client_that_pauses_at_once(self) -> None:
        """A protocol may pause its transport while it is made."""

        class Shy(Notes):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        protocol, peer = self.pair(Shy)
        peer.send(b"words")
        self.pump.settle()
        self.assertEqual(protocol.got, b"")
        protocol.transport.abortConnection()

    def test_tls(self) -> None:
        """Both kinds of transport can start TLS; records are written through."""
        certificate, trusted = certificate_for("localhost")

        class Secure(Notes):
            def connectionMade(self) -> None:
                self.transport.startTLS(certificate.options())

        factory = Factory(Secure)
        port = self.listen(factory)
        skt = socket.create_connection(("127.0.0.1", port))
        skt.setblocking(False)
        client = Notes()
        transport = transport_for(
            self.hub, skt, Target(socket.AF_INET, ("127.0.0.1", port)), client
        )

        transport.startTLS(optionsForClientTLS("localhost", trustRoot=trusted))
        transport.write(MUCH)
        self.pump.until(lambda: factory.built and factory.built[0].got == MUCH)
        server = factory.built[0]
        # Twisted gathers small writes under TLS by a call of its own reactor.
        server.transport.writeSequence([b"and ", b"back"])
        self.assertEqual(self.hub.getWriters(), [])
        self.pump.until(lambda: reactor.runUntilCurrent() or client.got == b"and back")
        server.transport.loseConnection()
        self.pump.until(lambda: reactor.runUntilCurrent() or (client.lost and server.lost))
        self.assertIsInstance(client.lost[0], ConnectionDone)
        self.assertIsInstance(server.lost[0], ConnectionDone)

    def test_tls_abort(self) -> None:
        """A connection under TLS can be aborted."""
        certificate, _ = certificate_for("localhost")
        protocol, peer = self.pair()
        protocol.transport.startTLS(certificate.options())
        protocol.transport.abortConnection()
        self.pump.until(lambda: protocol.lost)
        peer.expect_end()
        self.assertTrue(peer.reset)

    # Twisted hands pyOpenSSL objects that it would rather not get any more.
    _RELUCTANT = (util.suppress(category=DeprecationWarning),)
    test_tls.suppress = test_tls_abort.suppress = _RELUCTANT  # type: ignore[attr-defined]


class DirectTransportTests(TransportTests):
    """All of the above where there is no epoll."""

    epoll = False


def certificate_for(name):
    """A certificate that signed itself, and what to trust to believe it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = signed.public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = PrivateCertificate.loadPEM(text)
    return certificate, trustRootFromCertificates([certificate])
