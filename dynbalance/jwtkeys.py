"""
The keys that signed tokens are checked with.

Knows which key may be used with which algorithm, so that no token chooses a key
that was meant for something else (RFC 8725, sections 2.1 and 3.1); refuses to
know what a token says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

ALGORITHMS = (
    *(f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
)
"""Of RFC 7518 and RFC 8037; C{none} is not among them."""

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = tuple(f"{family}{bits}" for family in ("RS", "PS") for bits in (256, 384, 512))
_RSA_BITS = 2048
_MOST_KEYS = 100


class BadKey(ValueError):
    """A key is of no use; the text does not repeat it."""


@frozen(slots=True)
class Key:
    """
    @ivar material: what PyJWT takes.
    @ivar algorithms: the only ones that it may be used with.
    @ivar kid: its name; empty without one.
    """

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]
    kid: str = ""


def key_of(text: str, algorithms: Iterable[str]) -> Key:
    """
    @param text: a secret, or a public key in PEM.
    @raise BadKey: it does not fit every one of C{algorithms}.
    """
    wanted = tuple(algorithms)
    if all(name.startswith("HS") for name in wanted):
        key = _secret(text.encode())
    elif any(name.startswith("HS") for name in wanted):
        raise BadKey("one key cannot be both a secret (HS) and public (the other algorithms)")
    else:
        try:
            material = load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise BadKey("is no public key in PEM form") from None
        key = _public(material)
    for name in wanted:
        if name not in key.algorithms:
            raise BadKey(f"does not fit {name}")
    return key


def keys_of(document: object, algorithms: Iterable[str]) -> tuple[Key, ...]:
    """
    @param document: a JWK set (RFC 7517, section 5).
    @return: those of its keys that C{algorithms} can use.
    @raise BadKey: there is none, or the document is no such set.
    """
    wanted = set(algorithms)
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(members) > _MOST_KEYS:
        raise BadKey(f'is no JSON object with "keys", {_MOST_KEYS} at most')
    found = []
    for number, member in enumerate(members):
        try:
            key = _of_set(member)
        except BadKey as bad:
            raise BadKey(f"keys[{number}]: {bad}") from None
        if key is not None and wanted & set(key.algorithms):
            found.append(key)
    if not found:
        raise BadKey("holds no key for these algorithms")
    return tuple(found)


def _of_set(member: object) -> Key | None:
    """C{None} for a key that is not for signatures, or of a kind not known here."""
    if not isinstance(member, dict):
        raise BadKey("is no JSON object")
    if member.get("use", "sig") != "sig":
        return None
    try:
        # Without alg: PyJWT would not take every one that fits the key.
        material = PyJWK({name: each for name, each in member.items() if name != "alg"}).key
    except (PyJWTError, NotImplementedError):
        if member.get("kty") in ("RSA", "EC", "OKP", "oct"):
            raise BadKey("cannot be read") from None
        return None
    key = _secret(material) if isinstance(material, bytes) else _public(material)
    alg, kid = member.get("alg"), member.get("kid")
    algorithms = key.algorithms if alg is None else tuple(a for a in key.algorithms if a == alg)
    return Key(key.material, algorithms, kid if isinstance(kid, str) else "")


def _secret(secret: bytes) -> Key:
    """RFC 7518, section 3.2: at least as long as the hash."""
    if b"-----BEGIN" in secret:
        raise BadKey("is a key in PEM form, and so no secret for HS256, HS384 or HS512")
    fitting = tuple(f"HS{bits}" for bits in (256, 384, 512) if len(secret) * 8 >= bits)
    if not fitting:
        raise BadKey("is shorter than the 32 bytes that HS256 needs")
    return Key(secret, fitting)


def _public(material: Any) -> Key:
    if isinstance(material, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        material = material.public_key()
    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < _RSA_BITS:
            raise BadKey(f"is an RSA key of fewer than {_RSA_BITS} bits")
        return Key(material, _RSA)
    if isinstance(material, ec.EllipticCurvePublicKey):
        name = _CURVES.get(material.curve.name)
        return Key(material, (name,) if name else ())
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return Key(material, ("EdDSA",))
    raise BadKey("is of a kind that signs no tokens")
