"""
Protocols and hubs for the tests of what bytes travel on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from dynbalance.net.direct import carrier
from dynbalance.net.hub import Hub
from tests.net.pump import Peer, Pump, descriptors
from tests.temporary import Temporary


class Notes(Protocol):
    """Remembers what happens to it."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.lost: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.lost.append(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfNotes(Notes):
    """Hears of the end of each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


class Source:
    """A producer that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Factory(ServerFactory):
    """Makes one kind of protocol, and keeps them."""

    noisy = False

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.built: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        made = self.kind()
        self.built.append(made)
        return made


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that are logged meanwhile, as they would be written."""
    lines: list[str] = []

    def note(event: dict[str, Any]) -> None:
        line = formatEvent(event)
        if line:
            lines.append(line)

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


class NetCase(Temporary, TestCase):
    """
    A hub on a pumped reactor, of which nothing may be left.
    """

    epoll = True

    def setUp(self) -> None:
        self.before = descriptors()
        self.pump = Pump()
        self.hub: Hub = carrier(self.pump, self.epoll)
        self.closing: list[Any] = []
        self.ports: list[Any] = []

    def tearDown(self) -> None:
        for thing in self.closing:
            thing.close()
        for port in self.ports:
            port.stopListening()
        self.pump.settle()
        self.hub.close()
        self.assertEqual(self.hub.removeAll(), [])
        self.assertEqual(self.pump.readers | self.pump.writers, set())
        self.assertEqual(self.pump.getDelayedCalls(), [])
        self.assertEqual(descriptors(), self.before)

    def listen(self, factory: Any, interface: str = "127.0.0.1") -> int:
        port = self.hub.listenTCP(0, factory, interface=interface)
        self.ports.append(port)
        number: int = port.getHost().port
        return number

    def client(self, port: int, host: str = "127.0.0.1") -> Peer:
        peer = Peer.connect(self.pump, port, host)
        self.closing.append(peer)
        return peer

    def pair(self, kind: Any = Notes) -> tuple[Any, Peer]:
        """A protocol on the hub, and the other end."""
        factory = Factory(kind)
        peer = self.client(self.listen(factory))
        self.pump.until(lambda: factory.built and factory.built[0].transport)
        return factory.built[0], peer
