"""
Pipes to splice through, taken while bytes flow and given back when empty.

Knows how many to keep; refuses to know what flows.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Any

from dynbalance.net.descriptors import below_for_traffic

SPLICE: Any = getattr(os, "splice", None)
"""C{None} where the system or this Python has none."""

SPLICE_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)

SIZE = 262144
"""Bytes a pipe should hold; the kernel may grant less."""

# Linux's number; the fcntl module names it only there.
_F_SETPIPE_SZ = 1031


class Pipes:
    """
    Empty pipes to spare.

    @param keep: how many of them at most.
    """

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._spare: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        return f"<Pipes {len(self._spare)} spare>"

    def take(self) -> tuple[int, int] | None:
        """
        An empty pipe.

        @return: its ends to read and to write; C{None} when the process has
            hardly a descriptor left.
        """
        if self._spare:
            return self._spare.pop()
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if pipe[1] >= below_for_traffic():
            self.destroy(pipe)
            return None
        # A user may not have many large ones: then a small one serves.
        with suppress(OSError):
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, SIZE)
        return pipe

    def give_back(self, pipe: tuple[int, int]) -> None:
        """C{pipe} is empty and not needed now."""
        if len(self._spare) < self._keep:
            self._spare.append(pipe)
        else:
            self.destroy(pipe)

    @staticmethod
    def destroy(pipe: tuple[int, int]) -> None:
        """Drop a pipe, and what is in it."""
        os.close(pipe[0])
        os.close(pipe[1])

    def close(self) -> None:
        """Keep none; pipes that are out are dropped when they come back."""
        self._keep = 0
        while self._spare:
            self.destroy(self._spare.pop())
