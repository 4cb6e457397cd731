"""
Tests for L{dynbalance.store.leash}, run as the program that it is.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import sys
import tempfile

from twisted.trial.unittest import TestCase

from dynbalance.store import leash
from tests.store.real import DEADLINE


class LeashTests(TestCase):
    """It becomes the command, and not before it may."""

    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        self.addCleanup(shutil.rmtree, directory)
        self.lock = os.path.join(directory, "lock")

    def run_leash(self, parent: int, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, str(parent), self.lock, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_command(self) -> None:
        """The command runs in the same process, in a session of its own."""
        process = self.run_leash(os.getpid(), "/bin/sh", "-c", "echo $$; read -r _ </dev/tty")
        output, _ = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.pid, int(output.split()[0]))
        self.assertIn("/dev/tty", output)

    def test_orphan(self) -> None:
        """Nothing runs for a daemon that is gone."""
        process = self.run_leash(os.getpid() + 1, "/bin/echo", "running")
        output, _ = process.communicate(timeout=DEADLINE)
        self.assertEqual(("the daemon is gone\n", 1), (output, process.returncode))

    def test_lock(self) -> None:
        """The command waits for the data, and keeps it until its end."""
        with open(self.lock, "w") as mine:
            fcntl.flock(mine, fcntl.LOCK_EX)
            process = self.run_leash(os.getpid(), "/bin/sh", "-c", "echo on; exec sleep 60")
            assert process.stdout is not None
            self.assertEqual([], select.select([process.stdout], [], [], 0.3)[0])
            fcntl.flock(mine, fcntl.LOCK_UN)
            self.assertEqual("on\n", process.stdout.readline())
            with self.assertRaises(BlockingIOError):
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process.kill()
            process.wait(DEADLINE)
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
