"""
Certificates and keys out of PEM files.

Knows what may be wrong with such a file, and says so with the path of the
option that names it; refuses to know what the certificates are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_NAMES = 10


def use_pair(
    context: SSL.Context, certificate: str, key: str, option: str, problems: list[str]
) -> list[str]:
    """
    Let C{context} show a certificate.

    @param option: path of the table that both options are in.
    @param problems: gets a line for each mistake.
    @return: the names that the certificate is for, in lower case.
    """
    chain = _certificates(certificate, f"{option}.certificate", problems)
    public = _public_key(key, f"{option}.key", problems)
    if not chain or public is None:
        return []
    shown = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if shown != public:
        problems.append(f"{option}.key: {key} is not the key of {certificate}")
        return []
    _use(lambda: context.use_certificate_chain_file(certificate), f"{option}.certificate", problems)
    _use(lambda: context.use_privatekey_file(key), f"{option}.key", problems)
    return _dns_names(chain[0])


def trust(context: SSL.Context, authorities: str, option: str, problems: list[str]) -> bool:
    """
    Let C{context} believe in the certificates of a file and what they issued.

    @param option: the path of the option that names the file.
    @return: whether the file is of use.
    """
    if not _certificates(authorities, option, problems):
        return False
    return _use(lambda: context.load_verify_locations(authorities), option, problems)


def ask_for(context: SSL.Context, authorities: str, option: str, problems: list[str]) -> None:
    """L{trust}, and tell clients whose certificates are asked for."""
    if trust(context, authorities, option, problems):
        _use(lambda: context.load_client_ca(authorities.encode()), option, problems)


def names_of(certificate: x509.Certificate) -> list[str]:
    """Some of whom C{certificate} is for, to be written in a message."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*_dns_names(certificate), *map(str, addresses)][:_MOST_NAMES]


def reasons(failed: SSL.Error) -> str:
    """What OpenSSL says of a failure."""
    queue = failed.args[0] if failed.args else ()
    return ", ".join(entry[-1] for entry in queue if entry[-1]) or "a failure without a reason"


def _dns_names(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    if names is None:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def _read(file: str, option: str, problems: list[str]) -> bytes | None:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as failed:
        problems.append(f"{option}: {file}: {failed.strerror or failed}")
        return None


def _certificates(file: str, option: str, problems: list[str]) -> list[x509.Certificate]:
    data = _read(file, option, problems)
    if data is None:
        return []
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm):
        problems.append(f"{option}: {file} holds no certificate in PEM form")
        return []


def _public_key(file: str, option: str, problems: list[str]) -> bytes | None:
    data = _read(file, option, problems)
    if data is None:
        return None
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        problems.append(f"{option}: {file} is protected by a password; it must not be")
    except (ValueError, UnsupportedAlgorithm):
        problems.append(f"{option}: {file} holds no private key in PEM form")
    else:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return None


def _use(step: Callable[[], None], option: str, problems: list[str]) -> bool:
    try:
        step()
    except SSL.Error as failed:
        problems.append(f"{option}: OpenSSL refuses it: {reasons(failed)}")
        return False
    return True
