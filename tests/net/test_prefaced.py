import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import ServerFactory

from dynbalance.net.deadlines import Deadlines
from dynbalance.net.prefaced import Prefaced
from dynbalance.net.proxyprotocol import header
from tests.net.building import NetCase, Notes, logged
from tests.net.pump import Peer

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
CLIENT = IPv4Address("TCP", "192.0.2.1", 56324)
BINARY = header(2, CLIENT, IPv4Address("TCP", "198.51.100.7", 443))


class Clients(ServerFactory):
    """Makes protocols that know for whom they are."""

    noisy = False

    def __init__(self) -> None:
        self.built: list[tuple[Any, Notes]] = []

    def buildProtocol(self, addr: Any) -> Any:
        protocol = Notes()
        self.built.append((addr, protocol))
        return protocol


class Sockets(ServerFactory):
    """Takes bare sockets."""

    noisy = False

    def __init__(self) -> None:
        self.taken: list[tuple[socket.socket, Any]] = []

    def accept_socket(self, skt: socket.socket, peer: Any, port: Any) -> None:
        self.taken.append((skt, peer))


class PrefacedTests(NetCase):
    def setUp(self) -> None:
        super().setUp()
        self.deadlines = Deadlines(self.pump)

    def tearDown(self) -> None:
        self.assertEqual(self.prefaced.active, 0)
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")
        super().tearDown()

    def serve(self, factory: ServerFactory, **options: Any) -> int:
        self.prefaced = Prefaced(factory, self.hub, self.deadlines, **options)
        return self.listen(self.prefaced)

    def served(self, **options: Any) -> tuple[Peer, Clients]:
        clients = Clients()
        return self.client(self.serve(clients, **options)), clients

    def expect_refusal(self, peer: Peer, why: str) -> None:
        """The connection is closed, and the log says why."""
        with logged() as lines:
            self.pump.until(lambda: self.prefaced.broken)
            peer.expect_end()
        self.assertEqual(len(lines), 1)
        self.assertIn("broken header from", lines[0])
        self.assertIn(why, lines[0])

    def test_header_and_payload_in_one(self) -> None:
        """The protocol is built for the client that the header says, and gets what follows."""
        for begin in (LINE, BINARY):
            peer, clients = self.served()
            peer.send(begin + b"payload")
            self.pump.until(lambda clients=clients: clients.built and clients.built[0][1].got)
            address, protocol = clients.built[0]
            self.assertEqual(address, CLIENT)
            self.assertEqual(protocol.got, b"payload")
            protocol.transport.write(b"answer")
            peer.expect(b"answer")

    def test_any_split(self) -> None:
        """A header may come byte by byte, and none of the bytes wakes the hub twice."""
        for begin in (LINE, BINARY):
            peer, clients = self.served()
            for byte in begin:
                self.assertEqual(clients.built, [])
                peer.send(bytes((byte,)))
                self.pump.settle()
                if byte != begin[-1]:
                    self.assertEqual(self.hub._epoll.poll(0), [])
            self.pump.until(lambda clients=clients: clients.built)
            self.assertEqual(clients.built[0][0], CLIENT)

    def test_says_nothing(self) -> None:
        """With UNKNOWN the peer itself is the client."""
        peer, clients = self.served()
        peer.send(b"PROXY UNKNOWN\r\n")
        self.pump.until(lambda: clients.built)
        self.assertEqual(clients.built[0][0], IPv4Address("TCP", *peer.skt.getsockname()))

    def test_not_trusted(self) -> None:
        """Of a peer that is not trusted the header is read and not believed."""
        asked = []
        peer, clients = self.served(trusts=asked.append)
        peer.send(LINE + b"payload")
        self.pump.until(lambda: clients.built and clients.built[0][1].got)
        self.assertEqual(asked, ["127.0.0.1"])
        self.assertEqual(clients.built[0][0].host, "127.0.0.1")
        self.assertEqual(clients.built[0][1].got, b"payload")

    def test_sockets(self) -> None:
        """A factory that takes bare sockets gets one in which just the payload is left."""
        sockets = Sockets()
        peer = self.client(self.serve(sockets))
        peer.send(LINE[:20])
        self.pump.settle()
        peer.send(LINE[20:] + b"payload")
        self.pump.until(lambda: sockets.taken)
        skt, client = sockets.taken[0]
        self.closing.append(skt)
        self.assertEqual(client, ("192.0.2.1", 56324))
        self.assertEqual(skt.recv(100), b"payload")
        self.assertNotIn(skt.fileno(), [reader.fileno() for reader in self.hub.getReaders()])

    def test_ipv6(self) -> None:
        """An IPv6 client has an IPv6 address, also for who takes sockets."""
        peer, clients = self.served()
        peer.send(b"PROXY TCP6 2001:db8::1 ::1 5 6\r\n")
        self.pump.until(lambda: clients.built)
        self.assertEqual(clients.built[0][0], IPv6Address("TCP", "2001:db8::1", 5))
        sockets = Sockets()
        peer = self.client(self.serve(sockets))
        peer.send(b"PROXY TCP6 2001:db8::1 ::1 5 6\r\n")
        self.pump.until(lambda: sockets.taken)
        self.closing.append(sockets.taken[0][0])
        self.assertEqual(sockets.taken[0][1], ("2001:db8::1", 5, 0, 0))

    def test_broken(self) -> None:
        """What is no header is logged with its reason, and the connection is closed."""
        told: list[Any] = []
        peer, clients = self.served(on_broken=lambda *what: told.append(what))
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        self.expect_refusal(peer, "does not begin like")
        self.assertEqual(clients.built, [])
        why = "it does not begin like a PROXY header"
        self.assertEqual(told, [(peer.skt.getsockname(), why)])

    def test_cut_off(self) -> None:
        """So is a header that ends early."""
        peer, _ = self.served()
        peer.send(LINE[:9])
        self.pump.settle()
        peer.end()
        self.expect_refusal(peer, "it ends after 9 bytes")

    def test_too_late(self) -> None:
        """And one that is not whole in time, however busily it comes."""
        peer, _ = self.served(patience=5.0)
        for byte in LINE[:6]:
            peer.send(bytes((byte,)))
            self.pump.settle()
            self.pump.advance(0.7)
            self.assertEqual(self.prefaced.broken, 0)
            self.assertFalse(peer.ended)
        with logged() as lines:
            self.pump.advance(1.0)
            peer.expect_end()
        self.assertEqual(self.prefaced.broken, 1)
        self.assertIn("no whole header within 5 s", lines[0])

    def test_silent_visitor(self) -> None:
        """Who connects and goes without a word is not worth a line of the log."""
        peer, _ = self.served()
        with logged() as lines:
            self.pump.until(lambda: self.prefaced.active)
            peer.end()
            peer.expect_end()
        self.assertEqual((lines, self.prefaced.broken), ([], 0))

    def test_reset(self) -> None:
        """A peer that resets the connection is forgotten."""
        peer, _ = self.served()
        peer.send(LINE[:5])
        self.pump.until(lambda: self.prefaced.active)
        peer.abort()
        self.pump.until(lambda: not self.prefaced.active)

    def test_abort_all(self) -> None:
        """The connections that still wait can be closed at once."""
        peer, _ = self.served()
        self.pump.until(lambda: self.prefaced.active)
        self.prefaced.abort_all()
        peer.expect_end()

    def test_refused_by_the_factory(self) -> None:
        """A factory may still refuse the client; a failing one costs its connection alone."""

        class Refusing(ServerFactory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                return None

        peer = self.client(self.serve(Refusing()))
        peer.send(LINE)
        peer.expect_end()

        class Failing(ServerFactory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                raise ZeroDivisionError

        peer = self.client(self.serve(Failing()))
        peer.send(LINE)
        peer.expect_end()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unix(self) -> None:
        """A unix socket's connections may begin with one as well."""
        path = self.mktemp()
        clients = Clients()
        self.prefaced = Prefaced(clients, self.hub, self.deadlines)
        self.ports.append(self.hub.listenUNIX(path, self.prefaced))
        skt = socket.socket(socket.AF_UNIX)
        skt.connect(path)
        peer = Peer(self.pump, skt)
        self.closing.append(peer)
        peer.send(LINE + b"payload")
        self.pump.until(lambda: clients.built and clients.built[0][1].got)
        self.assertEqual(clients.built[0][0], CLIENT)


class DirectPrefacedTests(PrefacedTests):
    """The same without epoll."""

    epoll = False

    def test_any_split(self) -> None:
        """A header may come byte by byte."""
        peer, clients = self.served()
        for byte in LINE:
            peer.send(bytes((byte,)))
            self.pump.settle()
        self.pump.until(lambda: clients.built)
