"""
The tables of the admin listener: who may see and order what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable

from dynbalance.balancer.address import Address
from dynbalance.config.listeners import ListenerTlsConfig, Network
from dynbalance.config.ranges import (
    PRINTABLE,
    SOME,
    Check,
    OptionError,
    endpoint,
    matches,
    no_repeats,
    one_of,
    within,
)
from dynbalance.hashes import is_password_hash, is_token_hash
from dynbalance.jwtkeys import ALGORITHMS, BadKey, key_of

ROLE = one_of("read", "agent", "admin")


def _hash(is_one: Callable[[str], bool], wanted: str) -> Check:
    def check(instance: Any, attribute: Attribute[Any], value: str) -> None:
        if not is_one(value):
            raise ValueError(f"is not {wanted}")

    return check


def _host(instance: Any, attribute: Attribute[Any], value: str) -> None:
    """A server's host, as L{Address} has it."""
    Address.of(value, 1)


@frozen(slots=True, kw_only=True)
class AdminTlsConfig(ListenerTlsConfig):
    """
    C{admin.tls}.

    @ivar client_role: what a client's certificate alone lets its owner do.
        Empty: everything where there are neither users, tokens nor jwt, else
        nothing, since it is asked for beside those then.
    """

    client_role: str = field(default="", validator=one_of("", "read", "agent", "admin"))

    def __attrs_post_init__(self) -> None:
        # Slots make another class of this one, which super() would not find.
        ListenerTlsConfig.__attrs_post_init__(self)
        if self.client_role and not self.client_ca:
            raise OptionError("client_role", "there is no client_ca whose certificates have it")


@frozen(slots=True, kw_only=True)
class UserConfig:
    """One of C{admin.users}: HTTP Basic."""

    name: str = field(validator=matches(r"[^:\x00-\x1f\x7f]+", "a name without a colon"))
    password_hash: str = field(
        validator=_hash(
            is_password_hash, "a hash by argon2id, as dynbalancectl hash-password makes it"
        ),
        repr=False,
    )
    role: str = field(validator=ROLE)


@frozen(slots=True, kw_only=True)
class TokenConfig:
    """
    One of C{admin.tokens}: a bearer token.

    @ivar hosts: whose servers an agent may manage beside its own.
    """

    name: str = field(validator=SOME)
    token_hash: str = field(
        validator=_hash(is_token_hash, "sha256:HEX, as dynbalancectl token prints it"),
        repr=False,
    )
    role: str = field(validator=ROLE)
    hosts: tuple[str, ...] = field(default=(), validator=deep_iterable(_host))


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
        default=("HS256",), validator=[deep_iterable(one_of(*ALGORITHMS)), no_repeats]
    )
    key: str = field(default="", repr=False)
    jwks_file: str = field(default="", validator=PRINTABLE)
    audience: str = field(default="", validator=PRINTABLE)
    issuer: str = field(default="", validator=PRINTABLE)
    role_claim: str = field(default="role", validator=SOME)

    def __attrs_post_init__(self) -> None:
        if bool(self.key) == bool(self.jwks_file):
            raise OptionError("key", "set either key or jwks_file")
        if not self.algorithms:
            raise OptionError("algorithms", "there is none")
        if self.key:
            try:
                key_of(self.key, self.algorithms)
            except BadKey as bad:
                raise OptionError("key", str(bad)) from None


@frozen(slots=True, kw_only=True)
class RateLimitConfig:
    """C{admin.rate_limit}: requests of one client address a second."""

    rate: float = field(default=20.0, validator=within(0.01, 1e6))
    burst: int = field(default=40, validator=within(1, 10**6))


@frozen(slots=True, kw_only=True)
class AdminConfig:
    """
    C{[admin]}: the listener of the admin API.

    @ivar hosts: further names by which browsers may call an API that asks for
        no credentials.
    @ivar allow: networks let in; empty for all.
    @ivar audit_log: file; empty for none.
    """

    listen: str = field(default="tcp:8081:interface=127.0.0.1", validator=endpoint)
    tls: AdminTlsConfig | None = None
    users: tuple[UserConfig, ...] = ()
    tokens: tuple[TokenConfig, ...] = ()
    jwt: JwtConfig | None = None
    hosts: tuple[str, ...] = field(default=(), validator=deep_iterable(_host))
    allow: tuple[Network, ...] = ()
    rate_limit: RateLimitConfig | None = None
    audit_log: str = field(default="", validator=PRINTABLE)

    def __attrs_post_init__(self) -> None:
        for option, tables in (("users", self.users), ("tokens", self.tokens)):
            names = [table.name for table in tables]
            for name in names:
                if names.count(name) > 1:
                    raise OptionError(option, f"two of them are named {name!r}")

    @property
    def has_credentials(self) -> bool:
        """Whether anybody can say who they are in a request."""
        return bool(self.users or self.tokens or self.jwt is not None)

    @property
    def client_role(self) -> str:
        """What a client's certificate alone is good for; empty for nothing."""
        if self.tls is None or not self.tls.client_ca:
            return ""
        return self.tls.client_role or ("" if self.has_credentials else "admin")
