"""
Reading the configuration again, one time after the other.

Knows when, and what is said of it; refuses to know what a node does then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynbalance.config import Config
from dynbalance.errors import ConfigError
from dynbalance.log import Logger


class Follower(Protocol):
    """
    What runs by a configuration.

    @ivar ending: it follows none any more.
    """

    ending: bool

    async def reload(self, read: Callable[[], Config]) -> None:
        """
        Go on by the configuration that C{read} gives.

        @raise ConfigError: nothing has changed.
        """

    def reopen_logs(self) -> None:
        """Open the access logs anew."""


class Reloads:
    """
    Who asks while a reload is under way has another one follow it, since what
    is under way may have read the file before it was changed.
    """

    _log = Logger()

    def __init__(self, node: Follower, read: Callable[[], Config]) -> None:
        """
        @param read: gives the configuration as it is now, or raises
            L{ConfigError}.
        """
        self._node = node
        self._read = read
        self._asked = False
        self._under_way = False

    def __repr__(self) -> str:
        return f"<Reloads {'under way' if self._under_way else 'idle'}>"

    def ask(self) -> None:
        """Read the configuration again."""
        self._asked = True
        if not self._under_way:
            self._under_way = True
            Deferred.fromCoroutine(self._reload_all()).addErrback(self._failed)

    def reopen_logs(self) -> None:
        self._node.reopen_logs()

    async def _reload_all(self) -> None:
        while self._asked and not self._node.ending:
            self._asked = False
            try:
                await self._node.reload(self._read)
            except ConfigError as error:
                for problem in error.problems:
                    self._log.error("{problem}", problem=problem)
                self._log.error("The configuration is not followed, and nothing has changed")
            else:
                self._log.info("The configuration was read again and is followed")
        self._under_way = False

    def _failed(self, failure: Failure) -> None:
        self._under_way = False
        self._log.failure("A mistake in dynbalance: the reload failed", failure)
