"""
Tests for L{dynbalance.store.program}.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from dynbalance.errors import StoreUnusable
from dynbalance.store.program import BUNDLE, find_program


class FindProgramTests(TestCase):
    """The first server program that is there is taken."""

    def setUp(self) -> None:
        self.site = Path(tempfile.mkdtemp(prefix="dynbalance-test-"))
        self.addCleanup(shutil.rmtree, self.site)
        self.bin = self.site / "system"
        self.bin.mkdir(parents=True)
        self.patch(os, "environ", {**os.environ, "PATH": str(self.bin)})
        self.patch(sys, "path", [str(self.site)])

    def install(self, path: Path, mode: int = 0o755) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
        return str(path)

    def bundle(self, mode: int = 0o755) -> str:
        init = self.site / BUNDLE / "__init__.py"
        init.parent.mkdir()
        init.write_text("raise AssertionError('imported')")
        return self.install(self.site / BUNDLE / "bin" / "valkey-server", mode)

    def test_order(self) -> None:
        """The bundle comes first, then Valkey, then Redis."""
        redis = self.install(self.bin / "redis-server")
        self.assertEqual(redis, find_program())
        valkey = self.install(self.bin / "valkey-server")
        self.assertEqual(valkey, find_program())
        self.assertEqual(self.bundle(), find_program())

    def test_not_executable(self) -> None:
        """A bundle whose mode bits were lost on the way gets them back."""
        path = self.bundle(0o644)
        self.assertEqual(path, find_program())
        self.assertTrue(os.access(path, os.X_OK))

    def test_without_binary(self) -> None:
        """A bundle without a server program is passed over."""
        os.unlink(self.bundle())
        redis = self.install(self.bin / "redis-server")
        self.assertEqual(redis, find_program())

    def test_none(self) -> None:
        """Without any, it is said what to install."""
        error = self.assertRaises(StoreUnusable, find_program)
        self.assertIn("install dynbalance[embedded]", str(error))
