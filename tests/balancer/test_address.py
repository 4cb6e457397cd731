"""Addresses: parsed once, written one way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.errors import BadAddress


class ParseTests(TestCase):
    """Text that is an address."""

    def test_one_way_of_writing(self) -> None:
        """Each address has one text, whatever form it came in."""
        for text, written in (
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("Web-1.Example:8080", "web-1.example:8080"),
            ("my_service:080", "my_service:80"),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]:443"),
            ("[::]:1", "[::]:1"),
            ("[::ffff:192.0.2.7]:80", "192.0.2.7:80"),
            ("host.:65535", "host.:65535"),
            ("unix:/run/web.sock", "unix:/run/web.sock"),
        ):
            self.assertEqual(str(Address.parse(text)), written)
            self.assertEqual(str(Address.parse(written)), written)

    def test_parts(self) -> None:
        """Host, port and path are apart, without brackets."""
        self.assertEqual(Address.parse("[::1]:80"), Address("::1", 80))
        self.assertEqual(Address.parse("unix:/run/a b"), Address("unix:/run/a b", 0))
        self.assertEqual(Address.parse("unix:/run/a b").path, "/run/a b")

    def test_kinds(self) -> None:
        """What needs a name server and what does not."""
        for text, numeric, unix in (
            ("10.0.0.1:80", True, False),
            ("[::1]:80", True, False),
            ("unix:/a", True, True),
            ("web:80", False, False),
        ):
            address = Address.parse(text)
            self.assertEqual((address.is_numeric, address.is_unix), (numeric, unix), text)

    def test_host_with_or_without_brackets(self) -> None:
        """A host given by itself may be in brackets or not."""
        self.assertEqual(Address.of("[::1]", 80), Address.of("::1", 80))


class RefusalTests(TestCase):
    """Text that is none, and what is said of it."""

    def test_each_mistake_is_named(self) -> None:
        """The text of the error tells what is wrong."""
        for text, problem in (
            ("web", "'web' is not host:port"),
            (":80", "':80' is not host:port"),
            ("", "'' is not host:port"),
            ("web:", "'web:': '' is not a port"),
            ("web:http", "'web:http': 'http' is not a port"),
            ("web:-1", "'web:-1': '-1' is not a port"),
            ("web:\u0661", "'web:\u0661': '\u0661' is not a port"),
            ("web:0", "port 0 is not in 1-65535"),
            ("web:70000", "port 70000 is not in 1-65535"),
            ("::1:80", "'::1:80': an IPv6 address needs brackets"),
            ("[::g]:80", "'[::g]' is not an IPv6 address"),
            ("[web]:80", "'[web]' is not an IPv6 address"),
            ("[]:80", "'[]' is not an IPv6 address"),
            ("256.1.1.1:80", "'256.1.1.1' is not an IPv4 address"),
            ("127.1:80", "'127.1' is not an IPv4 address"),
            ("0x7f.0x1:80", "'0x7f.0x1' is not an IPv4 address"),
            ("2130706433:80", "'2130706433' is not an IPv4 address"),
            ("a b:80", "'a b' is not a host name or an IP address"),
            ("-a:80", "'-a' is not a host name or an IP address"),
            ("a-:80", "'a-' is not a host name or an IP address"),
            ("a..b:80", "'a..b' is not a host name or an IP address"),
            ("http://web:80", "'http://web:80': an IPv6 address needs brackets"),
            ("a\n:80", "'a\\n' is not a host name or an IP address"),
            ("unix:run", "'unix:run' has no absolute path after unix:"),
            ("unix:/a\0b", "'unix:/a\\x00b': the path holds control characters"),
        ):
            error = self.assertRaises(BadAddress, Address.parse, text)
            self.assertEqual(str(error), problem)

    def test_lengths(self) -> None:
        """Names and socket paths have the longest length that systems take."""
        label = 63 * "a"
        Address.parse(f"{label}:80")
        self.assertRaises(BadAddress, Address.parse, f"a{label}:80")
        Address.parse(f"{label}.{label}.{label}.{61 * 'a'}:80")
        self.assertRaises(BadAddress, Address.parse, f"{label}.{label}.{label}.{62 * 'a'}:80")
        Address.parse("unix:/" + 106 * "a")
        self.assertRaises(BadAddress, Address.parse, "unix:/" + 107 * "a")

    def test_is_a_value_error(self) -> None:
        """Whoever expects a plain bad value gets one."""
        self.assertRaises(ValueError, Address.of, "web", 0)

    @given(st.one_of(st.text(), st.from_regex(r"[\[\]a-z0-9:.%/-]{1,20}:[0-9]{1,6}")))
    def test_any_text(self, text: str) -> None:
        """Any text is refused or understood, and what is understood stays the same."""
        try:
            address = Address.parse(text)
        except BadAddress:
            return
        self.assertEqual(Address.parse(str(address)), address)
