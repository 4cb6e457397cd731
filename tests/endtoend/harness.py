"""
Programs as children of a test: how they are started, waited for, read and ended.

Refuses to know which programs these are.  Everything listens on 127.0.0.1,
every wait has a bound, and what was started is ended by its process id.  What a
program wrote goes to standard output at its end, where pytest shows it beside a
failure.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

import dynbalance
from dynbalance.invariants import VARIABLE

LOOPBACK = "127.0.0.1"
BOUND = 15.0
"""Seconds that a program may take for what it does at once on an idle machine."""

ROOT = pathlib.Path(dynbalance.__file__).resolve().parents[1]
LOG_SHOWN = 20_000
NO_ENVIRONMENT: Mapping[str, str] = {}

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, bound: float = BOUND) -> T:
    """
    Ask until the answer is true.

    @param what: completes "waited in vain for".
    @return: the true answer.
    """
    end = time.monotonic() + bound
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {bound:g} s in vain for {what}; last was {answer!r}")
        time.sleep(0.01)


_given: set[int] = set()
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(10_000, 32_768)[_SHARE::_SHARES]
"""
Below those that Linux gives to outgoing connections, which come at any moment;
of these the share of this one of several processes that run tests.
"""


def free_port() -> int:
    """A loopback port that nobody listens on and that was not given before."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no free port in a hundred attempts")


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Whether somebody accepts connections."""
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def until_end(skt: socket.socket) -> bytes:
    """All that comes until the other side closes, in order or not."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := skt.recv(65536):
            heard += data
    return heard


def program(name: str) -> str:
    """
    Where a program is; those of administrators may be off the path.

    @raise AssertionError: it is not installed.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, f"these tests need {name}"
    return path


def run(*command: str, stdin: str | None = None, bound: float = 60.0) -> str:
    """
    Run a program to its end.

    @return: what it wrote.
    @raise AssertionError: it failed.
    """
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=bound,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def curl(url: str, *options: str) -> Any:
    """What curl gets from the API, read as JSON."""
    return json.loads(run("curl", "-sS", "--max-time", "10", *options, url))


def all_descriptors() -> Callable[[], None]:
    """
    Let this process, and those that it starts, open as many files as may be.

    @return: takes that back.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Reply:
    """
    An HTTP answer, read whole.

    @ivar headers: names in lower case.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    target: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    bound: float = 30.0,
) -> Reply:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=bound)
    try:
        connection.request(method, target, body, dict(headers or {}))
        with connection.getresponse() as response:
            return Reply(response)
    finally:
        connection.close()


class Program:
    """
    A child process.

    @ivar pid: its process id.
    """

    def __init__(
        self, name: str, command: list[str], directory: str, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.directory = directory
        self._log = os.path.join(directory, f"{name}.log")
        with open(self._log, "ab") as log:
            self._from = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def log(self) -> str:
        """The end of what it wrote; nothing of its predecessors of the same name."""
        with open(self._log, "rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")[-LOG_SHOWN:]

    def lines_with(self, words: str) -> list[str]:
        """All of its lines that contain these."""
        with open(self._log, errors="replace") as log:
            log.seek(self._from)
            return [line for line in log if words in line]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, bound: float = BOUND) -> int:
        """
        @return: its exit status.
        """
        try:
            return self._process.wait(bound)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not end within {bound:g} s\n{self.log()}"
            ) from None

    def pause(self) -> None:
        """Let it do nothing until L{resume}."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, bound: float = BOUND) -> int:
        """End it by TERM."""
        self.signal(signal.SIGTERM)
        return self.wait(bound)

    def kill(self) -> None:
        """End it, if it runs."""
        if not self.ended:
            self._process.kill()
        self.wait()

    def until(self, ready: Callable[[], T], what: str, bound: float = BOUND) -> T:
        """Wait while it lives; what takes too long is ended, so that it says where it is."""

        def alive() -> T:
            answer = ready()
            assert answer or not self.ended, f"{self.name} ended\n{self.log()}"
            return answer

        try:
            return wait_until(alive, f"{self.name} {what}", bound)
        except AssertionError as late:
            if not self.ended:
                # Python's fault handler then writes where it stands.
                self.signal(signal.SIGABRT)
                self.wait()
            raise AssertionError(f"{late}\n{self.log()}") from None

    def memory(self, field: str = "VmRSS") -> int:
        """
        Bytes of its memory.

        @param field: C{VmRSS} now, C{VmHWM} at most so far.
        """
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} of {self.name}")

    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class EndToEndCase(SynchronousTestCase):
    """Ends the programs that a test started, the last one first."""

    def directory(self, name: str) -> str:
        """A new directory that goes with the test."""
        path = tempfile.mkdtemp(prefix=f"dynbalance-{name}-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def start(
        self,
        name: str,
        command: list[str],
        directory: str,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
    ) -> Program:
        """Start a program; its log is shown when the test fails."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        started = Program(
            name,
            command,
            directory,
            {
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONFAULTHANDLER": "1",
                VARIABLE: "1",
                **environment,
            },
        )
        self.addCleanup(self.assert_sound, started)
        self.addCleanup(self._end, started)
        return started

    def assert_no_traceback(self, started: Program) -> None:
        """Nothing that others do to the daemon is a mistake of the daemon's."""
        log = started.log()
        assert "Traceback" not in log and "Unhandled" not in log, log

    def assert_sound(self, started: Program) -> None:
        """Whatever a test does, the daemon's counts agree with each other."""
        wrong = started.lines_with("An invariant is violated")
        assert not wrong, "".join(wrong)

    def _end(self, started: Program) -> None:
        # A stopped process hears no other signal.
        if not started.ended:
            started.resume()
        started.kill()
        sys.stdout.write(f"--- {started.name} ({started.pid})\n{started.log()}\n")
