"""
A wall clock that the test sets while programs run by it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tests.endtoend.harness import EndToEndCase, run


class WallClock:
    """
    By libfaketime.  As on a machine whose clock is set, the monotonic clock goes on.

    @ivar environment: of the programs that go by it.
    """

    def __init__(self, case: EndToEndCase, step: int = 0) -> None:
        directory = case.directory("clock")
        self._file = os.path.join(directory, "step")
        self.set(step)
        said = run("faketime", "-f", "+0", "env").splitlines()
        (library,) = (line[11:] for line in said if line.startswith("LD_PRELOAD="))
        threaded = library.replace("libfaketime.so", "libfaketimeMT.so")
        self.environment: Mapping[str, str] = {
            # Another malloc than the C library's asks for the time too early.
            "LD_PRELOAD": f"{threaded}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, step: int) -> None:
        """
        At once, and for all that happens from now on.

        @param step: seconds before or after this machine's clock.
        """
        new = f"{self._file}.new"
        with open(new, "w") as out:
            out.write(f"{step:+d}\n")
        # Nobody reads half of it.
        os.replace(new, self._file)
