import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import UnknownHostError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.net import names
from dynbalance.net.dial import Target
from dynbalance.net.names import Names

NAME = Address.of("backend.example", 80)


def target(host: str) -> Target:
    return Target(socket.AF_INET, (host, 80))


class Resolver:
    """A reactor's C{nameResolver} that answers when told to."""

    def __init__(self) -> None:
        self.nameResolver = self
        self.asked: list[Any] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0) -> Any:
        receiver.resolutionBegan(self)
        self.asked.append((hostName, portNumber, receiver))
        return receiver

    def answer(self, *hosts: str) -> None:
        _, port, receiver = self.asked[-1]
        for host in hosts:
            receiver.addressResolved(IPv4Address("TCP", host, port))
        receiver.resolutionComplete()


class NamesTests(TestCase):
    def setUp(self) -> None:
        self.resolver = Resolver()
        self.clock = Clock()
        self.names = Names(self.resolver, self.clock, ttl=10.0)

    def asked(self, address: Address = NAME) -> "Deferred[Target]":
        answer = self.names.target(address)
        assert isinstance(answer, Deferred)
        return answer

    def test_numeric(self) -> None:
        """Numeric addresses are answered at once, with the same target each time."""
        address = Address.of("127.0.0.1", 80)
        self.assertEqual(self.names.target(address), target("127.0.0.1"))
        self.assertIs(self.names.target(address), self.names.target(address))
        self.assertEqual(self.resolver.asked, [])

    def test_many(self) -> None:
        """The targets of ten thousand servers that take turns are all at hand."""
        servers = [Address.of(f"10.0.{n // 250}.{n % 250}", 80) for n in range(10_000)]
        targets = [self.names.target(server) for server in servers]
        for server, kept in zip(servers, targets, strict=True):
            self.assertIs(kept, self.names.target(server))

    def test_asked_once(self) -> None:
        """All who ask for a name at the same time share one question."""
        first, second = self.asked(), self.asked()
        self.assertEqual([asked[:2] for asked in self.resolver.asked], [("backend.example", 80)])
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.successResultOf(first), target("192.0.2.1"))
        self.assertEqual(self.successResultOf(second), target("192.0.2.1"))

    def test_kept(self) -> None:
        """An answer is used at once until it is C{ttl} old, and then asked for again."""
        self.asked()
        self.resolver.answer("192.0.2.1")
        self.clock.advance(9.9)
        self.assertEqual(self.names.target(NAME), target("192.0.2.1"))
        self.clock.advance(0.1)
        again = self.asked()
        self.resolver.answer("192.0.2.2")
        self.assertEqual(self.successResultOf(again), target("192.0.2.2"))

    def test_turns(self) -> None:
        """Several addresses of a name are used in turn."""
        self.asked()
        hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        self.resolver.answer(*hosts)
        got = [self.names.target(NAME) for _ in range(6)]
        self.assertEqual(got[:3], got[3:])
        self.assertEqual({t.sockaddr[0] for t in got[:3]}, set(hosts))  # type: ignore[union-attr]

    def test_unknown(self) -> None:
        """An unknown name fails, for a second at most without asking again."""
        first = self.asked()
        self.resolver.answer()
        self.failureResultOf(first, UnknownHostError)
        self.clock.advance(0.9)
        self.failureResultOf(self.asked(), UnknownHostError)
        self.assertEqual(len(self.resolver.asked), 1)
        self.clock.advance(0.1)
        again = self.asked()
        self.resolver.answer("192.0.2.1")
        self.successResultOf(again)

    def test_given_up(self) -> None:
        """Who gives up waiting does not take the answer from the others."""
        first, second = self.asked(), self.asked()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.resolver.answer("192.0.2.1")
        self.successResultOf(second)

    def test_cancelled_by_a_waiter(self) -> None:
        """Who hears the answer first may make the next one give up."""
        first, second = self.asked(), self.asked()
        second.addErrback(lambda failure: None)
        first.addCallback(lambda _: second.cancel())
        self.resolver.answer("192.0.2.1")
        self.successResultOf(second)

    def test_bounded(self) -> None:
        """However many addresses are asked for, a limited number is kept."""
        self.patch(names, "_LIMIT", 10)
        for number in range(50):
            self.names.target(Address.of(f"10.0.0.{number}", 80))
            self.asked(Address.of(f"n{number}.example", 80))
            self.resolver.answer("192.0.2.1")
        self.assertEqual(repr(self.names), "<Names 10 known, 0 asked>")

    def test_real(self) -> None:
        """The reactor's own resolver finds localhost."""
        from twisted.internet import reactor

        answer = Names(reactor, self.clock).target(Address.of("localhost", 80))
        assert isinstance(answer, Deferred)
        return answer.addCallback(lambda t: self.assertIn(t.sockaddr[0], ("127.0.0.1", "::1")))  # type: ignore[return-value]
