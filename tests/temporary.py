"""
Temporary files outside the tree that is tested.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile


class Temporary:
    """Mixed in before a test case, whose C{mktemp} makes its files where it runs."""

    def mktemp(self) -> str:
        """
        A path that nothing has, in a directory that goes with the process:
        what the test cleans up later may still be in it.
        """
        directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        return os.path.join(directory, "file")
