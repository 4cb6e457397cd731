"""Tests of the shell examples: what a page shows is what its reader gets."""

from __future__ import annotations

import re
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.configfile import parse
from tests.docs.shell import PageCase, Step, fits, steps
from tests.endtoend.harness import ROOT


class ReadingTests(SynchronousTestCase):
    """How a page is read."""

    def test_steps(self) -> None:
        """Commands with their continuation, and the output below each; no other block."""
        page = (
            "Title\n=====\n\n::\n\n    $ not this\n\n.. code-block:: console\n\n"
            "    $ cat > x <<END\n    > a = 1\n    >\n    > END\n    $ cat x\n    a = 1\n\n"
            "More.\n\n.. code-block:: console\n\n    $ true\n"
        )
        self.assertEqual(
            [
                Step("cat > x <<END\na = 1\n\nEND", ()),
                Step("cat x", ("a = 1",)),
                Step("true", ()),
            ],
            steps(page),
        )

    def test_fits(self) -> None:
        """An ellipsis is anything, alone on its line any lines; columns may be wider."""
        self.assertTrue(fits((), ""))
        self.assertTrue(fits(("a b",), "a   b\n"))
        self.assertTrue(fits(("a…c", "…", "z"), "abc\n1\n2\nz\n"))
        self.assertTrue(fits(("…", "z"), "z\n"))
        self.assertFalse(fits((), "error\n"))
        self.assertFalse(fits(("a",), ""))
        self.assertFalse(fits(("a",), "a\nb\n"))
        self.assertFalse(fits(("a.c",), "abc\n"))


class FileTests(SynchronousTestCase):
    """Configuration files that the pages show."""

    def test_howto(self) -> None:
        """Each one of the how-tos is good."""
        found = 0
        for page in sorted((ROOT / "docs" / "howto").glob("*.rst")):
            text = page.read_text(encoding="utf-8")
            for block in re.findall(r"(?m)^\.\. code-block:: toml\n\n((?:(?: +.*)?\n)+)", text):
                parse(dedent(block))
                found += 1
        self.assertGreater(found, 3)


class ExampleTests(PageCase):
    """The pages."""

    def test_tutorial(self) -> None:
        """The ten minutes of the tutorial."""
        self.follow("docs/tutorial.rst")

    def test_readme(self) -> None:
        """What the README shows first."""
        self.follow("README.rst")
