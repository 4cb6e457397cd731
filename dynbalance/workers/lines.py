"""
What a worker logs, on its way to the parent's log: one event a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TextIO

from twisted.logger import ILogObserver, InvalidLogLevelError, LogLevel, eventAsText
from zope.interface import implementer

from dynbalance.log import Logger

LONGEST = 1 << 20
"""Bytes of a line that are kept together."""


@implementer(ILogObserver)
class LineWriter:
    """A log observer that writes what L{log_line} reads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: dict[str, Any]) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        level = event.get("log_level", LogLevel.info).name
        line = json.dumps([level, event.get("log_namespace", "-"), text])
        self._out.write(line + "\n")
        self._out.flush()


class Lines:
    """
    Cuts what a process writes into lines.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        """@param take: gets each line, without its end."""
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._take(line)
        if len(self._rest) > LONGEST:
            self.end()

    def end(self) -> None:
        """What has no end yet will get none."""
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)


def log_line(worker: str, line: bytes) -> None:
    """
    Put an event of a worker's into this process's log.

    @param worker: its name, in front of the event's namespace.
    """
    try:
        level, namespace, text = json.loads(line)
        found = LogLevel.levelWithName(level)
    except (ValueError, TypeError, InvalidLogLevelError):
        # What the interpreter says before or after everything else.
        found, namespace, text = LogLevel.warn, "stderr", line.decode(errors="replace")
    Logger(namespace=f"{worker} {namespace}").emit(found, "{text}", text=text)


def pass_on(line: bytes) -> None:
    """Write what a worker wrote to its standard output, such as an access log, to ours."""
    sys.stdout.write(line.decode(errors="replace") + "\n")
    sys.stdout.flush()
