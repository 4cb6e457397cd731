"""
What ties the embedded server to the daemon that started it.

Run as a program of its own, by its path and with the standard library alone:
it prepares its process and then becomes the server by C{exec}, which keeps all
of the following.

    - The kernel kills the process when the daemon dies, in whatever way.  A
      killed server loses nothing that it had answered but what the operating
      system loses: the append-only file is written before the answer.
    - It is in a session of its own: Ctrl-C at the daemon's terminal reaches the
      daemon only, which still has requests to finish.
    - It holds a lock on the data, so that two servers never have one directory,
      be the last one still ending.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PATIENCE = 5.0
"""Seconds that a dying server may keep the lock."""


def tie(parent: int) -> None:
    """
    Die with the parent.

    @param parent: its process id, because it may be dead by now.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise SystemExit("the daemon is gone")


def lock(path: str) -> None:
    """Wait for the data, and keep it until the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise SystemExit(f"another server keeps {path}") from None
            time.sleep(0.02)
        else:
            return


def main(parent: str, path: str, *command: str) -> None:
    """
    @param parent: the daemon's process id.
    @param path: of the lock.
    @param command: what to become.
    """
    os.setsid()
    if sys.platform == "linux":
        tie(int(parent))
    lock(path)
    os.execv(command[0], command)  # noqa: S606 - a program and its arguments, no shell


if __name__ == "__main__":
    main(*sys.argv[1:])
