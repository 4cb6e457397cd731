"""Tests of the reference that is written from the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import dynbalance

ROOT = Path(dynbalance.__file__).parents[1]


def tables() -> ModuleType:
    """The module, from a directory that is no package."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OptionTests(SynchronousTestCase):
    """The options of the file."""

    def setUp(self) -> None:
        self.tables = tables()

    def test_each_is_explained(self) -> None:
        """Each option of each class has its text, its type and its default or need."""
        text = self.tables.EXAMPLE.read_text(encoding="utf-8")
        said = self.tables.said_of_options(text)
        written = self.tables.all_options()
        found = list(self.tables.options())
        self.assertGreater(len(found), 130)
        for option in found:
            self.assertTrue("".join(said[option.table, option.name]).strip(), option.full)
            self.assertIn(f".. object:: {option.full}\n", written)

    def test_one(self) -> None:
        """Default, unit and range come from the class, the words from the example."""
        page = self.tables.option_pages("upstreams.default")
        (about,) = re.findall(
            r"\.\. confval:: upstreams\.NAME\.health_check\.interval\n(.*?)\n\.\. ", page, re.DOTALL
        )
        self.assertIn(":type: number\n   :default: ``5.0``", about)
        self.assertIn("seconds between two", about)
        self.assertIn("From 0.1 seconds.", about)

    def test_choices(self) -> None:
        """Where there are few values they are named, those of a list's members too."""
        ranges = {option.full: option.range for option in self.tables.options()}
        self.assertEqual(
            'One of ``"fast"``, ``"strict"``.', ranges["upstreams.NAME.counting"]
        )
        self.assertIn("non_idempotent", ranges["upstreams.NAME.next_upstream"])
        self.assertEqual("From 0 to 1024.", ranges["workers"])

    def test_prose(self) -> None:
        """What would be markup is none; names and texts in quotes are literals."""
        written = self.tables.prose(["RS* of `x`|y, max_fails", 'and store.url = "memory:".'])
        self.assertEqual(
            'RS\\* of \\`x\\`\\|y, ``max_fails``\nand ``store.url = "memory:"``.', written
        )


class OtherTests(SynchronousTestCase):
    """Endpoints, metrics and commands."""

    def setUp(self) -> None:
        self.tables = tables()

    def test_endpoints(self) -> None:
        """All of them are there, with parameters and what these may be."""
        page = self.tables.endpoint_pages()
        for title in ("POST /upstream/add", "GET /metrics", "GET /upstream/cleanup", "GET /"):
            self.assertIn(f".. object:: {title}\n", page)
        self.assertIn("``port`` (required)\n      the server's port (1-65535)", page)

    def test_metrics(self) -> None:
        """Counters have the name that Prometheus sees."""
        page = self.tables.metric_pages()
        self.assertIn(".. object:: dynbalance_listener_accepted_total\n", page)
        self.assertIn(".. object:: dynbalance_store_available\n", page)

    def test_command_lines(self) -> None:
        """Every option of both programs is there."""
        daemon = self.tables.daemon_options()
        for name in ("config PATH", "http ENDPOINT", "state-dir PATH", "workers NUMBER", "demo"):
            self.assertIn(f".. option:: --{name}\n", daemon)
        self.assertIn(".. option:: --dry-run\n", self.tables.command_pages())
