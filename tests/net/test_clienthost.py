"""
Who a client is.
"""

from __future__ import annotations

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.clienthost import host_of


class HostTests(SynchronousTestCase):
    """L{host_of}."""

    def test_without_its_port(self) -> None:
        """It is the address alone, whichever way the client came."""
        self.assertEqual("10.0.0.1", host_of(("10.0.0.1", 5)))
        self.assertEqual("10.0.0.1", host_of(("::ffff:10.0.0.1", 5, 0, 0)))
        self.assertEqual("fe80::1", host_of(("fe80::1%eth0", 5, 0, 2)))
        self.assertEqual("fe80::1", host_of(IPv6Address("TCP", "fe80::1%eth0", 5)))
        self.assertEqual("127.0.0.1", host_of(UNIXAddress("/run/x")))
        self.assertEqual("127.0.0.1", host_of(""))
        self.assertEqual("127.0.0.1", host_of(None))
