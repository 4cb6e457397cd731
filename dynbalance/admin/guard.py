"""
Who is let in, and as whom.

Knows the rules: networks, how much one address may ask for, credentials, and
what a browser may be used for; refuses to know what is asked for, and how each
kind of credential is checked.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from attrs import field, frozen

from dynbalance.admin.answers import Refused
from dynbalance.admin.caller import Caller, Holder, Role, plain
from dynbalance.admin.certificate import Certificate
from dynbalance.admin.credentials import Password, Token, Unreadable, credentials_of
from dynbalance.admin.limits import Buckets
from dynbalance.admin.passwords import Busy, Passwords
from dynbalance.admin.tokens import NotGood, SignedTokens, Tokens
from dynbalance.config import Network
from dynbalance.log import Logger

PENALTY = 5.0
"""What a failed authentication takes from a bucket beside the request itself."""

GUESSES = 10
"""Wrong passwords in a row from one address; then one in L{PAUSE} seconds."""

PAUSE = 5.0

_CHALLENGES = {
    "basic": b'Basic realm="dynbalance", charset="UTF-8"',
    "bearer": b'Bearer realm="dynbalance"',
}


class Wrong(Refused):
    """
    Credentials were shown, and nobody can be known by them.

    @ivar claimed: who the caller says it is; empty if it does not.
    """

    def __init__(
        self, message: str, headers: tuple[tuple[bytes, bytes], ...], claimed: str = ""
    ) -> None:
        super().__init__(401, message, headers)
        self.claimed = claimed


@frozen(slots=True, kw_only=True)
class Shown:
    """
    What a request shows of its caller.

    @ivar address: where it came from; empty when that has none.
    @ivar authorization: the header field.
    @ivar certificate: of the connection, already judged.
    """

    address: str
    authorization: bytes | None = field(default=None, repr=False)
    certificate: Certificate | None = None


@frozen(slots=True, kw_only=True)
class Knowledge:
    """
    By what people are known.

    @ivar certificates: what a certificate alone is good for; C{None} for
        nothing.
    @ivar asks: whether anything of this has to be shown.
    """

    passwords: Passwords | None = None
    tokens: Tokens | None = None
    signed: SignedTokens | None = None
    certificates: Role | None = None
    asks: bool = True


class Guard:
    """
    @param hosts: names by which an API that asks for nothing may be called.
    @param networks: those that are let in; none of them for all.
    @param limit: C{None} for no limit.
    @param guesses: of passwords.
    """

    _log = Logger()

    def __init__(
        self,
        knowledge: Knowledge,
        *,
        hosts: Iterable[str] = (),
        networks: Iterable[Network] = (),
        limit: Buckets | None = None,
        guesses: Buckets | None = None,
    ) -> None:
        self._by = knowledge
        self._hosts = frozenset(host.lower() for host in hosts)
        self._networks = tuple(networks)
        self._limit = limit
        self._guesses = guesses

    def __repr__(self) -> str:
        return f"<Guard that asks for {'credentials' if self._by.asks else 'nothing'}>"

    # Before anything else

    def admit(self, address: str) -> None:
        """
        @raise Refused: nothing that comes from there is answered, or nothing
            now.
        """
        if not self._lets_in(address):
            raise Refused(403, "Requests from this address are refused")
        if self._limit is None or not address:
            return
        wait = self._limit.wait(address)
        if wait:
            raise _later(wait, "Too many requests from this address")
        self._limit.take(address)

    def _lets_in(self, address: str) -> bool:
        if not self._networks or not address:
            # A unix socket is guarded by the file system.
            return True
        try:
            ip = ipaddress.ip_address(plain(address))
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    # What browsers may be used for

    def check_host(self, address: str, host: bytes | None) -> None:
        """
        Where nothing is asked for, whoever gets a browser on this machine to
        believe that a name of theirs is 127.0.0.1 would be let in (DNS
        rebinding).  An address cannot be made to mean another.

        @raise Refused: the name is not one of ours.
        """
        if self._by.asks or not address or not host:
            return
        try:
            name = (urlsplit(f"//{host.decode('latin-1')}").hostname or "").rstrip(".")
        except ValueError:
            name = ""
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Refused(
                403, "Requests by this host name are refused; admin.hosts names those that are not"
            ) from None

    # Who it is

    async def identify(self, shown: Shown) -> Caller:
        """
        @raise Wrong: by what is shown nobody is known.
        @raise Refused: nothing is shown, or it cannot be judged now.
        """
        certificate, role = shown.certificate, self._by.certificates
        if not self._by.asks:
            return Caller(address=shown.address, role=Role.ADMIN)
        if shown.authorization is not None:
            holder = await self._holder(shown.authorization, shown.address)
        elif certificate is not None and role is not None:
            holder = Holder(name=certificate.name, role=role, hosts=certificate.hosts)
        else:
            raise Refused(401, "Credentials are needed", self._challenges())
        return Caller(
            address=shown.address,
            name=holder.name,
            role=holder.role,
            hosts=holder.hosts,
            lasts=holder.lasts,
        )

    async def _holder(self, authorization: bytes, address: str) -> Holder:
        claimed, holder = "", None
        try:
            credentials = credentials_of(authorization)
            if isinstance(credentials, Password):
                claimed = credentials.name
                holder = await self._by_password(credentials, address)
            else:
                holder = self._by_token(credentials)
        except (Unreadable, NotGood) as error:
            why = str(error)
        else:
            why = "the name or the password is wrong"
        if holder is not None:
            return holder
        self._count(address)
        self._log.warn(
            "Nobody was let in from {address}: {why}", address=address or "a socket", why=why
        )
        raise Wrong(
            "The credentials are wrong", self._challenges(b', error="invalid_token"'), claimed
        )

    async def _by_password(self, shown: Password, address: str) -> Holder | None:
        passwords = self._by.passwords
        if passwords is None:
            raise Unreadable("Basic, and there are no users")
        known = passwords.known(shown)
        if known is not None:
            return known
        wait = self._guesses.wait(address) if self._guesses is not None else 0.0
        if wait:
            raise _later(wait, "Too many wrong passwords from this address")
        try:
            holder = await passwords.holder(shown)
        except Busy:
            raise Refused(
                503, "Too many passwords are being checked", ((b"retry-after", b"1"),)
            ) from None
        if holder is None and self._guesses is not None:
            self._guesses.take(address)
        return holder

    def _by_token(self, shown: Token) -> Holder:
        if self._by.tokens is not None:
            holder = self._by.tokens.holder(shown.text)
            if holder is not None:
                return holder
        if self._by.signed is not None:
            return self._by.signed.holder(shown.text)
        raise NotGood("the token is not known")

    def _count(self, address: str) -> None:
        if self._limit is not None and address:
            self._limit.take(address, PENALTY)

    def _challenges(self, error: bytes = b"") -> tuple[tuple[bytes, bytes], ...]:
        """What to come with (RFC 9110, section 11.6.1): one field for each scheme."""
        fields = []
        if self._by.passwords is not None:
            fields.append((b"www-authenticate", _CHALLENGES["basic"]))
        if self._by.tokens is not None or self._by.signed is not None or not fields:
            fields.append((b"www-authenticate", _CHALLENGES["bearer"] + error))
        return tuple(fields)


def require(caller: Caller, role: Role, what: str) -> None:
    """
    @param what: is to be done; for people.
    @raise Refused: C{caller} may not.
    """
    if not caller.role.includes(role):
        raise Refused(403, f"{what} needs the role {role.value}; {caller} has {caller.role.value}")


def refuse_others(caller: Caller, host: str) -> None:
    """@raise Refused: servers of this host are not the caller's."""
    if not caller.may_manage(host):
        raise Refused(
            403,
            f"{caller} may manage servers of its own address and its hosts only: {host} is neither",
        )


def refuse_strangers(
    origin: bytes | None, fetch_site: bytes | None, host: bytes | None
) -> None:
    """
    Browsers let any page send a form to any address that they reach, with a
    password that they know; they say whose page it is.

    @param origin: the header field.
    @param fetch_site: C{Sec-Fetch-Site}.
    @raise Refused: for an order from a page of somebody else.
    """
    foreign = False
    if fetch_site is not None:
        # The browser has compared, and by what it sees; a proxy may change Host.
        foreign = fetch_site.strip() not in (b"same-origin", b"none")
    elif origin is not None:
        try:
            theirs = urlsplit(origin).netloc.lower()
        except ValueError:
            theirs = b""
        foreign = not theirs or theirs != (host or b"").lower()
    if foreign:
        raise Refused(403, "Orders from pages of another origin are refused")


def _later(wait: float, message: str) -> Refused:
    return Refused(429, message, ((b"retry-after", b"%d" % math.ceil(wait)),))


def guesses(now: Callable[[], float]) -> Buckets:
    """How often one address may show wrong passwords."""
    return Buckets(1 / PAUSE, GUESSES, now)


OPEN = Guard(Knowledge(asks=False))
"""Lets everybody do everything, and browsers be used by their own pages only."""
