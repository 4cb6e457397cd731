"""
The stage of the end-to-end tests for programs that are no tests: longer, larger, or
with figures that differ from machine to machine.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from typing_extensions import Self

from tests.endtoend.harness import EndToEndCase, Program, all_descriptors


class Rehearsal(EndToEndCase):
    """
    Starts programs, and ends them when it is over.  They may open as many files as may be:
    the daemon keeps an eighth for its servers.

    @ivar violations: what the daemons said that they must never say.
    """

    def __init__(self) -> None:
        super().__init__("run")
        self._stack = contextlib.ExitStack()
        self.violations: list[str] = []

    def addCleanup(self, what: Any, *words: Any, **named: Any) -> None:
        self._stack.callback(what, *words, **named)

    def __enter__(self) -> Self:
        self.addCleanup(all_descriptors())
        return self

    def __exit__(self, *error: object) -> None:
        # What the programs have logged is of interest to tests.
        with contextlib.redirect_stdout(io.StringIO()):
            self._stack.close()

    def assert_no_traceback(self, started: Program) -> None:
        self.violations += started.lines_with("Traceback") + started.lines_with("Unhandled")

    def assert_sound(self, started: Program) -> None:
        self.violations += started.lines_with("An invariant is violated")
