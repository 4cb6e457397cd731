"""From the name of a hook in the configuration to the hook."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from dynbalance.balancer.hookload import load_hook
from dynbalance.errors import BadHook

MODULE = """
class Policy:
    def choose(self, balancer): return "method"
    def __call__(self, balancer): return "object"

policy = Policy()
def choose(balancer): return "function"
async def waiting(balancer, *, patience=1): return "coroutine"
def none(): pass
def two(balancer, other): pass
number = 5
"""


class LoadTests(TestCase):
    """Hooks in a package of the test's own."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="dynbalance-test-")
        self.addCleanup(directory.cleanup)
        package = Path(directory.name) / "hooksfortests"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "good.py").write_text(MODULE)
        (package / "broken.py").write_text("def choose(:\n")
        (package / "raising.py").write_text("raise KeyError('token')\n")
        (package / "leaving.py").write_text("raise SystemExit(3)\n")
        (package / "needy.py").write_text("import nosuchmoduleatall\n")
        sys.path.insert(0, directory.name)
        self.addCleanup(sys.path.remove, directory.name)
        self.addCleanup(self.forget)

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "hooksfortests"]:
            del sys.modules[name]

    def test_found(self) -> None:
        """A function, a method of an object, and an object that can be called."""
        for path, result in (
            ("choose", "function"),
            ("policy.choose", "method"),
            ("policy", "object"),
        ):
            self.assertEqual(load_hook(f"hooksfortests.good:{path}")(None), result)
        load_hook("hooksfortests.good:waiting")(None).close()  # type: ignore[attr-defined]

    def test_refused(self) -> None:
        """Each mistake says which part of the name is wrong."""
        missing = "No module named 'nosuchmoduleatall'"
        for text, why in (
            ("hooksfortests.good", "'hooksfortests.good' is not package.module:callable"),
            ("hooksfortests.good:", "'hooksfortests.good:' is not package.module:callable"),
            (":choose", "':choose' is not package.module:callable"),
            ("nosuchmoduleatall:choose", "there is no module 'nosuchmoduleatall'"),
            ("hooksfortests.nosuch:choose", "there is no module 'hooksfortests.nosuch'"),
            ("hooksfortests.nosuch.deep:choose", "there is no module 'hooksfortests.nosuch'"),
            ("hooksfortests.good.deep:choose", "there is no module 'hooksfortests.good.deep'"),
            (
                "hooksfortests.needy:choose",
                f"module 'hooksfortests.needy' cannot be imported: {missing}",
            ),
            (
                "hooksfortests.raising:choose",
                "module 'hooksfortests.raising' cannot be imported: KeyError: 'token'",
            ),
            (
                "hooksfortests.leaving:choose",
                "module 'hooksfortests.leaving' cannot be imported: SystemExit: 3",
            ),
            ("hooksfortests.good:chose", "module 'hooksfortests.good' has no 'chose'"),
            (
                "hooksfortests.good:policy.chose",
                "'policy' of module 'hooksfortests.good' has no 'chose'",
            ),
            (
                "hooksfortests.good:number",
                "'number' of module 'hooksfortests.good' cannot be called: its type is int",
            ),
        ):
            self.assertEqual(str(self.assertRaises(BadHook, load_hook, text)), why)

    def test_syntax(self) -> None:
        """A module that is no Python says where."""
        why = str(self.assertRaises(BadHook, load_hook, "hooksfortests.broken:choose"))
        self.assertIn("cannot be imported: SyntaxError", why)
        self.assertIn("line 1", why)

    def test_arguments(self) -> None:
        """What cannot be called with one argument is refused before the first request."""
        for name in ("none", "two"):
            why = str(self.assertRaises(BadHook, load_hook, f"hooksfortests.good:{name}"))
            self.assertIn("cannot be called with one argument", why)
