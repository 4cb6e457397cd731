"""Tests of whom a client's certificate is for."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.admin.certificate import Certificate, certificate_of

KEY = ec.generate_private_key(ec.SECP256R1())


def issued(common: str = "", *names: x509.GeneralName) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256())


class CertificateTests(SynchronousTestCase):
    """L{Certificate}."""

    def test_name(self) -> None:
        """The common name comes first, then the alternative ones, then the serial number."""
        dns, mail = x509.DNSName("Box.example"), x509.RFC822Name("ann@example")
        for shown, name in (
            (issued("ann", dns), "ann"),
            (issued("", mail, dns), "box.example"),
            (issued("", mail), "ann@example"),
            (issued(), "certificate abc"),
            (issued("a\nb"), "certificate abc"),
        ):
            self.assertEqual(name, Certificate.read(shown).name)

    def test_hosts(self) -> None:
        """Names and addresses are hosts, written as servers' are."""
        mapped = x509.IPAddress(ipaddress.ip_address("::ffff:10.0.0.1"))
        read = Certificate.read(issued("ann", x509.DNSName("Box.example"), mapped))
        self.assertEqual({"box.example", "10.0.0.1"}, read.hosts)
        self.assertEqual(frozenset(), Certificate.read(issued("box.example")).hosts)

    def test_of_a_connection(self) -> None:
        """A connection without TLS, or without a certificate, shows none."""

        class Transport:
            shown: X509 | None = None

            def getPeerCertificate(self) -> X509 | None:
                return self.shown

        self.assertIsNone(certificate_of(object()))
        transport = Transport()
        self.assertIsNone(certificate_of(transport))
        transport.shown = X509.from_cryptography(issued("ann"))
        found = certificate_of(transport)
        self.assertEqual("ann", found and found.name)
