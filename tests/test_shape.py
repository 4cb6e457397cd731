"""
The shape of the code: what may know what, and how long a file may be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dynbalance

PACKAGE = Path(dynbalance.__file__).parent
LONGEST = 400
UNSAID = {"utils", "helpers", "common", "manager", "handler", "misc", "base"}


def modules() -> Iterator[tuple[str, str]]:
    """Each module's dotted name below the package, and its text."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, path.read_text(encoding="utf-8")


def imported(text: str) -> Iterator[str]:
    """What a module imports, those imports left out that only types need."""
    for node in _run(ast.parse(text).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from _run(getattr(node, name, []))


class ShapeTests(SynchronousTestCase):
    """Rules that a reader may rely on."""

    def test_length(self) -> None:
        """No module is longer than can be read in one go."""
        long = {n: lines for n, t in modules() if (lines := t.count("\n")) > LONGEST}
        self.assertEqual({}, long)

    def test_names(self) -> None:
        """No module is named after nothing."""
        self.assertEqual([], [n for n, _ in modules() if UNSAID & set(n.split("."))])

    def test_opening(self) -> None:
        """Each module says what it is."""
        self.assertEqual([], [n for n, t in modules() if not ast.get_docstring(ast.parse(t))])

    def test_redis(self) -> None:
        """One module knows the Redis library."""
        users = [n for n, t in modules() if any(i.startswith("txredisapi") for i in imported(t))]
        self.assertEqual(["store.link"], users)

    def test_reactor(self) -> None:
        """One module names the global reactor."""
        users = [
            name for name, text in modules() if "twisted.internet.reactor" in set(imported(text))
        ]
        self.assertEqual(["tap"], users)

    def test_chance_and_time(self) -> None:
        """Chance is named where the parts are put together, and nowhere else."""
        users = [n for n, t in modules() if {"random", "secrets"} & set(imported(t))]
        self.assertEqual([], [name for name in users if name != "tap"])

    def test_layers(self) -> None:
        """The balancer knows no transport; what is below knows nothing above it."""
        above = {
            "config": {"admin", "balancer.upstream", "health", "http", "net", "store", "stream"},
            "balancer": {"admin", "health", "http", "net", "stream", "config"},
            "net": {"admin", "health", "http", "store", "stream"},
            "store": {"admin", "health", "http", "stream"},
            "http": {"admin", "health", "store", "stream"},
            "stream": {"admin", "health", "http", "store"},
        }
        wrong = [
            f"{name} imports {what}"
            for name, text in modules()
            for what in imported(text)
            for forbidden in above.get(name.partition(".")[0], ())
            if f"{what}.".startswith(f"dynbalance.{forbidden}.")
        ]
        self.assertEqual([], wrong)
