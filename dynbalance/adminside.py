"""
The admin API of a node: its port, who is let in, and where it is written down.

Knows how all of that goes on by another configuration; refuses to know what is
asked of the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from zope.interface import implementer

from dynbalance.admin.api import BODY_LIMIT
from dynbalance.admin.caller import Role
from dynbalance.admin.guard import Guard, Knowledge, guesses
from dynbalance.admin.limits import Buckets
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.passwords import Passwords
from dynbalance.admin.site import AdminSite
from dynbalance.admin.table import UpstreamApi
from dynbalance.admin.tokens import SignedTokens, Tokens
from dynbalance.admin.trail import Trail
from dynbalance.config import AdminConfig, Config, TokenConfig
from dynbalance.hashes import hash_token, new_token
from dynbalance.http.mounted import Mount
from dynbalance.materials import Materials
from dynbalance.net.tls import ServerTls
from dynbalance.ports import OpenPort

DEMO_HOST = "127.0.0.1"


class AdminSide:
    """
    @param wall: seconds since the epoch.
    @param randomness: so many bytes that nobody can foretell.
    @ivar port: C{None} where there is none.
    @ivar demo_token: lets the servers of C{--demo} in.
    """

    def __init__(
        self, reactor: Any, wall: Callable[[], float], randomness: Callable[[int], bytes]
    ) -> None:
        self._reactor = reactor
        self._wall = wall
        self._key = randomness(32)
        self.demo_token = new_token(randomness)
        self.port: OpenPort | None = None
        self._site: AdminSite | None = None
        self._guard: Guard | None = None
        self._guarded_by: object = None
        self._guesses = guesses(reactor.seconds)
        self._tls: ServerTls | None = None
        self._factory: IProtocolFactory | None = None

    def __repr__(self) -> str:
        return f"<AdminSide with {self._guard!r}>"

    def follow(
        self,
        config: Config,
        materials: Materials,
        operations: Operations,
        pages: Pages,
        port: OpenPort | None,
    ) -> Mount:
        """
        Go on by a configuration.

        @param port: C{None} for none.
        @return: the API for the listeners that traffic comes in by.
        """
        guard = self._guard_of(config, materials)
        audit = config.admin.audit_log
        trail = Trail(materials.logs[audit] if audit else None, self._wall, operations.scene)
        if port is not None:
            self._lead(port, operations, pages, guard, trail, materials.tls.get("admin"))
        api = UpstreamApi(operations, guard=guard, trail=trail)
        return Mount(ask=api.answer, max_body=BODY_LIMIT)

    def _lead(
        self,
        port: OpenPort,
        operations: Operations,
        pages: Pages,
        guard: Guard,
        trail: Trail,
        tls: ServerTls | None,
    ) -> None:
        site = self._site
        if site is None:
            site = self._site = AdminSite(operations, pages, self._reactor, guard, trail)
        else:
            site.follow(operations, pages, guard, trail)
        if self._factory is None or tls is not self._tls:
            self._tls = tls
            self._factory = site if tls is None else _over(tls, site, self._reactor)
        before, self.port = self.port, port
        port.door.lead_to(self._factory)
        port.accept()
        if before is not None and before is not port:
            before.close()

    def _guard_of(self, config: Config, materials: Materials) -> Guard:
        """The one there is, if it goes by the same: it remembers who came."""
        admin = config.admin
        by = (
            (admin.users, admin.tokens, admin.jwt, admin.client_role, admin.tls is None),
            (admin.hosts, admin.allow, admin.rate_limit, config.demo),
            materials.jwt_keys,
        )
        if self._guard is None or by != self._guarded_by:
            self._guarded_by = by
            limit = admin.rate_limit
            self._guard = Guard(
                self._knowledge(config, materials),
                hosts=admin.hosts,
                networks=admin.allow,
                limit=Buckets(limit.rate, limit.burst, self._reactor.seconds) if limit else None,
                guesses=self._guesses,
            )
        return self._guard

    def _knowledge(self, config: Config, materials: Materials) -> Knowledge:
        admin = config.admin
        if not asks(admin):
            return Knowledge(asks=False)
        tokens = admin.tokens
        if config.demo:
            demo = hash_token(self.demo_token)
            tokens += (
                TokenConfig(name="demo", token_hash=demo, role="agent", hosts=(DEMO_HOST,)),
            )
        passwords = Passwords(admin.users, self._in_thread, self._reactor.seconds, self._key)
        return Knowledge(
            passwords=passwords if admin.users else None,
            tokens=Tokens(tokens) if tokens else None,
            signed=SignedTokens(admin.jwt, materials.jwt_keys, self._wall) if admin.jwt else None,
            certificates=Role(admin.client_role) if admin.client_role else None,
        )

    def _in_thread(self, check: Callable[[], bool]) -> Deferred[bool]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, check)


def asks(admin: AdminConfig) -> bool:
    """Whether anything has to be shown."""
    return admin.has_credentials or bool(admin.client_role)


@implementer(IOpenSSLServerConnectionCreator)
class _Greeter:
    """Shows a client who we are."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self._tls.connection()


class _Guest(BufferingTLSTransport):
    """
    One connection.  Twisted's TLS puts it where an L{Expected
    <dynbalance.net.tls.Expected>} is looked for, so it is one for any client.
    """

    names = ()
    refusal = ""


class _TlsFactory(TLSMemoryBIOFactory):
    protocol = _Guest


def _over(tls: ServerTls, site: AdminSite, reactor: Any) -> IProtocolFactory:
    over: IProtocolFactory = _TlsFactory(_Greeter(tls), False, site, clock=reactor)
    return over
