"""
The tables of the admin listener: who may see and order what.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import deep_iterable

from dynbalance.config.listeners import HttpTlsConfig, Network
from dynbalance.config.ranges import (
    PRINTABLE,
    SOME,
    OptionError,
    endpoint,
    matches,
    no_repeats,
    one_of,
    within,
)

JWT_ALGORITHMS = (
    *(f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
)
ROLE = one_of("read", "agent", "admin")


@frozen(slots=True, kw_only=True)
class UserConfig:
    """One of C{admin.users}: HTTP Basic."""

    name: str = field(validator=matches(r"[^:\x00-\x1f\x7f]+", "a name without a colon"))
    password_hash: str = field(validator=SOME, repr=False)
    role: str = field(validator=ROLE)


@frozen(slots=True, kw_only=True)
class TokenConfig:
    """
    One of C{admin.tokens}: a bearer token.

    @ivar hosts: whose servers an agent may manage beside its own.
    """

    name: str = field(validator=SOME)
    token_hash: str = field(validator=SOME, repr=False)
    role: str = field(validator=ROLE)
    hosts: tuple[str, ...] = field(default=(), validator=deep_iterable(SOME))


@frozen(slots=True, kw_only=True)
class JwtConfig:
    """
    C{admin.jwt}: signed tokens of somebody else.

    @ivar key: the secret, or the public key in PEM.
    @ivar jwks_file: file of public keys, instead.
    @ivar audience: that the token must name; empty for any.
    @ivar issuer: that the token must name; empty for any.
    @ivar role_claim: where the token says the role.
    """

    algorithms: tuple[str, ...] = field(
        default=("HS256",), validator=[deep_iterable(one_of(*JWT_ALGORITHMS)), no_repeats]
    )
    key: str = field(default="", repr=False)
    jwks_file: str = field(default="", validator=PRINTABLE)
    audience: str = field(default="", validator=PRINTABLE)
    issuer: str = field(default="", validator=PRINTABLE)
    role_claim: str = field(default="role", validator=SOME)

    def __attrs_post_init__(self) -> None:
        if bool(self.key) == bool(self.jwks_file):
            raise OptionError("key", "set either key or jwks_file")


@frozen(slots=True, kw_only=True)
class RateLimitConfig:
    """C{admin.rate_limit}: requests of one client address a second."""

    rate: float = field(default=20.0, validator=within(0.01, 1e6))
    burst: int = field(default=40, validator=within(1, 10**6))


@frozen(slots=True, kw_only=True)
class AdminConfig:
    """
    C{[admin]}: the listener of the admin API.

    @ivar allow: networks let in; empty for all.
    @ivar audit_log: file; empty for none.
    """

    listen: str = field(default="tcp:8081:interface=127.0.0.1", validator=endpoint)
    tls: HttpTlsConfig | None = None
    users: tuple[UserConfig, ...] = ()
    tokens: tuple[TokenConfig, ...] = ()
    jwt: JwtConfig | None = None
    allow: tuple[Network, ...] = ()
    rate_limit: RateLimitConfig | None = None
    audit_log: str = field(default="", validator=PRINTABLE)
