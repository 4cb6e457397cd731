import errno
import os
import socket
from typing import Any

from dynbalance.net import port as port_module
from tests.net.building import Factory, NetCase, Notes


class Bare(Factory):
    """Takes sockets as they are."""

    def __init__(self) -> None:
        super().__init__(Notes)
        self.sockets: list[socket.socket] = []

    def accept_socket(self, skt: socket.socket, peer: Any, port: Any) -> None:
        self.sockets.append(skt)


class PortTests(NetCase):
    def test_bare_sockets(self) -> None:
        """A factory that asks for it gets non-blocking sockets, without delay of small packets."""
        factory = Bare()
        port = self.listen(factory)
        self.client(port)
        self.pump.until(lambda: factory.sockets)
        [skt] = factory.sockets
        self.closing.append(skt)
        self.assertEqual(skt.gettimeout(), 0.0)
        self.assertTrue(skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertEqual(factory.built, [])

    def test_refused_by_the_factory(self) -> None:
        """Without a protocol the connection is closed."""
        self.client(self.listen(Factory(lambda: None))).expect_end()

    def test_mistake_of_the_factory(self) -> None:
        """When the factory raises, the connection is closed and the next is accepted."""
        factory = Factory(lambda: 1 / 0)
        port = self.listen(factory)
        self.client(port).expect_end()
        factory.kind = Notes
        self.client(port).send(b"x")
        self.pump.until(lambda: factory.built and factory.built[0].got)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_mistake_of_the_protocol(self) -> None:
        """When C{connectionMade} raises, the connection is lost and nothing is left of it."""

        class Bad(Notes):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        factory = Factory(Bad)
        self.client(self.listen(factory)).expect_end()
        self.assertEqual(len(factory.built[0].lost), 1)
        self.assertEqual(self.hub.getReaders(), self.ports)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_crowd(self) -> None:
        """More clients than one turn accepts are all served."""
        factory = Factory(Notes)
        port = self.listen(factory)
        for _ in range(150):
            self.client(port)
        self.pump.until(lambda: len(factory.built) == 150)

    def exhaust(self, code: int) -> tuple[Any, Any]:
        """A port whose C{accept} fails."""
        factory = Factory(Notes)
        self.listen(factory)
        [port] = self.ports
        real = port.socket

        class Exhausted:
            calls = 0

            def accept(self) -> Any:
                self.calls += 1
                raise OSError(code, "none left")

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port.socket = Exhausted()
        return factory, real

    def test_no_descriptor_left(self) -> None:
        """Accepting pauses when the process has no descriptor left, and goes on later."""
        factory, real = self.exhaust(errno.EMFILE)
        [port] = self.ports
        peer = self.client(real.getsockname()[1])
        self.pump.until(lambda: port.socket.calls)
        self.pump.settle()
        self.assertEqual(port.socket.calls, 1)
        port.socket = real
        self.pump.settle()
        self.assertEqual(factory.built, [])
        self.pump.advance(0.25)
        peer.send(b"at last")
        self.pump.until(lambda: factory.built and factory.built[0].got == b"at last")

    def test_few_descriptors_left(self) -> None:
        """
        While few are left nobody is let in, and one more than there should be at
        most; the others wait for room.
        """
        factory = Factory(Notes)
        number = self.listen(factory)
        below = 0
        self.patch(port_module, "below_for_clients", lambda: below)
        for _ in range(3):
            self.client(number)
        self.pump.until(lambda: factory.built)
        for _ in range(8):
            self.pump.advance(0.25)
            self.pump.settle()
        self.assertEqual(1, len(factory.built))
        below = 1_000_000
        self.pump.advance(0.25)
        self.pump.until(lambda: len(factory.built) == 3)

    def test_stopped_while_pausing(self) -> None:
        """A port that pauses can be stopped for good."""
        _, real = self.exhaust(errno.ENFILE)
        [port] = self.ports
        self.client(real.getsockname()[1])
        self.pump.until(lambda: port.socket.calls)
        port.socket = real
        stopped = port.stopListening()
        self.pump.settle()
        self.successResultOf(stopped)
        self.ports.clear()

    def test_client_gone_before(self) -> None:
        """An error that is the client's is passed over, a bounded number of times."""
        _, real = self.exhaust(errno.ECONNABORTED)
        [port] = self.ports
        self.client(real.getsockname()[1])
        self.pump.until(lambda: port.socket.calls)
        port.socket = real
        self.pump.until(lambda: port.factory.built)

    def test_adopted_unix_socket(self) -> None:
        """A unix socket that somebody else opened keeps its mode and, at the end, its path."""
        path = self.mktemp()
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.setblocking(False)
            theirs.bind(path)
            theirs.listen()
            os.chmod(path, 0o640)
            factory = Factory(Notes)
            port = self.hub.adoptStreamPort(theirs.fileno(), socket.AF_UNIX, factory)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.send(b"x")
                self.pump.until(lambda: factory.built and factory.built[0].got == b"x")
            self.pump.until(lambda: factory.built[0].lost)
            port.stopListening()
            self.pump.settle()
            self.assertEqual(0o640, os.stat(path).st_mode & 0o777)
            # It was not shut either: who has it still listens.
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

    def test_few_in_a_turn(self) -> None:
        """A port that others share takes no more than it is told to in a turn."""
        factory = Factory(Notes)
        number = self.listen(factory)
        [port] = self.ports
        port.accepts = 1
        port.stopReading()
        for _ in range(3):
            self.client(number)
        port.doRead()
        self.assertEqual(1, len(factory.built))
        port.startReading()
        self.pump.until(lambda: len(factory.built) == 3)


class DirectPortTests(PortTests):
    """All of the above where there is no epoll."""

    epoll = False
