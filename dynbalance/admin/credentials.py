"""
What an C{Authorization} field says (RFC 7617 and RFC 6750).

Knows the two schemes; refuses to know whom they let in.
"""

from __future__ import annotations

import base64
import binascii

from attrs import field, frozen


class Unreadable(Exception):
    """The field is there, and nobody can be known by it; says why."""


@frozen(slots=True)
class Password:
    """C{Basic}."""

    name: str
    secret: str = field(repr=False)


@frozen(slots=True)
class Token:
    """C{Bearer}."""

    text: str = field(repr=False)


def credentials_of(authorization: bytes) -> Password | Token:
    """
    @param authorization: the field's value.
    @raise Unreadable: without repeating anything of the value.
    """
    scheme, _, rest = authorization.strip().partition(b" ")
    kind = scheme.lower()
    if kind == b"basic":
        return _password(rest.strip())
    if kind == b"bearer":
        return _token(rest.strip())
    raise Unreadable("neither Basic nor Bearer")


def _password(text: bytes) -> Password:
    try:
        name, colon, secret = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise Unreadable("Basic without base64 of UTF-8") from None
    if not colon:
        raise Unreadable("Basic without a colon behind the name")
    return Password(name, secret)


def _token(text: bytes) -> Token:
    try:
        token = text.decode("ascii")
    except ValueError:
        raise Unreadable("Bearer with what is not ASCII") from None
    if not token or " " in token:
        raise Unreadable("Bearer without one token")
    return Token(token)
