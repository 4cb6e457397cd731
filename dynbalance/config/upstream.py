"""
The tables of an upstream: how a group of servers is used.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import deep_iterable

from dynbalance.balancer.address import Address
from dynbalance.config.ranges import (
    BYTES,
    COUNTS,
    POSITIVE,
    PRINTABLE,
    SOME,
    OptionError,
    hash_key,
    header_value,
    matches,
    no_repeats,
    one_of,
    seconds,
    within,
)

POLICIES = ("least_conn", "round_robin", "random_two", "hash", "ip_hash", "ewma")
NEXT_UPSTREAM = (
    "error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504",
    "http_403", "http_404", "http_429", "non_idempotent",
)
MAX_WEIGHT = 65535


@frozen(slots=True, kw_only=True)
class ServerConfig:
    """
    A server that the file names.

    @ivar max_conns: connections over all nodes.
    @ivar max_fails: failures within C{fail_timeout} that take it out for as
        long.
    @ivar backup: serves only when no other server can.
    @ivar down: is listed and never used.
    """

    address: Address
    weight: int = field(default=1, validator=within(1, MAX_WEIGHT))
    max_conns: int = field(default=1000, validator=COUNTS)
    max_fails: int = field(default=1, validator=COUNTS)
    fail_timeout: float = field(default=10.0, validator=seconds())
    backup: bool = False
    down: bool = False


@frozen(slots=True, kw_only=True)
class StickyConfig:
    """
    C{upstreams.NAME.sticky}: a client stays with its server by a cookie.

    @ivar max_age: 0 for a cookie that lives as long as the browser.
    """

    cookie: str = field(
        default="route", validator=matches(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a cookie's name")
    )
    max_age: int = field(default=3600, validator=within(0, 2**31 - 1, "seconds"))
    secure: bool = False
    httponly: bool = True
    samesite: str = field(default="lax", validator=one_of("lax", "strict", "none"))

    def __attrs_post_init__(self) -> None:
        if self.samesite == "none" and not self.secure:
            raise OptionError("samesite", "browsers take 'none' with secure = true only")


@frozen(slots=True, kw_only=True)
class ServerTlsConfig:
    """
    C{upstreams.NAME.tls}: TLS to the servers.

    @ivar verify: whether the server's certificate must be good.
    @ivar ca: file of trusted certificates; empty for the system's.
    @ivar server_name: to ask for and to verify; empty for the server's host.
    @ivar certificate: file of the certificate to show; empty for none.
    @ivar key: file of its key.
    """

    verify: bool = True
    ca: str = field(default="", validator=PRINTABLE)
    server_name: str = field(default="", validator=PRINTABLE)
    certificate: str = field(default="", validator=PRINTABLE)
    key: str = field(default="", validator=PRINTABLE)

    def __attrs_post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise OptionError("key", "certificate and key come together")


@frozen(slots=True, kw_only=True)
class HealthCheckConfig:
    """
    C{upstreams.NAME.health_check}: questions to the servers.

    @ivar jitter: share of C{interval} by which each wait varies.
    @ivar passes: good answers in a row that bring a server back.
    @ivar fails: bad answers in a row that take it out.
    @ivar status: good statuses, such as C{"200-299,304"} (http).
    @ivar send: text to send, with C{expect} somewhere in the answer (tcp).
    """

    type: str = field(default="http", validator=one_of("http", "tcp"))
    uri: str = field(default="/", validator=matches(r"/[!-~]*", "a path such as /health"))
    interval: float = field(default=5.0, validator=seconds(0.1))
    jitter: float = field(default=0.2, validator=within(0, 1))
    timeout: float = field(default=1.0, validator=POSITIVE)
    passes: int = field(default=1, validator=within(1, 1000))
    fails: int = field(default=1, validator=within(1, 1000))
    status: str = field(
        default="200-399",
        validator=matches(
            r"[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*", "statuses such as 200-299,304"
        ),
    )
    send: str = ""
    expect: str = ""

    def __attrs_post_init__(self) -> None:
        for part in self.status.split(","):
            first, _, last = part.partition("-")
            if last and last < first:
                raise OptionError("status", f"{part} ends before it begins")


@frozen(slots=True, kw_only=True)
class UpstreamConfig:
    """
    C{[upstreams.NAME]}: a group of servers and how they are used.

    @ivar balancer: C{package.module:callable}, the hook; empty for C{policy}.
    @ivar balancer_timeout: for each call of it to decide.
    @ivar counting: C{fast} or C{strict}.
    @ivar next_upstream: what lets a request go to the next server.
    @ivar next_upstream_tries: attempts in all.
    @ivar next_upstream_timeout: no further attempt later than this.
    @ivar retry_budget: share of requests that may be retried.
    @ivar keepalive: idle connections kept to all its servers, per worker.
    @ivar keepalive_requests: requests over one of them at most.
    @ivar keepalive_time: age at which one is used no more.
    @ivar max_idle_time: after which one is closed.
    @ivar queue: requests that may wait while all servers are full.
    @ivar slow_start: within which a new server reaches its weight.
    @ivar body_buffer: bytes of a request's body kept for another attempt.
    @ivar client_max_body_size: bytes of a request's body.
    @ivar proxy_protocol: the version to send; 0 for none.
    @ivar host: the Host field to send; may hold variables.
    """

    policy: str = field(default="least_conn", validator=one_of(*POLICIES))
    hash_key: str = field(default="$remote_addr", validator=hash_key)
    hash_consistent: bool = True
    balancer: str = field(
        default="", validator=matches(r"([\w.]+:[\w.]+)?", "empty or package.module:callable")
    )
    balancer_timeout: float = field(default=10.0, validator=POSITIVE)
    counting: str = field(default="fast", validator=one_of("fast", "strict"))
    connect_timeout: float = field(default=5.0, validator=POSITIVE)
    send_timeout: float = field(default=30.0, validator=POSITIVE)
    read_timeout: float = field(default=30.0, validator=POSITIVE)
    next_upstream: tuple[str, ...] = field(
        default=("error", "timeout"), validator=[deep_iterable(one_of(*NEXT_UPSTREAM)), no_repeats]
    )
    next_upstream_tries: int = field(default=0, validator=COUNTS)
    next_upstream_timeout: float = field(default=0.0, validator=seconds())
    retry_budget: float = field(default=0.2, validator=within(0, 1))
    keepalive: int = field(default=128, validator=COUNTS)
    keepalive_requests: int = field(default=1000, validator=within(1, 2**31 - 1))
    keepalive_time: float = field(default=3600.0, validator=POSITIVE)
    max_idle_time: float = field(default=60.0, validator=POSITIVE)
    queue: int = field(default=0, validator=COUNTS)
    queue_timeout: float = field(default=10.0, validator=POSITIVE)
    slow_start: float = field(default=0.0, validator=seconds())
    panic: str = field(default="off", validator=one_of("off", "last_good"))
    request_buffering: bool = False
    body_buffer: int = field(default=65536, validator=BYTES)
    client_max_body_size: int = field(default=0, validator=BYTES)
    sticky: StickyConfig | None = None
    proxy_protocol: int = field(default=0, validator=one_of(0, 1, 2))
    tls: ServerTlsConfig | None = None
    health_check: HealthCheckConfig | None = None
    host: str = field(default="$http_host", validator=[SOME, header_value])
    servers: tuple[ServerConfig, ...] = ()
