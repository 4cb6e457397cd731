"""
Certificates for tests, and a TLS peer made of Python's own ssl module.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dynbalance.net.tls import KeyPair
from tests.net.pump import Peer

DAY = timedelta(days=1)


class Authority:
    """
    Issues certificates into a directory.

    @ivar file: its own certificate.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2000 * DAY)
            .not_valid_after(now + 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        self.file = str(directory / f"{name}.pem")
        Path(self.file).write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        *names: str,
        file: str = "server",
        begins: float = -1,
        ends: float = 10,
        self_signed: bool = False,
        client: bool = False,
        password: bytes = b"",
    ) -> KeyPair:
        """
        @param names: host names and IP addresses that it is for.
        @param begins: days from now.
        @param ends: likewise.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
        now = datetime.now(timezone.utc)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        certificate = builder.sign(key if self_signed else self.key, hashes.SHA256())
        pair = KeyPair(
            str(self.directory / f"{file}.crt"),
            str(self.directory / f"{file}.key"),
        )
        Path(pair.certificate).write_bytes(certificate.public_bytes(Encoding.PEM))
        how = BestAvailableEncryption(password) if password else NoEncryption()
        Path(pair.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        return pair


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def client_context(
    ca: str | None = None,
    pair: KeyPair | None = None,
    alpn: Iterable[str] = (),
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    oldest: ssl.TLSVersion = ssl.TLSVersion.MINIMUM_SUPPORTED,
) -> ssl.SSLContext:
    """How a test calls a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if oldest < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = oldest
    context.maximum_version = newest
    return context


def server_context(pair: KeyPair, client_ca: str | None = None) -> ssl.SSLContext:
    """How a test answers a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsPeer:
    """
    TLS over a L{Peer}.

    @ivar told: the peer's end was said in TLS.
    """

    def __init__(self, peer: Peer, context: ssl.SSLContext, server: bool, name: str = "") -> None:
        self.peer = peer
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._in, self._out, server, name or None)
        self.got = bytearray()
        self.told = False

    def flush(self) -> None:
        """Send what TLS has to say."""
        self.peer.send(self._out.read())

    def flush_quietly(self) -> None:
        """L{flush} to a peer that may be gone."""
        with suppress(OSError):
            self.flush()

    def _feed(self) -> None:
        self.peer.read()
        self._in.write(bytes(self.peer.got))
        self.peer.got.clear()

    def _until_done(self, step: Callable[[], Any]) -> Any:
        result: list[Any] = []

        def tried() -> bool:
            try:
                result.append(step())
            except ssl.SSLWantReadError:
                if self.peer.ended:
                    raise EOFError from None
                self.flush()
                self._feed()
                return False
            return True

        self.peer.pump.until(tried)
        self.flush()
        return result[0]

    def handshake(self) -> TlsPeer:
        self._until_done(self.ssl.do_handshake)
        return self

    def send(self, data: bytes) -> None:
        self.ssl.write(data)
        self.flush()

    def read(self) -> None:
        """Take what is there now."""
        self._feed()
        try:
            while not self.told:
                data = self.ssl.read(1 << 16)
                self.got += data
                self.told = not data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.told = True

    def expect(self, data: bytes) -> None:
        def came() -> bool:
            self.read()
            return len(self.got) >= len(data) or self.told or self.peer.ended

        self.peer.pump.until(came)
        assert bytes(self.got) == data, bytes(self.got[:100])
        self.got.clear()

    def expect_end(self) -> None:
        """Wait until the other side says, in TLS, that it has said all."""

        def came() -> bool:
            self.read()
            return self.told or self.peer.ended

        self.peer.pump.until(came)
        assert self.told

    def end(self) -> None:
        """Say no more, in TLS alone."""
        with suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        self.flush()
