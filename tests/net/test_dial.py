import os
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectError, ConnectionRefusedError

from dynbalance.balancer.address import Address
from dynbalance.net.dial import Dial, Target
from tests.net.building import NetCase
from tests.net.pump import Backend, unused_port


class Caller:
    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.failures: list[Any] = []

    def dialed(self, skt: socket.socket) -> None:
        self.sockets.append(skt)

    def dial_failed(self, reason: ConnectError) -> None:
        self.failures.append(reason)


class DialTests(NetCase):
    def dial(self, address: str) -> Caller:
        caller = Caller()
        Dial(self.hub, caller).start(Target.of(Address.parse(address)))
        self.pump.until(lambda: caller.sockets or caller.failures)
        self.closing += caller.sockets
        self.pump.settle()
        return caller

    def test_accepted(self) -> None:
        """The caller gets a connected, non-blocking socket that nobody watches."""
        backend = Backend(self.pump)
        self.closing.append(backend)
        caller = self.dial(f"127.0.0.1:{backend.port}")
        [skt] = caller.sockets
        peer = backend.accept()
        self.closing.append(peer)
        skt.send(b"hello")
        peer.expect(b"hello")
        self.assertEqual((caller.failures, self.hub.getWriters()), ([], []))
        self.assertEqual(skt.gettimeout(), 0.0)
        self.assertTrue(skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_refused(self) -> None:
        """A refusal is told once, as such."""
        caller = self.dial(f"127.0.0.1:{unused_port()}")
        [failure] = caller.failures
        self.assertIsInstance(failure, ConnectionRefusedError)

    def test_ipv6(self) -> None:
        """Addresses of IPv6 are dialed too."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
            caller = self.dial(f"[::1]:{listening.getsockname()[1]}")
            self.assertEqual(len(caller.sockets), 1)

    def test_unix(self) -> None:
        """So are unix sockets; one that is not there is an error."""
        path = f"/tmp/dynbalance-dial-{os.getpid()}.sock"
        self.assertEqual(len(self.dial(f"unix:{path}").failures), 1)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            self.addCleanup(os.unlink, path)
            listening.listen(0)
            self.assertEqual(len(self.dial(f"unix:{path}").sockets), 1)
            # Its backlog is full now.
            self.assertEqual(len(self.dial(f"unix:{path}").failures), 1)

    def waiting(self) -> tuple[Dial, Caller]:
        """A dial that nobody answers."""
        backend = Backend(self.pump, backlog=0)
        self.closing.append(backend)
        for _ in range(10):
            caller = Caller()
            dial = Dial(self.hub, caller)
            dial.start(Target(socket.AF_INET, ("127.0.0.1", backend.port)))
            self.pump.settle()
            self.closing += caller.sockets
            if not caller.sockets:
                return dial, caller
        raise AssertionError("everybody was answered")

    def test_cancelled(self) -> None:
        """A dial that is cancelled tells nobody and leaves nothing."""
        dial, caller = self.waiting()
        dial.cancel()
        dial.cancel()
        self.pump.settle()
        self.assertEqual((caller.sockets, caller.failures), ([], []))
        self.assertEqual(self.hub.getWriters(), [])

    def test_not_yet(self) -> None:
        """An event that is not the dial's own does not make it connected."""
        dial, caller = self.waiting()
        dial.doWrite()
        self.assertEqual((caller.sockets, caller.failures), ([], []))
        dial.cancel()
        dial.doWrite()

    def test_no_descriptor(self) -> None:
        """When there can be no socket that is a failure to connect."""
        caller = Caller()
        Dial(self.hub, caller).start(Target(999, None))
        self.assertEqual(len(caller.failures), 1)
        self.assertIsNotNone(caller.failures[0].osError)


class DirectDialTests(DialTests):
    """All of the above where there is no epoll."""

    epoll = False


class TargetTests(NetCase):
    def test_as_twisted(self) -> None:
        """A target has its address in Twisted's words."""
        for text, twisted in (
            ("127.0.0.1:80", IPv4Address("TCP", "127.0.0.1", 80)),
            ("[::1]:80", IPv6Address("TCP", "::1", 80)),
            ("unix:/run/x", UNIXAddress("/run/x")),
        ):
            self.assertEqual(Target.of(Address.parse(text)).as_twisted(), twisted)

    def test_of_twisted(self) -> None:
        """And is made from Twisted's."""
        for text in ("127.0.0.1:80", "[::1]:80"):
            target = Target.of(Address.parse(text))
            self.assertEqual(Target.of_twisted(target.as_twisted()), target)

    def test_name(self) -> None:
        """A name is no target."""
        self.assertRaises(OSError, Target.of, Address.parse("example.com:80"))
