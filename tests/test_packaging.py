"""
What is in the packages that are built, and that twistd finds the plugin.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from twisted.trial.unittest import TestCase

ROOT = pathlib.Path(__file__).parent.parent
PARTS = (
    ".ci", "bench", "docs", "dynbalance", "etc", "tests", "twisted",
    "CHANGELOG.rst", "LICENSE", "MANIFEST.in", "README.rst", "SECURITY.rst",
    "pyproject.toml", "setup.cfg",
)
SHIPPED = (".py", ".lua", ".html", ".css", ".js", ".svg")

# twistd, but for its plugins: only those that were built may be found, whatever
# else is installed.
TWISTD = """
import sys
import twisted.plugins
twisted.plugins.__path__[:] = [sys.argv.pop(1)]
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""


class BuildTests(TestCase):
    """The source distribution and the wheel that is built from it."""

    @classmethod
    def setUpClass(cls) -> None:
        """Build both once, from a copy: building leaves files behind."""
        super().setUpClass()
        cls.directory = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        copy = cls.directory / "copy"
        copy.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "_trial_temp*")
                shutil.copytree(source, copy / part, ignore=ignored)
            elif source.exists():
                shutil.copy(source, copy / part)
        cls.output = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "copy"],
            cwd=cls.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if cls.output.returncode:
            raise AssertionError(cls.output.stdout)
        (cls.sdist,) = (cls.directory / "out").glob("*.tar.gz")
        (cls.wheel,) = (cls.directory / "out").glob("*.whl")
        with tarfile.open(cls.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        cls.in_sdist = names
        with zipfile.ZipFile(cls.wheel) as package:
            cls.in_wheel = set(package.namelist())

    def expected(self) -> set[str]:
        """All files of the two packages, as they stand in the checkout."""
        files = {"twisted/plugins/dynbalance_plugin.py"}
        for file in (ROOT / "dynbalance").rglob("*"):
            if file.suffix in SHIPPED or file.name == "py.typed":
                files.add(str(file.relative_to(ROOT)))
        return files

    def test_wheel(self) -> None:
        """The wheel has all modules, scripts and pages, and nothing of Twisted's."""
        mine = {name for name in self.in_wheel if ".dist-info/" not in name}
        self.assertEqual(self.expected(), mine)
        self.assertTrue([name for name in mine if name.endswith(".lua")])
        self.assertTrue([name for name in mine if name.endswith(".html")])
        self.assertTrue([name for name in self.in_wheel if name.endswith("/LICENSE")])

    def test_sdist(self) -> None:
        """The source distribution also has what tests and packagers need."""
        self.assertEqual(set(), self.expected() - self.in_sdist)
        for name in (
            "LICENSE", "README.rst", "setup.cfg", "pyproject.toml", "etc/dynbalance.toml",
            "tests/test_packaging.py", ".ci/run",
        ):
            self.assertIn(name, self.in_sdist)
        self.assertNotIn("twisted/__init__.py", self.in_sdist)
        self.assertNotIn("twisted/plugins/__init__.py", self.in_sdist)

    def test_no_warnings(self) -> None:
        """Nothing in the metadata is deprecated."""
        self.assertNotIn("Deprecat", self.output.stdout)
        with zipfile.ZipFile(self.wheel) as package:
            (name,) = (each for each in package.namelist() if each.endswith("/METADATA"))
            metadata = package.read(name).decode()
        self.assertRegex(metadata, r"(?m)^License(-Expression)?: MIT$")
        self.assertNotIn("License ::", metadata)

    def test_twistd_lists_it(self) -> None:
        """C{twistd --help} lists dynbalance where nothing but the wheel is."""
        site = self.directory / "site"
        with zipfile.ZipFile(self.wheel) as package:
            package.extractall(site)
        ended = subprocess.run(
            [sys.executable, "-c", TWISTD, str(site / "twisted" / "plugins"), "--help"],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertRegex(ended.stdout, r"(?m)^\s+dynbalance\s+A load balancer for HTTP and TCP")
