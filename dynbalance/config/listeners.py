"""
The tables of the listeners that traffic comes in by.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from attrs import field, frozen
from attrs.validators import deep_iterable, deep_mapping

from dynbalance.config.ranges import (
    BYTES,
    COUNTS,
    NAME,
    POSITIVE,
    PRINTABLE,
    SOME,
    OptionError,
    frozen_texts,
    headers,
    lowered,
    matches,
    no_repeats,
    one_of,
    seconds,
    traffic_endpoint,
    within,
)

Network = IPv4Network | IPv6Network

DEFAULT_UPSTREAM = "default"
"""The upstream that exists even if nobody names it."""


@frozen(slots=True, kw_only=True)
class CertificateConfig:
    """
    One of C{tls.certificates}.  Both are names of files.
    """

    certificate: str = field(validator=SOME)
    key: str = field(validator=SOME)


@frozen(slots=True, kw_only=True)
class ListenerTlsConfig:
    """
    C{tls} of a stream listener.  All are names of files.

    @ivar certificate: shown to whoever asks for no name that another is for;
        may be empty where there are C{certificates}, whose first it is then.
    @ivar certificates: further ones, each for the names that it says.
    @ivar client_ca: whose certificates clients must show; empty for none.
    """

    certificate: str = field(default="", validator=PRINTABLE)
    key: str = field(default="", validator=PRINTABLE)
    certificates: tuple[CertificateConfig, ...] = ()
    client_ca: str = field(default="", validator=PRINTABLE)

    def __attrs_post_init__(self) -> None:
        if not (self.certificate or self.key or self.certificates):
            raise OptionError("certificate", "is missing")
        if bool(self.certificate) != bool(self.key):
            missing = "key" if self.certificate else "certificate"
            raise OptionError(missing, "is missing: a certificate and its key go together")


@frozen(slots=True, kw_only=True)
class HttpTlsConfig(ListenerTlsConfig):
    """
    C{tls} of a listener that speaks HTTP.

    @ivar alpn: the protocols to offer, the best first.
    """

    alpn: tuple[str, ...] = field(
        default=("h2", "http/1.1"),
        validator=[deep_iterable(one_of("h2", "http/1.1")), no_repeats],
    )


@frozen(slots=True, kw_only=True)
class RouteConfig:
    """
    Requests for a host and below a path that go to another upstream.

    @ivar host: in lower case, without a port; C{*.suffix} for all below it,
        empty for any.
    """

    upstream: str = field(validator=NAME)
    host: str = field(
        default="",
        converter=lowered,
        validator=matches(
            r"((\*\.)?[a-z0-9_.-]{0,252}[a-z0-9_-]|\[[0-9a-f:.]+\])?",
            "a host's name, *.suffix, or [v6], without a port or a final dot",
        ),
    )
    path: str = field(default="/", validator=matches(r"/[!-~]*", "a path such as /v1/"))


@frozen(slots=True, kw_only=True)
class HttpConfig:
    """
    C{[[http]]}: an HTTP listener.

    @ivar mount_admin: whether C{/upstream/*} is the admin API here too.
    @ivar trusted_proxies: whose word on the client's address is believed.
    @ivar proxy_protocol: whether connections begin with a PROXY header.
    @ivar set_headers: extra request fields; an empty value removes one.
    @ivar client_header_timeout: for a whole request head.
    @ivar keepalive_timeout: for the next request to begin; 0 closes each
        connection after one answer.
    @ivar keepalive_requests: over one connection.
    @ivar max_header_size: of a request head.
    @ivar backlog: connections that may wait in the kernel to be accepted.
    @ivar access_log: C{off}, C{stdout} or a file.
    """

    listen: str = field(default="tcp:8080", validator=traffic_endpoint)
    upstream: str = field(default=DEFAULT_UPSTREAM, validator=NAME)
    routes: tuple[RouteConfig, ...] = ()
    mount_admin: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    tls: HttpTlsConfig | None = None
    set_headers: Mapping[str, str] = field(
        factory=dict, converter=frozen_texts, validator=headers
    )
    client_header_timeout: float = field(default=60.0, validator=POSITIVE)
    keepalive_timeout: float = field(default=75.0, validator=seconds())
    keepalive_requests: int = field(default=1000, validator=within(1, 2**31 - 1))
    max_header_size: int = field(default=32768, validator=within(1024, 2**24, "bytes"))
    max_connections: int = field(default=0, validator=COUNTS)
    backlog: int = field(default=4096, validator=within(1, 2**31 - 1))
    access_log: str = field(default="off", validator=SOME)

    def __attrs_post_init__(self) -> None:
        seen: set[tuple[str, str]] = set()
        for route in self.routes:
            if (route.host, route.path) in seen:
                raise OptionError(
                    "routes", f"two routes for host {route.host!r} and path {route.path!r}"
                )
            seen.add((route.host, route.path))


@frozen(slots=True, kw_only=True)
class StreamConfig:
    """
    C{[[stream]]}: a TCP listener.

    @ivar timeout: of silence in both directions.
    @ivar half_close: whether the end of one direction is passed on alone.
    @ivar next_upstream: whether the next server is tried when one does not
        accept.
    @ivar proxy_protocol: whether connections begin with a PROXY header.
    @ivar sni_routes: TLS server name -> upstream.
    @ivar download_rate: bytes a second to one client.
    @ivar upload_rate: bytes a second from one client.
    @ivar backlog: as L{HttpConfig}'s.
    """

    listen: str = field(default="tcp:10000", validator=traffic_endpoint)
    upstream: str = field(default=DEFAULT_UPSTREAM, validator=NAME)
    timeout: float = field(default=600.0, validator=POSITIVE)
    half_close: bool = True
    next_upstream: bool = True
    proxy_protocol: bool = False
    sni_routes: Mapping[str, str] = field(
        factory=dict,
        converter=frozen_texts,
        validator=deep_mapping(
            key_validator=matches(r"(\*\.)?[a-z0-9_.-]{1,253}", "a name in lower case"),
            value_validator=NAME,
        ),
    )
    tls: ListenerTlsConfig | None = None
    download_rate: int = field(default=0, validator=BYTES)
    upload_rate: int = field(default=0, validator=BYTES)
    max_connections: int = field(default=0, validator=COUNTS)
    backlog: int = field(default=4096, validator=within(1, 2**31 - 1))
    access_log: str = field(default="off", validator=SOME)
