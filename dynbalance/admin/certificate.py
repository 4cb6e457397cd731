"""
Whom a client's certificate is for.

The handshake has judged it already; what is left is what it says.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import NameOID

from dynbalance.admin.caller import plain


@frozen(slots=True)
class Certificate:
    """
    @ivar name: the subject's common name, else the first of the alternative
        ones, else the serial number.
    @ivar hosts: the host names and IP addresses among the alternative names.
    """

    name: str
    hosts: frozenset[str] = frozenset()

    @classmethod
    def read(cls, shown: x509.Certificate) -> Certificate:
        """What C{shown} says."""
        others = _alternative_names(shown)
        hosts = [name.lower() for name in others.get_values_for_type(x509.DNSName)]
        hosts += [plain(str(ip)) for ip in others.get_values_for_type(x509.IPAddress)]
        more = [
            *others.get_values_for_type(x509.RFC822Name),
            *others.get_values_for_type(x509.UniformResourceIdentifier),
        ]
        common = [str(each.value) for each in _common_names(shown)]
        names = [name for name in (*common, *hosts, *more) if name and name.isprintable()]
        name = names[0] if names else f"certificate {shown.serial_number:x}"
        return cls(name, frozenset(hosts))


def certificate_of(transport: Any) -> Certificate | None:
    """
    @param transport: of a connection; may be one without TLS.
    @return: C{None} where the client has shown none.
    """
    peer = getattr(transport, "getPeerCertificate", None)
    shown = peer() if peer is not None else None
    return None if shown is None else Certificate.read(shown.to_cryptography())


def _common_names(shown: x509.Certificate) -> list[x509.NameAttribute[Any]]:
    try:
        return list(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    except ValueError:
        return []


def _alternative_names(shown: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return x509.SubjectAlternativeName([])
