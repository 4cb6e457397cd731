"""
Bearer tokens: those of the configuration file, and signed ones.

Knows when a token is good and whose it is; refuses to know how it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hmac import compare_digest
from typing import Any, TypeGuard

import jwt
from attrs import frozen
from jwt.exceptions import PyJWTError

from dynbalance.admin.caller import Holder, Role
from dynbalance.balancer.address import Address
from dynbalance.config import JwtConfig, TokenConfig
from dynbalance.errors import BadAddress
from dynbalance.hashes import hash_token
from dynbalance.jwtkeys import Key

LEEWAY = 10.0
"""Seconds that the clock of who signs may be off."""

_LONGEST = 16384
_LONGEST_NAME = 200
_MOST_HOSTS = 100

_OPTIONS: Mapping[str, bool] = {
    # By a clock that is given, below.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    # What would not be a text is nobody's name, below.
    "verify_sub": False,
    "verify_jti": False,
}


class NotGood(Exception):
    """A token lets nobody in; says why, and nothing of the token."""


class Tokens:
    """Those whose hashes are in the configuration file."""

    def __init__(self, tokens: Iterable[TokenConfig]) -> None:
        self._tokens = tuple(
            (
                token.token_hash,
                Holder(
                    name=token.name,
                    role=Role(token.role),
                    hosts=_hosts(token.hosts),
                ),
            )
            for token in tokens
        )

    def __repr__(self) -> str:
        return f"<Tokens: {', '.join(holder.name for _, holder in self._tokens)}>"

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def holder(self, text: str) -> Holder | None:
        """Whose it is.  All are looked at, whichever it is."""
        shown = hash_token(text)
        found = [holder for known, holder in self._tokens if compare_digest(shown, known)]
        return found[0] if found else None


@frozen(slots=True)
class SignedTokens:
    """
    JSON Web Tokens (RFC 7519), judged as RFC 8725 asks: by algorithms of ours,
    each with keys that are meant for it.

    @ivar wall: seconds since the epoch.
    """

    settings: JwtConfig
    keys: tuple[Key, ...]
    wall: Callable[[], float]

    def holder(self, text: str) -> Holder:
        """@raise NotGood: it is nobody's."""
        claims = self._claims(text)
        lasts = self._lasts(claims)
        name = claims.get("sub")
        return Holder(
            name=name if _is_name(name) else "jwt",
            role=self._role(claims),
            hosts=_hosts(claims.get("hosts")),
            lasts=lasts,
        )

    def _claims(self, text: str) -> dict[str, Any]:
        if len(text) > _LONGEST:
            raise NotGood("it is too long")
        try:
            header = jwt.get_unverified_header(text)
        except PyJWTError:
            raise NotGood("it is neither a known token nor a signed one") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if "crit" in header:
            # RFC 7515, section 4.1.11: not to be passed over.
            raise NotGood("it needs something that is not known here")
        if algorithm not in self.settings.algorithms:
            raise NotGood("its algorithm is not one of ours")
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is not None and any(key.kid for key in self.keys):
            fitting = [key for key in fitting if key.kid in ("", kid)]
        options: Any = {**_OPTIONS, "verify_aud": bool(self.settings.audience)}
        why = "no key of ours is the one that it names"
        for key in fitting:
            try:
                claims: dict[str, Any] = jwt.decode(
                    text,
                    key.material,
                    algorithms=[algorithm],
                    audience=self.settings.audience or None,
                    issuer=self.settings.issuer or None,
                    options=options,
                )
            except jwt.InvalidSignatureError:
                why = "its signature is wrong"
            except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
                raise NotGood("it is for another audience or by another issuer") from None
            except jwt.MissingRequiredClaimError as missing:
                raise NotGood(f"it has no {missing.claim}") from None
            except (PyJWTError, ValueError, TypeError):
                raise NotGood("it cannot be read") from None
            else:
                return claims
        raise NotGood(why)

    def _lasts(self, claims: dict[str, Any]) -> float:
        """@return: seconds until it has expired."""
        now = self.wall()
        expires, begins = _moment(claims.get("exp")), _moment(claims.get("nbf", 0))
        if expires is None or begins is None:
            raise NotGood("it does not say as a number when it expires")
        if expires + LEEWAY <= now:
            raise NotGood("it has expired")
        if begins - LEEWAY > now:
            raise NotGood("it is not valid yet")
        return expires + LEEWAY - now

    def _role(self, claims: dict[str, Any]) -> Role:
        said = claims.get(self.settings.role_claim)
        names = said if isinstance(said, list) else [said]
        # The greatest of several.
        for role in reversed(Role):
            if role.value in names:
                return role
        raise NotGood(f"its {self.settings.role_claim} is none of read, agent and admin")


def _is_name(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and said.isprintable() and 0 < len(said) <= _LONGEST_NAME


def _moment(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return None


def _hosts(said: object) -> frozenset[str]:
    """Those of a list that can be a server's, written as servers' are."""
    hosts = set()
    for host in said[:_MOST_HOSTS] if isinstance(said, list | tuple) else ():
        try:
            hosts.add(Address.of(str(host), 1).host)
        except BadAddress:
            continue
    return frozenset(hosts)
