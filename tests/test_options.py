"""
The command line.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import subprocess
import sys

from twisted.trial.unittest import TestCase

from dynbalance.config import Config, HttpConfig, StreamConfig
from dynbalance.errors import ConfigError
from dynbalance.options import Options, load, refusal

ROOT = pathlib.Path(__file__).parent.parent


def configured(
    *arguments: str, file: bytes | None = None, environ: dict[str, str] | None = None
) -> Config:
    """What the arguments, and a file if there is one, come to."""

    def read(path: str) -> bytes:
        if file is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return file

    options = Options()
    options.parseOptions(list(arguments))
    return load(options, environ or {}, read)


def refused(*arguments: str, file: bytes | None = None) -> list[str]:
    """What is said of arguments that must be refused."""
    try:
        configured(*arguments, file=file)
    except ConfigError as error:
        return error.problems
    raise AssertionError("the arguments were accepted")


class LoadTests(TestCase):
    """L{load} lays the command line over the file."""

    def test_nothing(self) -> None:
        """No argument means all defaults."""
        self.assertEqual(Config(), configured())

    def test_each_option(self) -> None:
        """Every option sets what it is named after."""
        config = configured(
            *("--http", "tcp:1", "--http=tcp:2", "--stream", "tcp:3", "--stream", "tcp:4"),
            *("--admin", "unix:/run/admin", "--store", "memory:", "--state-dir", "/var/x"),
            *("--workers", "1", "--demo"),
        )
        self.assertEqual(["tcp:1", "tcp:2"], [each.listen for each in config.http])
        self.assertEqual(["tcp:3", "tcp:4"], [each.listen for each in config.stream])
        self.assertEqual("unix:/run/admin", config.admin.listen)
        self.assertEqual("memory:", str(config.store.url))
        self.assertEqual(("/var/x", True), (config.state_dir, config.demo))

    def test_over_the_file(self) -> None:
        """The command line replaces the file's listeners and single options."""
        file = b"""
            [store]
            url = "memory:"
            prefix = "x"
            [admin]
            listen = "unix:/run/a"
            [[http]]
            listen = "tcp:1"
            access_log = "stdout"
            [[http]]
            listen = "tcp:2"
            [[stream]]
            listen = "tcp:3"
        """
        listens = [each.listen for each in configured("-c", "f", file=file).http]
        self.assertEqual(["tcp:1", "tcp:2"], listens)
        config = configured("--config", "f", "--http", "tcp:9", "--store", "embedded:", file=file)
        self.assertEqual((HttpConfig(listen="tcp:9"),), config.http)
        self.assertEqual((StreamConfig(listen="tcp:3"),), config.stream)
        self.assertEqual(("embedded:", "x"), (str(config.store.url), config.store.prefix))
        self.assertEqual("unix:/run/a", config.admin.listen)

    def test_which_listeners(self) -> None:
        """
        Without a file each kind has its default; with one, what is named
        nowhere is not opened, unless nothing is named at all.
        """
        cases: list[tuple[tuple[str, ...], bytes | None, int, int]] = [
            (("--http", "tcp:1"), None, 1, 1),
            (("-c", "f"), b"", 1, 1),
            (("-c", "f"), b"[[http]]", 1, 0),
            (("-c", "f"), b"[[stream]]", 0, 1),
            (("-c", "f", "--http", "tcp:1"), b"", 1, 0),
            (("-c", "f", "--http", "tcp:1"), b"[[stream]]", 1, 1),
            (("-c", "f", "--stream", "tcp:1", "--stream", "tcp:2"), b"[[stream]]", 0, 2),
        ]
        for arguments, file, http, stream in cases:
            config = configured(*arguments, file=file)
            self.assertEqual((http, stream), (len(config.http), len(config.stream)), arguments)

    def test_state_directory(self) -> None:
        """systemd's first directory is the default, the option goes before it."""
        environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}
        self.assertEqual("/var/lib/a", configured(environ=environ).state_dir)
        self.assertEqual("/x", configured("--state-dir", "/x", environ=environ).state_dir)
        environ = {"STATE_DIRECTORY": ""}
        self.assertEqual("./dynbalance-state", configured(environ=environ).state_dir)

    def test_mistakes(self) -> None:
        """Mistakes of the command line and of the file are all reported together."""
        self.assertEqual(
            [
                "--http: 'tpc:1': unknown kind of endpoint 'tpc'",
                "--stream: 'tcp:70000': port 70000 is not in 0-65535",
                "--workers: expected an integer, got 'two'",
                "--state-dir: the path is empty",
                "--store: nothing may follow memory:",
                "node: expected a string, got 5",
            ],
            refused(
                *("--http", "tpc:1", "--stream", "tcp:70000", "--workers", "two"),
                *("--state-dir", "", "--store", "memory:x", "-c", "f"),
                file=b"node = 5",
            ),
        )
        self.assertEqual(["workers: 1025 is not in 0-1024"], refused("--workers", "1025"))
        (problem,) = refused("--admin", "tcp:8081")
        self.assertIn("admin.listen: 'tcp:8081' is reachable", problem)

    def test_table_that_is_none(self) -> None:
        """The file's mistake is reported, not buried by the command line."""
        self.assertEqual(
            ["store: expected a table, got 5"],
            refused("-c", "f", "--store", "memory:", file=b"store = 5"),
        )

    def test_bad_files(self) -> None:
        """A file that cannot be read is named, with the reason."""
        self.assertEqual(["--config: /none: No such file or directory"], refused("-c", "/none"))
        self.assertEqual(["--config: f: byte 2 is not UTF-8"], refused("-c", "f", file=b"# \xff"))
        (problem,) = refused("-c", "f", file=b"a = 1\nb =\n")
        self.assertRegex(problem, r"\A--config: f: line 2, column \d+: ")


class ParseOptionsTests(TestCase):
    """L{Options.parseOptions} ends the process in one line."""

    def test_usage_errors(self) -> None:
        """What cannot be parsed ends with a line and without a success."""
        for arguments, said in (
            (["--bad"], "option --bad not recognized"),
            (["--http"], "option --http requires argument"),
            (["--demo=1"], "option --demo must not have an argument"),
            (["x"], "unexpected argument 'x'"),
        ):
            caught = self.assertRaises(SystemExit, Options().parseOptions, arguments)
            self.assertEqual(f"dynbalance: {said} (--help lists the options)", caught.code)

    def test_version(self) -> None:
        """C{--version} says our version, not Twisted's."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            caught = self.assertRaises(SystemExit, Options().parseOptions, ["--version"])
        self.assertEqual(0, caught.code)
        self.assertRegex(output.getvalue(), r"\Adynbalance \d+\.\d+\.\d+\n\Z")

    def test_refusal(self) -> None:
        """Each problem gets a line of its own."""
        self.assertEqual("dynbalance: a\ndynbalance: b", refusal(["a", "b"]).code)

    def test_twistd(self) -> None:
        """C{twistd dynbalance --bad} prints one line on stderr and exits with 1."""
        twistd = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        ended = subprocess.run(
            [sys.executable, "-c", twistd, "-n", "dynbalance", "--bad"],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
        self.assertEqual(1, ended.returncode)
        self.assertEqual("", ended.stdout)
        self.assertEqual(
            "dynbalance: option --bad not recognized (--help lists the options)\n", ended.stderr
        )
