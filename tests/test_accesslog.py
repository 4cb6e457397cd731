"""
Tests for L{dynbalance.accesslog}.
"""

from __future__ import annotations

import os
import threading

from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.accesslog import LogFile, appended
from tests.temporary import Temporary

LONG = 30_000
"""Characters: more than a buffer of Python's holds."""


class AppendedTests(Temporary, TestCase):
    """L{appended}."""

    def test_whole(self) -> None:
        """Lines that several write at once are not mixed up, however long they are."""
        path = self.mktemp()

        def write(letter: str) -> None:
            with appended(path) as out:
                for _ in range(50):
                    out.write(letter * LONG + "\n")

        writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
        for each in writers:
            each.start()
        for each in writers:
            each.join(30)
        with open(path) as lines:
            texts = [line.rstrip("\n") for line in lines]
        self.assertEqual(200, len(texts))
        self.assertEqual([], [text[:9] for text in texts if text != text[:1] * LONG])

    def test_appended(self) -> None:
        """What was there stays, and each text is in the file at once."""
        path = self.mktemp()
        for text in ("one\n", "zwei \u00e4\n"):
            out = appended(path)
            out.write(text)
            size = os.path.getsize(path)
            out.close()
            self.assertEqual(size, os.path.getsize(path))
        with open(path, encoding="utf-8") as lines:
            self.assertEqual("one\nzwei \u00e4\n", lines.read())


class LogFileTests(Temporary, TestCase):
    """L{LogFile}."""

    def test_full_disk(self) -> None:
        """Lines that find no room are lost, and nothing else is; that is said once."""
        path = self.mktemp()
        os.symlink("/dev/full", path)
        log = LogFile(path)
        with capturedLogs() as said:
            for _ in range(3):
                log.write("lost\n")
            os.remove(path)
            log.reopen()
            log.write("kept\n")
            log.write("kept\n")
        self.assertEqual(["error", "info"], [event["log_level"].name for event in said])
        self.assertIn("No space left", said[0]["why"])
        with open(path) as lines:
            self.assertEqual("kept\nkept\n", lines.read())
