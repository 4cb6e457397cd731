"""What stands between a port and who serves its connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.door import Door


class Behind(Factory):
    """Serves by protocols, and notes its beginnings and ends."""

    noisy = False

    def __init__(self) -> None:
        self.running = False

    def startFactory(self) -> None:
        self.running = True

    def stopFactory(self) -> None:
        self.running = False

    def buildProtocol(self, addr: Any) -> Protocol:
        protocol = Protocol()
        protocol.factory = self
        return protocol


class BareBehind(Behind):
    """Takes bare sockets."""

    def accept_socket(self, skt: Any, peer: Any, port: Any) -> None:
        """Nothing is done with it."""


class DoorTests(SynchronousTestCase):
    """One factory takes the place of another."""

    def test_factories(self) -> None:
        """Each runs while it is behind an open port."""
        door, first, second = Door(), Behind(), Behind()
        door.lead_to(first)
        self.assertFalse(first.running)
        door.doStart()
        door.lead_to(second)
        self.assertEqual((False, True), (first.running, second.running))
        door.lead_to(second)
        self.assertTrue(second.running)
        self.assertIs(second, door.buildProtocol(None).factory)
        door.doStop()
        self.assertFalse(second.running)

    def test_bare_sockets(self) -> None:
        """They are taken exactly by those factories that want them."""
        door, bare = Door(), BareBehind()
        self.assertFalse(hasattr(door, "accept_socket"))
        door.lead_to(bare)
        self.assertEqual(bare.accept_socket, door.accept_socket)
        door.lead_to(Behind())
        self.assertFalse(hasattr(door, "accept_socket"))
