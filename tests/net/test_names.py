import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import UnknownHostError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
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
        self.hasty: list[str] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0) -> Any:
        receiver.resolutionBegan(self)
        self.asked.append((hostName, portNumber, receiver))
        if self.hasty:
            self.answer(*self.hasty)
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

    def found(self, *hosts: str) -> None:
        """The name is asked for, and found."""
        self.asked()
        self.resolver.answer(*hosts)

    def places(self) -> "list[str]":
        """Where the name is, at once."""
        turns = [self.names.target(NAME) for _ in range(4)]
        return sorted({turn.sockaddr[0] for turn in turns})  # type: ignore[union-attr]

    def test_kept(self) -> None:
        """An answer is used at once; when it is C{ttl} old it is asked for again."""
        self.found("192.0.2.1")
        self.clock.advance(9.9)
        self.assertEqual(1, len(self.resolver.asked))
        self.clock.advance(0.1)
        self.assertEqual(2, len(self.resolver.asked))
        self.assertEqual(["192.0.2.1"], self.places())
        self.resolver.answer("192.0.2.2")
        self.assertEqual(["192.0.2.2"], self.places())
        self.clock.advance(10.0)
        self.assertEqual(3, len(self.resolver.asked))

    def test_silent(self) -> None:
        """While a resolver says nothing nobody waits, and nothing is asked twice."""
        self.found("192.0.2.1")
        for _ in range(100):
            self.clock.advance(1.0)
        self.assertEqual(["192.0.2.1"], self.places())
        self.assertEqual(2, len(self.resolver.asked))

    def test_vanished(self) -> None:
        """
        A name that is not found any more is where it was for an hour; one line of the
        log says so, and one that it is back.
        """
        said = self.log()
        self.found("192.0.2.1")
        for _ in range(3):
            self.clock.advance(10.0)
            self.resolver.answer()
        self.assertEqual(["192.0.2.1"], self.places())
        self.assertEqual(["warn"], said)
        self.clock.advance(10.0)
        self.resolver.answer("192.0.2.1")
        self.assertEqual(["warn", "info"], said)
        for _ in range(361):
            self.names.target(NAME)
            self.clock.advance(10.0)
            self.resolver.answer()
        self.assertEqual(["warn", "info", "warn", "error"], said)
        self.failureResultOf(self.asked(), UnknownHostError)
        self.clock.advance(1.0)
        again = self.asked()
        self.resolver.answer("192.0.2.3")
        self.assertEqual(target("192.0.2.3"), self.successResultOf(again))

    def test_unused(self) -> None:
        """A name that nobody has asked for in an hour is not looked up any more."""
        self.found("192.0.2.1")
        for _ in range(360):
            self.clock.advance(10.0)
            self.resolver.answer("192.0.2.1")
        self.assertEqual("<Names 1 known, 0 asked>", repr(self.names))
        self.clock.advance(10.0)
        self.assertEqual("<Names 0 known, 0 asked>", repr(self.names))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_moved(self) -> None:
        """
        Who wants to hears that a place was left, and hears it again for an hour; one
        more place is no move.
        """
        said, heard = self.log(), []
        self.names.moved = lambda address, targets: heard.append((address, list(targets)))
        self.found("192.0.2.1")
        for hosts in (("192.0.2.1",), ("192.0.2.2", "192.0.2.1")):
            self.clock.advance(10.0)
            self.resolver.answer(*hosts)
        self.assertEqual(([], ["info"]), (heard, said))
        self.clock.advance(10.0)
        self.resolver.answer("192.0.2.2")
        self.assertEqual([(NAME, [target("192.0.2.2")])], heard)
        self.assertEqual(["info"] * 2, said)
        for _ in range(400):
            self.names.target(NAME)
            self.clock.advance(10.0)
            self.resolver.answer("192.0.2.2")
        self.assertEqual(361, len(heard))

    def test_follow(self) -> None:
        """What is asked from now on is asked of somebody else, and as often as is said."""
        other = Resolver()
        self.names.follow(other, 2.0)  # type: ignore[arg-type]
        self.asked()
        self.assertEqual([], self.resolver.asked)
        other.answer("192.0.2.1")
        self.clock.advance(2.0)
        self.assertEqual(2, len(other.asked))
        self.names.follow(None, 2.0)
        other.answer("192.0.2.1")
        self.clock.advance(2.0)
        self.assertEqual(1, len(self.resolver.asked))

    def log(self) -> "list[str]":
        """The levels of the lines from now on."""
        said: list[str] = []

        def hear(event: Any) -> None:
            if event["log_namespace"].endswith("names.Names"):
                said.append(event["log_level"].name)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        return said

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

    def test_at_once(self) -> None:
        """A resolver may answer before it has returned."""
        self.resolver.hasty = ["192.0.2.1"]
        self.assertEqual(target("192.0.2.1"), self.successResultOf(self.asked()))

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
