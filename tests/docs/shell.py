"""
The shell examples of a page, run as a reader would type them.

Reads the C{console} blocks: what stands behind C{$ } is a command, with lines
behind C{> } as its continuation; what stands below is the output, in which C{…}
is anything, and a line of C{…} alone any lines.

Three things are not as on the page.  Ports are free ones.  Nothing is installed:
the programs of C{.venv} are those of this checkout.  A daemon that would listen
on its default ports gets options with the ports that stand for them, and runs
in the background.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from attrs import frozen

from tests.endtoend.harness import ROOT, EndToEndCase, accepts, ask, free_port, wait_until

PORTS = re.compile(r"(?<![\d.])(80[0-9]{2}|90[0-9]{2}|10000|10001)(?![\d.])")
BOUND = 60.0
"""Seconds for one command."""

_PROGRAMS = {
    "twistd": "-c 'from twisted.scripts.twistd import run; run()'",
    "dynbalancectl": "-m dynbalance.ctl",
    "python": "",
}
_NOTICE = re.compile(r"(?m)^bash: line \d+: +\d+ Killed.*\n?")
"""What the shell says at some moment after a kill -9."""

_INSTALLS = re.compile(r"-m venv|pip install")


@frozen
class Step:
    """
    One command.

    @ivar output: the lines that the page shows.
    """

    command: str
    output: tuple[str, ...]


def steps(text: str) -> list[Step]:
    """All commands of a page, in order."""
    found: list[Step] = []
    # The mark in the README, by which others find the command, too.
    text = re.sub(r"(?m)^\.\. demo-command\n\n::\n\n +", ".. code-block:: console\n\n    $ ", text)
    for block in re.findall(r"(?m)^\.\. code-block:: console\n\n((?:(?: +.*)?\n)+)", text + "\n"):
        for part in re.split(r"(?m)^ +\$ ", block)[1:]:
            lines = [line.strip() for line in part.rstrip().splitlines()]
            command, output = [lines[0]], lines[1:]
            while output and (output[0] == ">" or output[0].startswith("> ")):
                command.append(output.pop(0)[2:])
            found.append(Step("\n".join(command), tuple(output)))
    return found


def fits(shown: tuple[str, ...], said: str) -> bool:
    """Whether what was said is what is shown."""
    pattern = ""
    for line in shown:
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            words = r"[ \t]+".join(
                ".*".join(re.escape(piece) for piece in word.split("…")) for word in line.split()
            )
            pattern += rf"[ \t]*{words}[ \t]*\n"
    return re.fullmatch(pattern, said.rstrip("\n") + "\n" if said.strip() else "") is not None


class PageCase(EndToEndCase):
    """Runs pages."""

    def follow(self, page: str) -> None:
        """
        Run the examples of a page.

        @param page: its path in the repository.
        """
        directory = Path(self.directory("page"))
        self._programs(directory / ".venv" / "bin")
        text = (ROOT / page).read_text(encoding="utf-8")
        # In the same order, so that what is sorted looks as on the page.
        shown = sorted({*PORTS.findall(text), "8080", "8081", "10000"}, key=int)
        ports = dict(zip(shown, map(str, sorted(free_port() for _ in shown)), strict=True))

        def free(text: str) -> str:
            return PORTS.sub(lambda port: ports[port[0]], text)

        todo = [
            Step(command, step.output)
            for step in steps(text)
            if (command := _typed(step.command))
        ]
        self.assertTrue(todo, f"{page} has no example")
        shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "120", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self.addCleanup(_end, shell, directory)
        for number, step in enumerate(todo):
            said = directory / f".said{number}"
            done = directory / f".done{number}"
            assert shell.stdin
            shell.stdin.write(
                f"{{\n{free(step.command)}\n}} > {said} 2>&1 < /dev/null\necho $? > {done}\n"
            )
            shell.stdin.flush()
            wait_until(lambda done=done: done.exists() and done.read_text(), step.command, BOUND)
            output = _NOTICE.sub("", said.read_text())
            expected = tuple(map(free, step.output))
            if "kill " not in step.command:
                self.assertEqual("0\n", done.read_text(), f"{step.command}\n{output}")
            if "--demo" in step.command:
                wait_until(partial(_is_ready, int(free("8081"))), "the demo's servers", BOUND)
            # What goes on in the background may still say something.
            if expected or not step.command.rstrip().endswith("&"):
                self.assertTrue(
                    fits(expected, output), f"{page}: {step.command}\n{expected}\nis not\n{output}"
                )

    def _programs(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        for name, words in _PROGRAMS.items():
            program = directory / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
            program.chmod(0o755)
        (directory / "activate").write_text(f"PATH={shlex.quote(str(directory))}:$PATH\n")


def _typed(command: str) -> str:
    """What is run for it; empty for nothing."""
    parts = [part for part in command.split(" && ") if not _INSTALLS.search(part)]
    typed = " && ".join(parts)
    if re.search(r"twistd( -n)? dynbalance", typed) and "--config" not in typed:
        typed = typed.replace("twistd -n", "twistd")
        typed += (
            " --http tcp:8080:interface=127.0.0.1 --stream tcp:10000:interface=127.0.0.1"
            " --admin tcp:8081:interface=127.0.0.1"
        )
    return typed


def _is_ready(port: int) -> bool:
    return accepts(port) and ask(port, "/readyz").status == 200


def _end(shell: subprocess.Popen[str], directory: Path) -> None:
    """What the page has started, and has not ended."""
    for file in directory.glob("*.pid"):
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except (ValueError, ProcessLookupError):
            continue
    os.killpg(shell.pid, signal.SIGKILL)
    shell.communicate()
