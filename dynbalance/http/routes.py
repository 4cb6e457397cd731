"""
Which upstream a request is for: by host, then by path.

The longest path of the best host wins; the best host is the one that is
spelled out, then the longest C{*.suffix}, then the routes without a host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")


@frozen(slots=True)
class Route(Generic[T]):
    """
    @ivar host: a name, C{*.suffix}, or empty for any.
    @ivar path: what the request's path begins with.
    @ivar to: what is chosen.
    """

    host: str
    path: str
    to: T


def bare_host(host: bytes) -> bytes:
    """A Host without its port, in lower case and without a final dot."""
    if host.startswith(b"["):
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].lower().rstrip(b".")


class Router(Generic[T]):
    """
    Finds the way.

    @param default: where a request goes that no route matches.
    """

    def __init__(self, routes: Iterable[Route[T]], default: T) -> None:
        self._default = default
        self._hosts: dict[bytes, list[tuple[bytes, T]]] = {}
        for route in sorted(routes, key=lambda route: -len(route.path)):
            host = route.host.lower().encode()
            self._hosts.setdefault(host, []).append((route.path.encode(), route.to))
        self._suffixes = sorted(
            (host[1:] for host in self._hosts if host.startswith(b"*.")), key=len, reverse=True
        )

    def find(self, host: bytes, path: bytes) -> T:
        """
        @param host: as the request says it.
        @param path: of the target, without the query.
        """
        if not self._hosts:
            return self._default
        for candidate in self._candidates(bare_host(host)):
            for prefix, to in self._hosts.get(candidate, ()):
                if path.startswith(prefix):
                    return to
        return self._default

    def _candidates(self, host: bytes) -> list[bytes]:
        wildcards = [b"*" + suffix for suffix in self._suffixes if host.endswith(suffix)]
        return [host, *wildcards, b""]
