import ssl
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.clienthello import MAX_HELLO, Hello, NotTls, read_hello


def real(name: str | None, oldest_only: bool = False) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if oldest_only:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake without a peer")


def vector(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, body)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in names)))


def message(extensions: bytes | None, session: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, b"\x13\x01") + b"\x01\x00"
    if extensions is not None:
        body += vector(2, extensions)
    return b"\x01" + vector(3, body)


def records(handshake: bytes, size: int = 16384) -> bytes:
    pieces = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def answer(data: bytes) -> object:
    try:
        return read_hello(data)
    except NotTls as wrong:
        return str(wrong)


class ReadHelloTests(SynchronousTestCase):
    def test_real_clients(self) -> None:
        """The name is found in what OpenSSL sends, for TLS 1.3 and 1.2."""
        self.assertEqual(read_hello(real("a.example")), Hello("a.example"))
        self.assertEqual(read_hello(real("a.example", True)), Hello("a.example"))

    def test_no_name(self) -> None:
        """A client may ask for no server, or have no extensions at all."""
        self.assertEqual(read_hello(real(None)), Hello(""))
        self.assertEqual(read_hello(records(message(None))), Hello(""))
        self.assertEqual(read_hello(records(message(b""))), Hello(""))

    def test_lower_case(self) -> None:
        """Names are compared in lower case."""
        self.assertEqual(read_hello(records(message(sni(b"A.Example")))), Hello("a.example"))

    def test_other_extensions(self) -> None:
        """The name is found among extensions, and among names of other kinds."""
        other = extension(43, b"\x02\x03\x04")
        named = extension(0, vector(2, b"\x07" + vector(2, b"?") + b"\0" + vector(2, b"b.example")))
        self.assertEqual(
            read_hello(records(message(other + named + other, bytes(32)))), Hello("b.example")
        )
        self.assertEqual(read_hello(records(message(sni(b"x", kind=9)))), Hello(""))

    def test_bytes_behind(self) -> None:
        """What follows the message does not matter."""
        self.assertEqual(read_hello(real("a.example") + b"\x17garbage"), Hello("a.example"))

    def test_fragmented(self) -> None:
        """The message may be cut into records of any size."""
        handshake = message(sni(b"a.example"))
        for size in (1, 2, 3, 4, 5, 50):
            self.assertEqual(read_hello(records(handshake, size)), Hello("a.example"))

    def test_any_prefix(self) -> None:
        """Every part of a hello is waited for, and the whole of it decides."""
        for data in (real("a.example"), records(message(sni(b"a.example")), 7)):
            for end in range(len(data)):
                self.assertIsNone(read_hello(data[:end]))
            self.assertEqual(read_hello(data), Hello("a.example"))

    def test_not_tls(self) -> None:
        """Other protocols are told from their first bytes."""
        for data, why in (
            (b"GET / HTTP/1.1\r\n\r\n", "does not begin with a record"),
            (b"S", "does not begin with a record"),
            (b"\x80\x2e\x01\x03\x01", "does not begin with a record"),
            (b"\x16\x02", "not a version of TLS"),
            (b"\x16\x03\x01\x00\x00", "an empty record"),
            (b"\x16\x03\x01\x00\x05\x02", "not a ClientHello"),
            (records(message(sni(b"a"))[:9], 9) + b"\x17", "does not begin with a record"),
        ):
            with self.assertRaisesRegex(NotTls, why):
                read_hello(data)

    def test_too_large(self) -> None:
        """A message that says or takes more than is looked at is refused."""
        with self.assertRaisesRegex(NotTls, "more than 16384 bytes"):
            read_hello(b"\x16\x03\x01\x40\x00\x01\x00\x40\x00")
        padded = message(extension(21, bytes(MAX_HELLO - 100)))
        self.assertEqual(read_hello(records(padded)), Hello(""))
        with self.assertRaisesRegex(NotTls, "more than 16384 bytes"):
            read_hello(records(padded, 10)[:MAX_HELLO])

    def test_malformed(self) -> None:
        """Lengths that do not fit, two names, and names that are none, are refused."""
        good = sni(b"a.example")
        for extensions, why in (
            (good[:-1], "do not fit"),
            (good + b"\0", "do not fit"),
            (extension(0, b""), "do not fit"),
            (extension(0, vector(2, b"")), "do not fit"),
            (extension(0, vector(2, b"\0" + vector(2, b"a")) + b"\0"), "do not fit"),
            (good + good, "twice"),
            (sni(b"a", b"b"), "twice"),
            (sni(b""), "is no name"),
            (sni(b"a..b"), "is no name"),
            (sni(b"a\0b"), "is no name"),
            (sni(b"a."), "is no name"),
            (sni(b"a" * 64), "is no name"),
            (sni(b".".join([b"a" * 60] * 5)), "is no name"),
        ):
            with self.assertRaisesRegex(NotTls, why):
                read_hello(records(message(extensions)))
        with self.assertRaisesRegex(NotTls, "do not fit"):
            read_hello(records(b"\x01" + vector(3, bytes(20))))
        body = message(good)[4:] + b"\0"
        with self.assertRaisesRegex(NotTls, "do not fit"):
            read_hello(records(b"\x01" + vector(3, body)))

    @given(st.data())
    def test_answers_stay(self, data: st.DataObject) -> None:
        """Once there is an answer, more bytes do not change it."""
        good = records(message(sni(b"a.example")), data.draw(st.integers(1, 80)))
        at = data.draw(st.integers(0, len(good) - 1))
        byte = data.draw(st.integers(0, 255))
        changed = good[:at] + bytes((byte,)) + good[at + 1 :]
        answers = [answer(changed[:end]) for end in range(len(changed) + 1)]
        decided = [found for found in answers if found is not None]
        self.assertEqual(len(set(decided[:1])), len(set(decided)))

    @given(
        st.binary(max_size=300),
        st.sampled_from((b"", b"\x16\x03\x01", b"\x16\x03\x01\x01\x00\x01")),
    )
    def test_any_bytes(self, tail: bytes, begin: bytes) -> None:
        """Arbitrary bytes have a name, none, are too few, or are refused."""
        answer(begin + tail)
