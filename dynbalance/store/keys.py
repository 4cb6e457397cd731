"""
The names of the keys in Redis.

Knows the layout; refuses to know values.  All keys of one upstream begin
alike, so a hash tag in the prefix (C{"{upstream}"}) keeps them in one slot of a
cluster.
"""

from __future__ import annotations

from urllib.parse import quote

DEFAULT = "default"
"""The upstream whose keys have the prefix alone, as the first deployments had."""

_SUFFIXES = (
    "servers:zset",
    "servers:meta",
    "heartbeat",
    "revision",
    "nodes",
    "sync",
    "changed",
    "file:zset",
    "history",
    "unhealthy",
    "probers",
)
"""In the order in which C{names.lua} takes them."""


def member(name: str) -> str:
    """
    A name as a part of a key: colons would make two names one key, and braces
    would move it to another slot.
    """
    return quote(name, safe="")


def upstream_keys(prefix: str, upstream: str) -> tuple[str, ...]:
    """All fixed keys of one upstream."""
    base = _base(prefix, upstream)
    return tuple(f"{base}:{suffix}" for suffix in _SUFFIXES)


def node_keys(prefix: str, upstream: str, node: str) -> tuple[str, str]:
    """The hash of what one node holds, and that of what it was granted."""
    base = f"{_base(prefix, upstream)}:node:{member(node)}"
    return f"{base}:conns", f"{base}:grants"


def _base(prefix: str, upstream: str) -> str:
    return prefix if upstream == DEFAULT else f"{prefix}:{member(upstream)}"
