"""
How secrets are kept: as hashes, of which the secret cannot be told.

A password is something that people choose, so its hash is made slow
(argon2id).  A token is 256 bits of chance: nobody guesses it, and a fast hash
lets it be checked with each request.  Refuses to know who may do what.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

TOKEN_BYTES = 32

_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HASHER = PasswordHasher()


def hash_password(password: str) -> str:
    """
    @return: C{$argon2id$…}, with a salt of its own, by the parameters that
        RFC 9106 recommends where memory is scarce.
    """
    return _HASHER.hash(password)


def is_password_hash(text: str) -> bool:
    """Whether L{password_matches} can work with it."""
    try:
        return extract_parameters(text).type is Type.ID
    except InvalidHashError:
        return False


def password_matches(password: str, password_hash: str) -> bool:
    """Takes some 50 ms on purpose: not for the reactor's thread."""
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def new_token(randomness: Callable[[int], bytes]) -> str:
    """
    @param randomness: so many bytes that nobody can foretell.
    @return: letters, digits, C{-} and C{_}.
    """
    return base64.urlsafe_b64encode(randomness(TOKEN_BYTES)).rstrip(b"=").decode()


def hash_token(token: str) -> str:
    """@return: C{sha256:} and the digest in hexadecimal."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def is_token_hash(text: str) -> bool:
    """Whether it can be what L{hash_token} returns."""
    return _TOKEN_HASH.match(text) is not None
