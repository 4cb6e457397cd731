"""
Who we are in TLS, and whom we believe: contexts from certificates and keys.

Knows files, names and how a peer's certificate is judged; refuses to know
connections, which are L{dynbalance.net.tlstransport}'s.  A context never
changes: to read the files again is to make another, which takes its place when
somebody says so; connections that were made from the one before it keep it.

Sessions are not resumed.  Every handshake is a whole one, so that no ticket
lets a client in whose certificate would not be accepted any more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import service_identity
from attrs import define, frozen
from OpenSSL import SSL
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.error import ConnectError

from dynbalance.errors import ConfigError, DynbalanceError
from dynbalance.net import pemfiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dynbalance.config.listeners import ListenerTlsConfig
    from dynbalance.config.upstream import ServerTlsConfig

Swap = Callable[[], None]
"""Lets what was read last be used; it cannot fail."""


def nothing_to_swap() -> None:
    """No files were read."""


_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of TLS 1.3 are all good."""

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET

_VERIFY = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

_CHAIN = {
    2: "its issuer is not known",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and not trusted",
    19: "it was issued by a self-signed one that is not trusted",
    20: "its issuer is not known",
    21: "it came without its issuer's, which is not known",
    22: "its chain is too long",
    23: "it was revoked",
    24: "its issuer may not issue certificates",
    26: "it is not meant for this use",
}
"""What OpenSSL finds wrong with a certificate, by number."""


class HandshakeFailed(ConnectError):
    """The server was reached, but is not whom TLS has to lead to."""

    def __str__(self) -> str:
        return f"the TLS handshake failed: {self.args[0]}"


class Refused(DynbalanceError):
    """We end the handshake; the text says why."""


@define(slots=True, eq=False)
class Expected:
    """
    Whom a connection is for.

    @ivar names: what the peer's certificate has to be for, one of DNS or IP;
        none if any that can be trusted will do.
    @ivar refusal: why the peer was not accepted.
    """

    names: tuple[DNS_ID | IPAddress_ID, ...] = ()
    refusal: str = ""


def expected_of(connection: SSL.Connection) -> Expected:
    """Whom C{connection} was made for."""
    expected: Expected = connection.get_app_data()
    return expected


@frozen(slots=True)
class KeyPair:
    """
    Two PEM files.

    @ivar certificate: with those of its issuers behind it.
    @ivar key: without a password.
    @ivar place: of the table that names them, below that of the listener's
        TLS; empty if it is that one.
    """

    certificate: str
    key: str
    place: str = ""


class ServerTls:
    """
    What a listener shows and asks of its clients.

    A certificate is shown to who asks for a name that it is for, be it
    C{a.example} or C{*.example} (RFC 9525: one label).

    @param pairs: the first is shown to whoever asks for a name that no
        certificate is for, or for none.
    @param client_ca: file of the certificates whose clients are let in; empty
        to let in everybody.
    @param alpn: protocols to offer, the best first; who offers only others is
        refused.
    @param option: path of the table in the configuration.
    @raise ConfigError: naming each option whose file is of no use.
    """

    def __init__(
        self,
        pairs: Sequence[KeyPair],
        client_ca: str = "",
        alpn: Iterable[str] = (),
        option: str = "tls",
    ) -> None:
        self._pairs = tuple(pairs)
        self._client_ca = client_ca
        self._alpn = tuple(protocol.encode() for protocol in alpn)
        self._option = option
        self._shown = self._read()

    def __repr__(self) -> str:
        return f"<ServerTls for {', '.join(self._shown.by_name) or 'any name'}>"

    @classmethod
    def of(cls, settings: ListenerTlsConfig, option: str) -> ServerTls:
        """What the file says of a listener."""
        pairs = [
            KeyPair(each.certificate, each.key, f".certificates[{number}]")
            for number, each in enumerate(settings.certificates)
        ]
        if settings.certificate:
            pairs.insert(0, KeyPair(settings.certificate, settings.key))
        return cls(pairs, settings.client_ca, getattr(settings, "alpn", ()), option)

    def connection(self) -> SSL.Connection:
        """One for a client that comes."""
        connection = SSL.Connection(self._shown.default, None)
        connection.set_app_data(Expected())
        connection.set_accept_state()
        return connection

    def reread(self) -> Swap:
        """
        Read the files again.

        @return: has connections that come later follow them; nothing changes
            before it is called.
        @raise ConfigError: naming each option whose file is of no use now.
        """
        shown = self._read()

        def swap() -> None:
            self._shown = shown

        return swap

    def _read(self) -> _Shown:
        by_name: dict[str, SSL.Context] = {}
        problems: list[str] = []
        contexts = []
        for pair in self._pairs:
            context = _context()
            contexts.append(context)
            table = self._option + pair.place
            for name in pemfiles.use_pair(context, pair.certificate, pair.key, table, problems):
                by_name.setdefault(name, context)
            if self._client_ca:
                option = f"{self._option}.client_ca"
                pemfiles.ask_for(context, self._client_ca, option, problems)
                context.set_verify(_VERIFY, _judge)
            if self._alpn:
                context.set_alpn_select_callback(self._select)
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        shown = _Shown(contexts[0], by_name)
        shown.default.set_tlsext_servername_callback(shown.named)
        return shown

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in self._alpn:
            if protocol in offered:
                return protocol
        raise Refused("the client offers none of our protocols by ALPN")


@frozen(slots=True, eq=False)
class _Shown:
    """
    What the files of a listener held when they were read.
    """

    default: SSL.Context
    by_name: dict[str, SSL.Context]

    def named(self, connection: SSL.Connection) -> None:
        """The client has said for whom it takes us."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self.by_name.get(name) or self.by_name.get("*." + name.partition(".")[2])
        if context is not None and context is not self.default:
            connection.set_context(context)


class ClientTls:
    """
    What the servers of an upstream are asked for and shown.

    @param verify: whether a server has to be who it should be.
    @param ca: file of the certificates to trust; empty for the system's.
    @param server_name: to ask for and to verify; empty for the server's host.
    @param certificate: file of the certificate to show; empty for none.
    @param key: file of its key.
    @param alpn: protocols to offer, the best first.
    @param option: path of the table in the configuration.
    @raise ConfigError: naming each option whose file is of no use.
    """

    def __init__(
        self,
        *,
        verify: bool = True,
        ca: str = "",
        server_name: str = "",
        certificate: str = "",
        key: str = "",
        alpn: Iterable[str] = (),
        option: str = "tls",
    ) -> None:
        self._verify = verify
        self._ca = ca
        self._server_name = server_name
        self._ours = KeyPair(certificate, key) if certificate else None
        self._alpn = tuple(protocol.encode() for protocol in alpn)
        self._option = option
        self._context = self._read()

    def __repr__(self) -> str:
        return f"<ClientTls {self._server_name or 'for any host'}>"

    @classmethod
    def of(cls, settings: ServerTlsConfig, option: str, alpn: Iterable[str] = ()) -> ClientTls:
        """What the file says of an upstream."""
        return cls(
            verify=settings.verify,
            ca=settings.ca,
            server_name=settings.server_name,
            certificate=settings.certificate,
            key=settings.key,
            alpn=alpn,
            option=option,
        )

    def reread(self) -> Swap:
        """As L{ServerTls.reread}."""
        context = self._read()

        def swap() -> None:
            self._context = context

        return swap

    def _read(self) -> SSL.Context:
        context = _context()
        problems: list[str] = []
        ours = self._ours
        if ours is not None:
            pemfiles.use_pair(context, ours.certificate, ours.key, self._option, problems)
        if self._ca:
            pemfiles.trust(context, self._ca, f"{self._option}.ca", problems)
        elif self._verify:
            context.set_default_verify_paths()
        if self._verify:
            context.set_verify(_VERIFY, _judge)
        if self._alpn:
            context.set_alpn_protos(list(self._alpn))
        if problems:
            raise ConfigError(problems)
        return context

    def connection(self, host: str) -> SSL.Connection:
        """
        One to a server.

        @param host: the server's, an IP address or a name; empty if it has
            none, as behind a unix socket.
        @raise HandshakeFailed: no certificate can be for such a host.
        """
        name = (self._server_name or host).rstrip(".")
        expected = Expected()
        is_address = _is_address(name)
        if self._verify:
            if not name:
                raise HandshakeFailed(string="there is no server_name to verify")
            try:
                expected.names = (IPAddress_ID(name) if is_address else DNS_ID(name),)
            except ValueError:
                raise HandshakeFailed(string=f"no certificate can be for {name!r}") from None
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(expected)
        connection.set_connect_state()
        if name and not is_address:
            try:
                connection.set_tlsext_host_name(name.encode("ascii"))
            except UnicodeEncodeError:
                raise HandshakeFailed(string=f"{name!r} is not a server's name") from None
        return connection


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    return context


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _judge(connection: SSL.Connection, certificate: Any, error: int, depth: int, ok: int) -> bool:
    """Whether the handshake goes on after a look at one certificate of the chain."""
    expected = expected_of(connection)
    whose = "the certificate" if depth == 0 else "the certificate of an issuer"
    if not ok:
        why = _CHAIN.get(error, f"OpenSSL refuses it with number {error}")
        expected.refusal = f"{whose} is not good: {why}"
        return False
    if depth or not expected.names:
        return True
    try:
        shown = certificate.to_cryptography()
        verify_service_identity(extract_patterns(shown), expected.names, [])
    except (service_identity.VerificationError, service_identity.CertificateError):
        names = ", ".join(pemfiles.names_of(shown)) or "nobody"
        expected.refusal = f"the certificate is for {names}, not for {_texts(expected.names)}"
        return False
    except ValueError:
        expected.refusal = "the certificate cannot be read"
        return False
    return True


def _texts(names: Iterable[DNS_ID | IPAddress_ID]) -> str:
    return ", ".join(
        name.hostname.decode("ascii") if isinstance(name, DNS_ID) else str(name.ip)
        for name in names
    )
