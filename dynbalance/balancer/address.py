"""
A server's address: parsed once, written one way.

Knows the syntax; refuses to know sockets and name servers.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from dynbalance.errors import BadAddress

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?\Z")

# What resolvers read as an IPv4 address in one of its old forms: 127.1, 0x7f.1.
_NUMBER_LAST = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?\Z")


@frozen(slots=True)
class Address:
    """
    Where a server listens.

    @ivar host: an IPv4 or IPv6 address in its shortest form without
        brackets, a host name in lower case, or C{unix:/path}.  An IPv4
        address in IPv6's clothes (C{::ffff:192.0.2.1}) is an IPv4 address.
    @ivar port: 1-65535; 0 for a unix socket.
    """

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("unix:")

    @property
    def path(self) -> str:
        """The file of a unix socket."""
        return self.host[len("unix:") :]

    @property
    def is_numeric(self) -> bool:
        """Whether no name server is needed to reach it."""
        if self.is_unix:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        """The store's key: C{host:port}, C{[v6]:port} or C{unix:/path}."""
        if self.is_unix:
            return self.host
        if ":" in self.host:
            return f"[{self.host}]:{self.port}"
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, host: str, port: int) -> Address:
        """
        @param host: an address with or without brackets, or a name.
        @raise BadAddress: naming what is wrong.
        """
        if not 1 <= port <= 65535:
            raise BadAddress(f"port {port} is not in 1-65535")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            ip = ipaddress.ip_address(bare)
        except ValueError:
            pass
        else:
            # Also because Python's versions write the mapped form differently.
            mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
            return cls(str(mapped or ip), port)
        if bare is not host or ":" in host:
            raise BadAddress(f"{host!r} is not an IPv6 address")
        if _NUMBER_LAST.match(host):
            raise BadAddress(f"{host!r} is not an IPv4 address")
        if len(host) > 253 or not _NAME.match(host):
            raise BadAddress(f"{host!r} is not a host name or an IP address")
        return cls(host.lower(), port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        @param text: C{host:port}, C{[v6]:port} or C{unix:/path}.
        @raise BadAddress: naming what is wrong.
        """
        if text.startswith("unix:"):
            path = text[len("unix:") :]
            if not path.startswith("/"):
                raise BadAddress(f"{text!r} has no absolute path after unix:")
            if not path.isprintable():
                raise BadAddress(f"{text!r}: the path holds control characters")
            if len(path.encode()) > 107:
                raise BadAddress(f"{text!r}: the path is longer than 107 bytes")
            return cls(text, 0)
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise BadAddress(f"{text!r} is not host:port")
        if not re.fullmatch(r"[0-9]{1,9}", port):
            raise BadAddress(f"{text!r}: {port!r} is not a port")
        if ":" in host and not host.startswith("["):
            raise BadAddress(f"{text!r}: an IPv6 address needs brackets")
        return cls.of(host, int(port))
