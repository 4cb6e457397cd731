import socket
from typing import Any

from twisted.internet.protocol import ServerFactory

from dynbalance.net.deadlines import Deadlines
from dynbalance.net.hellopeek import HelloPeek
from dynbalance.net.prefaced import Prefaced
from tests.net.building import NetCase
from tests.net.pump import Peer
from tests.net.test_clienthello import message, real, records, sni

HELLO = real("a.example")


class HelloPeekTests(NetCase):
    def setUp(self) -> None:
        super().setUp()
        self.deadlines = Deadlines(self.pump)
        self.told: list[Any] = []

    def tearDown(self) -> None:
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")
        self.assertEqual(self.hub.getReaders(), [])
        super().tearDown()

    # What is told.

    def asked_for(self, server_name: str) -> None:
        self.told.append(server_name)

    def said_nothing(self) -> None:
        self.told.append(None)

    def pair(self, family: Any = socket.AF_INET) -> Peer:
        """The client's end; the other is C{self.skt}."""
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                theirs = socket.create_connection(server.getsockname())
                ours = server.accept()[0]
        ours.setblocking(False)
        self.skt = ours
        peer = Peer(self.pump, theirs)
        self.closing += [peer, ours]
        return peer

    def peek(self, family: Any = socket.AF_INET, patience: float = 10.0) -> Peer:
        peer = self.pair(family)
        self.looking = HelloPeek(self.hub, self.deadlines, self.skt, self)
        self.looking.start(patience)
        return peer

    def rest(self) -> bytes:
        return self.skt.recv(1 << 16)

    def test_whole(self) -> None:
        """The name is told, and every byte is still there."""
        peer = self.peek()
        peer.send(HELLO + b"more")
        self.pump.until(lambda: self.told)
        self.assertEqual(self.told, ["a.example"])
        self.assertEqual(self.rest(), HELLO + b"more")

    def test_already_there(self) -> None:
        """A hello that came with the connection is told before start returns."""
        peer = self.pair()
        peer.send(HELLO)
        self.pump.settle()
        HelloPeek(self.hub, self.deadlines, self.skt, self).start()
        self.assertEqual(self.told, ["a.example"])

    def test_in_parts(self) -> None:
        """Parts wake us once each, although they stay where they are."""
        peer = self.peek()
        for at in (0, 100, 101):
            peer.send(HELLO[at : at + (100 if at == 0 else 1)])
            self.pump.settle()
            self.assertEqual(self.hub._epoll.poll(0), [])
        peer.send(HELLO[102:])
        self.pump.until(lambda: self.told)
        self.assertEqual(self.told, ["a.example"])
        self.assertEqual(self.rest(), HELLO)
        # And a later reader is woken by a single byte again.
        self.assertEqual(self.skt.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT), 1)

    def test_other_protocols(self) -> None:
        """Who does not speak TLS, or asks for no server, asks for none."""
        for data in (b"GET / HTTP/1.1\r\n", real(None), records(message(sni(b"a..b")))):
            self.told.clear()
            peer = self.peek()
            peer.send(data)
            self.pump.until(lambda: self.told)
            self.assertEqual(self.told, [""])
            self.assertEqual(self.rest(), data)

    def test_ends(self) -> None:
        """So does who ends early, with or without a part."""
        for data in (b"", HELLO[:100]):
            self.told.clear()
            peer = self.peek()
            if data:
                peer.send(data)
                self.pump.settle()
            peer.end()
            self.pump.until(lambda: self.told)
            self.assertEqual(self.told, [""])
            self.assertEqual(self.rest(), data)

    def test_reset(self) -> None:
        """And who resets the connection; whoever uses the socket next meets it."""
        peer = self.peek()
        peer.send(HELLO[:100])
        self.pump.settle()
        peer.abort()
        self.pump.until(lambda: self.told)
        self.assertEqual(self.told, [""])

    def test_too_late(self) -> None:
        """Who does not say in time is given up."""
        peer = self.peek(patience=5.0)
        peer.send(HELLO[:100])
        self.pump.settle()
        self.pump.advance(4.9)
        self.assertEqual(self.told, [])
        self.pump.advance(0.3)
        self.assertEqual(self.told, [None])

    def test_cancel(self) -> None:
        """After it is cancelled nothing is told."""
        peer = self.peek()
        peer.send(HELLO[:100])
        self.pump.settle()
        self.looking.cancel()
        peer.send(HELLO[100:])
        self.pump.settle()
        self.pump.advance(20.0)
        self.assertEqual(self.told, [])

    def test_hub_closes(self) -> None:
        """When the hub goes, it is given up."""
        self.peek()
        self.hub.close()
        self.assertEqual(self.told, [None])

    def test_unix(self) -> None:
        """A unix socket, which would wake us for ever, is looked at by the clock."""
        peer = self.peek(socket.AF_UNIX)
        peer.send(HELLO[:100])
        self.pump.settle()
        self.assertEqual(self.hub.getReaders(), [])
        self.pump.advance(0.5)
        peer.send(HELLO[100:])
        self.assertEqual(self.told, [])
        self.pump.advance(0.5)
        self.assertEqual(self.told, ["a.example"])
        self.assertEqual(self.rest(), HELLO)

    def test_unix_too_late(self) -> None:
        """That too has its end."""
        peer = self.peek(socket.AF_UNIX, patience=3.0)
        peer.send(HELLO[:100])
        self.pump.settle()
        for _ in range(20):
            self.pump.advance(0.2)
            if self.told:
                break
        self.assertEqual(self.told, [None])
        self.assertAlmostEqual(self.pump.seconds(), 1003.2, delta=0.3)

    def test_behind_a_proxy(self) -> None:
        """The hello behind a PROXY header is looked at on the same socket, and stays whole."""
        case = self

        class Looking(ServerFactory):
            noisy = False

            def accept_socket(self, skt: socket.socket, peer: Any, port: Any) -> None:
                case.closing.append(skt)
                case.skt = skt
                HelloPeek(case.hub, case.deadlines, skt, case).start()

        prefaced = Prefaced(Looking(), self.hub, self.deadlines)
        peer = self.client(self.listen(prefaced))
        peer.send(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n" + HELLO[:50])
        self.pump.settle()
        self.assertEqual(self.told, [])
        peer.send(HELLO[50:])
        self.pump.until(lambda: self.told)
        self.assertEqual(self.told, ["a.example"])
        self.assertEqual(self.rest(), HELLO)
        self.ports.pop().stopListening()
        self.pump.settle()


class DirectHelloPeekTests(HelloPeekTests):
    """The same without epoll."""

    epoll = False

    def test_in_parts(self) -> None:
        """A hello may come in parts."""
        peer = self.peek()
        for at in range(0, len(HELLO), 100):
            self.assertEqual(self.told, [])
            peer.send(HELLO[at : at + 100])
            self.pump.settle()
        self.assertEqual(self.told, ["a.example"])
