"""
Twisted's logger with a threshold.

C{twistd} writes every event it is given; C{log_level} is kept here, so that
what is below it costs one comparison.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.logger import LogLevel

from twisted import logger


class Logger(logger.Logger):
    """
    @cvar threshold: events below this level are dropped.
    """

    threshold: ClassVar[Any] = LogLevel.info

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        if level >= self.threshold:
            super().emit(level, format, **kwargs)


def set_level(name: str) -> None:
    """
    @param name: C{debug}, C{info}, C{warn}, C{error} or C{critical}.
    """
    Logger.threshold = LogLevel.levelWithName(name)
