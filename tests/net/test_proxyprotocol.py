import socket
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.proxyprotocol import (
    MAX_V1,
    MAX_V2,
    BrokenHeader,
    Preface,
    PrefaceReader,
    header,
    plain_host,
)
from tests.net.prefacing import outcome

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
CLIENT = IPv4Address("TCP", "192.0.2.1", 56324)
US = IPv4Address("TCP", "198.51.100.7", 443)
CLIENT6 = IPv6Address("TCP", "2001:db8::1", 56324)
US6 = IPv6Address("TCP", "2001:db8::7", 443)


def read(data: bytes) -> Preface | None:
    return PrefaceReader().feed(data)


def v2(command: int, kind: int, block: bytes, rest: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block + rest


BLOCK4 = bytes((192, 0, 2, 1, 198, 51, 100, 7)) + struct.pack("!HH", 56324, 443)
BLOCK6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + struct.pack("!HH", 56324, 443)
)
GOOD = (
    b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::7 56324 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN what ever this is\r\n",
    v2(0x21, 0x11, BLOCK4),
    v2(0x21, 0x21, BLOCK6),
    v2(0x21, 0x11, BLOCK4 + b"\x04\x00\x02hi"),
    v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")),
    v2(0x21, 0x00, b""),
    v2(0x21, 0x12, BLOCK4),
    v2(0x21, 0x02, b"anything"),
    v2(0x20, 0x11, BLOCK4),
    v2(0x20, 0x00, b""),
)
BROKEN = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"PROXZ TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY " + bytes(MAX_V1),
    b"PROXY UNKNOWN" + b" " * MAX_V1 + b"\r\n",
    SIGNATURE + b"\x31\x11\x00\x0c" + BLOCK4,
    SIGNATURE + b"\x22\x11\x00\x0c" + BLOCK4,
    SIGNATURE + b"\x21\x11\x00\x0b" + BLOCK4,
    SIGNATURE + b"\x21\x11\xff\xff" + BLOCK4,
    SIGNATURE[:-1] + b"\r\n",
)


class PrefaceReaderTests(SynchronousTestCase):
    def test_version_1(self) -> None:
        """TCP4 and TCP6 say both ends; what follows the line is the connection's."""
        self.assertEqual(read(GOOD[0] + b"GET /"), Preface(CLIENT, US, b"GET /"))
        self.assertEqual(read(GOOD[1]), Preface(CLIENT6, US6, b""))

    def test_version_1_unknown(self) -> None:
        """UNKNOWN says nothing, and the rest of its line is ignored."""
        self.assertEqual(read(GOOD[2] + b"x"), Preface(None, None, b"x"))
        self.assertEqual(read(GOOD[3] + b"x"), Preface(None, None, b"x"))

    def test_version_1_longest(self) -> None:
        """A line may have 107 bytes with its end, and not one more."""
        line = b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"x") + b"\r\n"
        self.assertEqual(read(line + b"y"), Preface(None, None, b"y"))
        with self.assertRaisesRegex(BrokenHeader, "no end of line within 107 bytes"):
            read(line[:-2] + b"x\r\n")

    def test_version_1_addresses(self) -> None:
        """Addresses, ports and spaces are taken to the letter."""
        for bad, why in (
            (b"TCP4 1.2.3 1.2.3.4 1 2", "'1.2.3' is not an address of TCP4"),
            (b"TCP4 1.2.3.4 1.2.3.256 1 2", "'1.2.3.256' is not an address of TCP4"),
            (b"TCP4 01.2.3.4 1.2.3.4 1 2", "'01.2.3.4' is not an address"),
            (b"TCP4 ::1 ::1 1 2", "'::1' is not an address of TCP4"),
            (b"TCP6 1.2.3.4 ::1 1 2", "'1.2.3.4' is not an address of TCP6"),
            (b"TCP6 fe80::1%lo ::1 1 2", "is not an address of TCP6"),
            (b"TCP4 1.2.3.4 1.2.3.4 65536 2", "'65536' is not a port"),
            (b"TCP4 1.2.3.4 1.2.3.4 01 2", "'01' is not a port"),
            (b"TCP4 1.2.3.4 1.2.3.4 -1 2", "'-1' is not a port"),
            (b"TCP4 1.2.3.4 1.2.3.4 1 ", "'' is not a port"),
            (b"TCP4 1.2.3.4 1.2.3.4 1", "two addresses and two ports"),
            (b"TCP4 1.2.3.4 1.2.3.4 1 2 3", "two addresses and two ports"),
            (b"TCP4  1.2.3.4 1.2.3.4 1 2", "two addresses and two ports"),
            (b"TCP4 1.2.3.4 1.2.3.4 1 \xb2", "not ASCII"),
            (b"tcp4 1.2.3.4 1.2.3.4 1 2", "not TCP4, TCP6 or UNKNOWN"),
            (b"UNKNOWNS", "not TCP4, TCP6 or UNKNOWN"),
            (b"UNKNOWN a\nb", "a CR or an LF alone"),
        ):
            with self.assertRaisesRegex(BrokenHeader, why):
                read(b"PROXY " + bad + b"\r\n")

    def test_version_1_zero(self) -> None:
        """Port 0 is a port."""
        preface = read(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n")
        assert preface is not None
        self.assertEqual(preface.source, IPv4Address("TCP", "0.0.0.0", 0))

    def test_version_2(self) -> None:
        """TCP over both kinds of IP, and unix sockets, say both ends; extensions are skipped."""
        self.assertEqual(read(GOOD[4] + b"x"), Preface(CLIENT, US, b"x"))
        self.assertEqual(read(GOOD[5]), Preface(CLIENT6, US6, b""))
        self.assertEqual(read(GOOD[6] + b"x"), Preface(CLIENT, US, b"x"))
        self.assertEqual(read(GOOD[7]), Preface(UNIXAddress("/run/a"), UNIXAddress("/run/b"), b""))

    def test_version_2_says_nothing(self) -> None:
        """LOCAL, an unspecified and an unknown family say nothing; their bytes are skipped."""
        for data in GOOD[8:]:
            self.assertEqual(read(data + b"x"), Preface(None, None, b"x"))

    def test_version_2_longest(self) -> None:
        """A header up to the limit is read, a longer one is refused before it has come."""
        block = BLOCK4.ljust(MAX_V2 - 16, b"\0")
        self.assertEqual(read(v2(0x21, 0x11, block, b"x")), Preface(CLIENT, US, b"x"))
        with self.assertRaisesRegex(BrokenHeader, "longer than 16384 bytes"):
            read(v2(0x21, 0x11, block + b"\0")[:16])

    def test_version_2_broken(self) -> None:
        """Another version, command or length than there can be is an error that says which."""
        for data, why in zip(
            BROKEN[6:10],
            ("command are 0x31", "command are 0x22", "too small for its", "longer than"),
            strict=True,
        ):
            with self.assertRaisesRegex(BrokenHeader, why):
                read(data)

    def test_hopeless_at_once(self) -> None:
        """What cannot become a header is refused with its first wrong byte."""
        for data in (b"G", b"PX", b"\n", SIGNATURE[:11] + b"\0", b"\x16\x03\x01"):
            with self.assertRaisesRegex(BrokenHeader, "does not begin like"):
                read(data)

    @given(st.sampled_from(GOOD + BROKEN), st.binary(max_size=30), st.data())
    def test_any_split(self, begin: bytes, rest: bytes, data: st.DataObject) -> None:
        """However the bytes are split, the answer or the error is the same."""
        whole = begin + rest
        cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        self.assertEqual(outcome(pieces), outcome([whole]))
        self.assertEqual(outcome([whole[i : i + 1] for i in range(len(whole))]), outcome([whole]))

    @given(st.binary(max_size=200), st.sampled_from((b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE)))
    def test_any_bytes(self, tail: bytes, begin: bytes) -> None:
        """Arbitrary bytes are a header, part of one, or broken, and nothing else happens."""
        outcome([begin + tail])


class HeaderTests(SynchronousTestCase):
    def test_version_1(self) -> None:
        """Client, listener, and their ports, in this order."""
        self.assertEqual(header(1, CLIENT, US), b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n")
        self.assertEqual(
            header(1, CLIENT6, US6), b"PROXY TCP6 2001:db8::1 2001:db8::7 56324 443\r\n"
        )

    def test_version_1_unknown(self) -> None:
        """A unix socket and no client at all are UNKNOWN."""
        unix = UNIXAddress("/run/a")
        for ends in ((unix, unix), (unix, US), (CLIENT, unix), (None, None)):
            self.assertEqual(header(1, *ends), b"PROXY UNKNOWN\r\n")

    def test_version_2(self) -> None:
        """The same in binary, unix sockets too."""
        self.assertEqual(header(2, CLIENT, US), v2(0x21, 0x11, BLOCK4))
        self.assertEqual(header(2, CLIENT6, US6), v2(0x21, 0x21, BLOCK6))
        paths = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
        self.assertEqual(
            header(2, UNIXAddress("/run/a"), UNIXAddress("/run/b")), v2(0x21, 0x31, paths)
        )

    def test_version_2_says_nothing(self) -> None:
        """Ends of two kinds are unspecified; without a client we speak for ourselves."""
        self.assertEqual(header(2, UNIXAddress("/run/a"), US), v2(0x21, 0x00, b""))
        self.assertEqual(header(2, None, None), v2(0x20, 0x00, b""))

    def test_one_family(self) -> None:
        """An IPv4 end of a connection whose other end is IPv6 is written in IPv6's form."""
        self.assertEqual(
            header(1, CLIENT, US6), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::7 56324 443\r\n"
        )
        mapped = IPv6Address("TCP", "::ffff:192.0.2.1", 56324)
        mapped_us = IPv6Address("TCP", "::ffff:198.51.100.7", 443)
        self.assertEqual(header(1, mapped, mapped_us), header(1, CLIENT, US))
        self.assertEqual(header(2, mapped, mapped_us), header(2, CLIENT, US))

    def test_scope(self) -> None:
        """A scope is ours alone and is not told."""
        local = IPv6Address("TCP", "fe80::1%eth0", 1)
        self.assertEqual(header(1, local, US6), b"PROXY TCP6 fe80::1 2001:db8::7 1 443\r\n")
        self.assertEqual(plain_host(local), "fe80::1")

    @given(
        st.sampled_from((1, 2)),
        st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4))
        | st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    )
    def test_there_and_back(self, version: int, ips: tuple, ports: tuple) -> None:
        """What is written is read as the same two ends."""
        of_type = IPv4Address if ips[0].version == 4 else IPv6Address
        ends = [of_type("TCP", str(ip), port) for ip, port in zip(ips, ports, strict=True)]
        preface = read(header(version, *ends) + b"rest")
        assert preface is not None
        self.assertEqual(preface.rest, b"rest")
        for found, end in zip((preface.source, preface.destination), ends, strict=True):
            self.assertEqual((plain_host(found), found.port), (plain_host(end), end.port))
