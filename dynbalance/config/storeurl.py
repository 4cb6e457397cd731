"""
Where the store is: the URL of C{[store] url}, parsed once.

Knows the syntax; refuses to know how a store is reached.  No text that it
makes holds a password, but the one that is asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from urllib.parse import parse_qsl, quote, unquote

from attrs import field, frozen

REDIS_PORT = 6379
SENTINEL_PORT = 26379


class StoreKind(Enum):
    """The scheme of a store's URL."""

    EMBEDDED = "embedded"
    MEMORY = "memory"
    REDIS = "redis"
    REDISS = "rediss"
    UNIX = "unix"
    SENTINEL = "redis+sentinel"
    SENTINEL_TLS = "rediss+sentinel"
    CLUSTER = "redis+cluster"
    CLUSTER_TLS = "rediss+cluster"

    @property
    def by_sentinel(self) -> bool:
        """Whether the URL names Sentinels."""
        return self in (StoreKind.SENTINEL, StoreKind.SENTINEL_TLS)

    @property
    def by_cluster(self) -> bool:
        """Whether the URL names nodes of a cluster."""
        return self in (StoreKind.CLUSTER, StoreKind.CLUSTER_TLS)

    @property
    def by_tls(self) -> bool:
        return self.value.startswith("rediss")


@frozen(slots=True, kw_only=True)
class StoreUrl:
    """
    A parsed store URL.

    @ivar host: name or address without brackets; empty unless C{redis} or
        C{rediss}.
    @ivar path: the socket file of C{unix}.
    @ivar user: of an access control list; empty for the default user.
    @ivar password: empty for none.
    @ivar peers: host and port of each Sentinel, or of nodes of the cluster.
    @ivar master: the name that the sentinels know the store by.
    """

    kind: StoreKind
    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    peers: tuple[tuple[str, int], ...] = ()
    master: str = ""

    @property
    def login(self) -> tuple[str, ...]:
        """The words of C{AUTH}; none without a password."""
        if not self.password:
            return ()
        return (self.user, self.password) if self.user else (self.password,)

    def __str__(self) -> str:
        """The URL, with C{***} for a password."""
        return self._written(lambda text: text, "***")

    def reveal(self) -> str:
        """The URL with its password, as L{parse} takes it."""
        return self._written(lambda text: quote(text, safe="/"), quote(self.password, safe=""))

    def _written(self, write: Callable[[str], str], secret: str) -> str:
        if self.kind in (StoreKind.EMBEDDED, StoreKind.MEMORY):
            return f"{self.kind.value}:"
        secret = f":{secret}" if self.password else ""
        login = f"{write(self.user)}{secret}@" if self.user or self.password else ""
        if self.kind is StoreKind.UNIX:
            return f"unix://{login}{write(self.path)}?db={self.db}"
        places = self.peers or ((self.host, self.port),)
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in places)
        name = f"{write(self.master)}/" if self.master else ""
        return f"{self.kind.value}://{login}{hosts}/{name}{self.db}"

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """
        @raise ValueError: saying what is wrong, without repeating C{text},
            for it may hold a password.
        """
        kind, rest = _scheme(text)
        if kind in (StoreKind.EMBEDDED, StoreKind.MEMORY):
            if rest:
                raise ValueError(f"nothing may follow {kind.value}:")
            return cls(kind=kind)
        if not rest.startswith("//"):
            raise ValueError(f"{kind.value}: must be followed by //")
        if "#" in rest:
            raise ValueError("a # must be written %23")
        rest, _, query = rest[2:].partition("?")
        authority, slash, path = rest.partition("/")
        user, password, hosts = _login(authority)
        if kind is StoreKind.UNIX:
            if hosts:
                raise ValueError("a socket is written unix:///path?db=0")
            path = _socket(slash + path)
            return cls(kind=kind, path=path, db=_query(query), user=user, password=password)
        if query:
            raise ValueError(f"{kind.value}: takes no ?options; the database is /NUMBER")
        if kind.by_cluster:
            if _database(path):
                raise ValueError("a cluster has no database but 0")
            peers = tuple(_peer(each, REDIS_PORT) for each in hosts.split(","))
            return cls(kind=kind, peers=peers, user=user, password=password)
        if kind.by_sentinel:
            master, _, db = path.partition("/")
            if not master:
                raise ValueError("the master's name is missing: //host:port,host:port/NAME/0")
            return cls(
                kind=kind,
                peers=tuple(_peer(each, SENTINEL_PORT) for each in hosts.split(",")),
                master=_plain(master),
                db=_database(db),
                user=user,
                password=password,
            )
        host, port = _peer(hosts, REDIS_PORT)
        return cls(
            kind=kind, host=host, port=port, db=_database(path), user=user, password=password
        )


def _scheme(text: str) -> tuple[StoreKind, str]:
    scheme, colon, rest = text.partition(":")
    for kind in StoreKind:
        if colon and scheme == kind.value:
            return kind, rest
    known = ", ".join(f"{each.value}:" for each in StoreKind)
    raise ValueError(f"a store's URL begins with one of {known}")


def _socket(text: str) -> str:
    path = _plain(text)
    if not path:
        raise ValueError("a socket is written unix:///path?db=0")
    if len(path.encode()) > 107:
        raise ValueError("the socket's path is longer than 107 bytes")
    return path


def _plain(text: str) -> str:
    """Undo percent-encoding, strictly: the result is printable text."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % must be written %25")
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("percent-encoded bytes are not UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f]", plain):
        raise ValueError("a control character in the URL")
    return plain


def _login(authority: str) -> tuple[str, str, str]:
    """Split C{user:password@hosts}; the last C{@} counts."""
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    return _plain(user), _plain(password), hosts


def _peer(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,9}))?", text)
    if found is None:
        raise ValueError("the host is missing or is not host:port or [v6]:port")
    if found[3] is not None:
        port = int(found[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not in 1-65535")
    return (found[1] or found[2]).lower(), port


def _database(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("the database is not a number")
    return int(text)


def _query(query: str) -> int:
    fields = parse_qsl(query, keep_blank_values=True, max_num_fields=8) if query else []
    if any(name != "db" for name, _ in fields) or len(fields) > 1:
        raise ValueError("the only option after ? is db=NUMBER")
    return _database(fields[0][1]) if fields else 0
