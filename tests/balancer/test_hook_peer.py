"""Addresses of peers, in nginx's words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.balancer.peer import parse_peer
from dynbalance.errors import BalancerError

WORDS = {
    "no host allowed",
    "no host",
    "invalid port",
    "invalid host",
    "invalid IPv6 address",
    "no path in the unix domain socket",
    "too long path in the unix domain socket",
}


class AcceptedTests(TestCase):
    """What is a peer's address."""

    def test_forms(self) -> None:
        """IPv4, IPv6 in brackets and unix sockets, each in one way of writing."""
        for addr, address in (
            ("127.0.0.3:12345", Address("127.0.0.3", 12345)),
            ("[::1]:80", Address("::1", 80)),
            ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80)),
            ("[::ffff:192.0.2.7]:80", Address("192.0.2.7", 80)),
            ("0.0.0.0:80", Address("0.0.0.0", 80)),
            ("unix:/run/web.sock", Address("unix:/run/web.sock", 0)),
            ("UNIX:/run/web.sock", Address("unix:/run/web.sock", 0)),
            ("unix:/" + "a" * 106, Address("unix:/" + "a" * 106, 0)),
        ):
            self.assertEqual(parse_peer(addr), address)

    def test_port_argument(self) -> None:
        """The argument is the port of an address without one."""
        self.assertEqual(parse_peer("127.0.0.2", 8080), Address("127.0.0.2", 8080))
        self.assertEqual(parse_peer("[::1]", 8080), Address("::1", 8080))

    def test_port_in_the_address_wins(self) -> None:
        """A port inside the address is stronger than the argument."""
        self.assertEqual(parse_peer("127.0.0.3:12345", 1), Address("127.0.0.3", 12345))
        self.assertEqual(parse_peer("[::1]:12345", 1), Address("::1", 12345))

    def test_no_port_anywhere(self) -> None:
        """Without a port it is 0, where nobody can be reached."""
        self.assertEqual(parse_peer("127.0.0.2"), Address("127.0.0.2", 0))
        self.assertEqual(parse_peer("127.0.0.2", None), Address("127.0.0.2", 0))
        self.assertEqual(parse_peer("[::1]"), Address("::1", 0))

    def test_port_of_another_type(self) -> None:
        """A text that is a number is one, and a fraction is cut off."""
        for port in ("8080", " 8080 ", "08080", "8080.0", "8080.9", "0x1f90", 8080.0, 8080.9):
            self.assertEqual(parse_peer("127.0.0.2", port).port, 8080, port)

    def test_port_argument_is_not_checked(self) -> None:
        """The argument is cut to 16 bits, as nginx does it."""
        for port, cut in ((65536, 0), (65616, 80), (-1, 65535), ("65616", 80)):
            self.assertEqual(parse_peer("127.0.0.2", port).port, cut)


class RefusedTests(TestCase):
    """What is none, and why."""

    def assert_refused(self, why: str, *addrs: str) -> None:
        for addr in addrs:
            error = self.assertRaises(BalancerError, parse_peer, addr, 80)
            self.assertEqual(str(error), why, addr)

    def test_names(self) -> None:
        """Nothing is looked up; what only resolvers take for an address is a name."""
        self.assert_refused(
            "no host allowed",
            "a.example",
            "a.example:80",
            "localhost",
            "127.1",
            "1.2.3.4.5",
            "1.2.3.256",
            "255.255.255.255",
            "010.0.0.1",
            "1..2.3",
            " 127.0.0.1",
        )

    def test_no_host(self) -> None:
        """An empty host."""
        self.assert_refused("no host", "", ":80", "[]", "[]:80")

    def test_port(self) -> None:
        """A port in the address is checked, and an IPv6 address needs brackets."""
        self.assert_refused(
            "invalid port",
            "1.2.3.4:0",
            ":99999",
            "1.2.3.4:65536",
            "1.2.3.4:x",
            "1.2.3.4:",
            "1.2.3.4:80:90",
            "1.2.3.4:+80",
            "1.2.3.4:" + "0" * 5000 + "80",
            "1.2.3.4:\u0661",
            "::1",
            "2001:db8::1",
            "[::1]:0",
            "[::1]:",
            "[::1]:80?x",
        )

    def test_host(self) -> None:
        """Parts of a URL, and brackets that do not close."""
        self.assert_refused(
            "invalid host", "1.2.3.4/x", "a?b", "1.2.3.4:80/", "[::1", "[::1]x", "[::1]:80/x"
        )

    def test_ipv6(self) -> None:
        """What is in brackets is an IPv6 address, without a zone."""
        self.assert_refused("invalid IPv6 address", "[zz]", "[1.2.3.4]", "[fe80::1%lo]:80")

    def test_unix(self) -> None:
        """A unix socket has a path that fits, in bytes."""
        self.assert_refused("no path in the unix domain socket", "unix:")
        self.assert_refused(
            "too long path in the unix domain socket",
            "unix:/" + "a" * 107,
            "unix:/" + "\u00e4" * 54,
        )

    def test_types(self) -> None:
        """Another type than text is a mistake in the hook's code."""
        for addr in (None, 5, b"127.0.0.1"):
            error = self.assertRaises(TypeError, parse_peer, addr, 80)
            self.assertIn("string expected", str(error))
        for port in ("http", "", "8080x", "1_0", True, float("nan"), float("inf"), [80]):
            self.assertRaises(TypeError, parse_peer, "127.0.0.1", port)

    @given(st.text(alphabet="0123456789.:[]/?ux ni%fa", max_size=40), st.integers(0, 65535))
    def test_any_text(self, addr: str, port: int) -> None:
        """Whatever the text, there is an address without a name, or nginx's words."""
        try:
            address = parse_peer(addr, port)
        except BalancerError as error:
            self.assertIn(str(error), WORDS)
        else:
            self.assertTrue(address.is_numeric)
            self.assertTrue(0 <= address.port <= 65535)
            if address.port or address.is_unix:
                self.assertEqual(parse_peer(str(address)), address)
