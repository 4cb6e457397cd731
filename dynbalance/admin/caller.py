"""
Who calls the API.

One value goes from the front, which knows connections and credentials, to
whoever carries out an order and writes down who gave it.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Role(Enum):
    """What a caller may do; see the page about the admin API."""

    READ = "read"
    AGENT = "agent"
    ADMIN = "admin"


@frozen(slots=True, kw_only=True)
class Caller:
    """
    @ivar address: where the request came from; empty when that has none.
    @ivar name: of the user or token; empty without authentication.
    """

    address: str
    name: str = ""
    role: Role = Role.ADMIN

    def __str__(self) -> str:
        """As logs and the history write it."""
        return f"{self.name}@{self.address}" if self.name else self.address
