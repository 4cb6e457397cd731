"""
Real programs for a test: the daemon, Redis, nginx and a backend of our own.

Knows how each is started, asked whether it is ready, read and ended; refuses to
know what is tested.  Everything listens on 127.0.0.1, every wait has a bound,
and what was started is ended by its process id.  What a program wrote goes to
standard output at its end, where pytest shows it beside a failure.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
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

LOOPBACK = "127.0.0.1"
BOUND = 15.0
"""Seconds that a program may take for what it does at once on an idle machine."""

ROOT = pathlib.Path(dynbalance.__file__).resolve().parents[1]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
LOG_SHOWN = 20_000

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


def free_port() -> int:
    """A loopback port that nobody listens on and that was not given before."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no free port in a hundred attempts")


def accepts(port: int) -> bool:
    """Whether somebody accepts connections."""
    try:
        socket.create_connection((LOOPBACK, port), 1.0).close()
    except OSError:
        return False
    return True


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
        """Wait while it lives."""

        def alive() -> T:
            answer = ready()
            assert answer or not self.ended, f"{self.name} ended\n{self.log()}"
            return answer

        return wait_until(alive, f"{self.name} {what}", bound)

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


class Redis:
    """A redis-server on a TCP port of its own, which survives a restart of it."""

    def __init__(self, case: EndToEndCase, *options: str) -> None:
        self._case = case
        self._options = options
        self.port = free_port()
        self._directory = case.directory("redis")
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        command = [program("redis-server"), "--port", str(self.port), "--bind", LOOPBACK]
        command += ["--dir", self._directory, "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", *self._options]
        self.process = self._case.start("redis", command, self._directory)
        self.process.until(self._answers, "answers")

    def _answers(self) -> bool:
        if not accepts(self.port):
            return False
        return self._cli("PING").stdout.strip() == "PONG"

    def _cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [program("redis-cli"), "-h", LOOPBACK, "-p", str(self.port), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=BOUND, check=False
        )

    def __call__(self, *words: str) -> str:
        """One command by redis-cli, and its answer."""
        done = self._cli(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def pairs(self, *words: str) -> dict[str, str]:
        """A flat answer as a dict."""
        lines = self(*words).splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def counts(self) -> dict[str, int]:
        """The published connections of the upstream C{default}."""
        scores = self.pairs("ZRANGE", "upstream:servers:zset", "0", "-1", "WITHSCORES")
        return {address: int(score) for address, score in scores.items()}


class Nginx:
    """
    An nginx that says by a header field which one it is.

    @param files: the directory of what it serves; C{/} is answered with its
        name.
    """

    def __init__(self, case: EndToEndCase, name: str, files: str = "") -> None:
        self._case = case
        self.name = name
        self.port = free_port()
        self.directory = case.directory(f"nginx-{name}")
        config = os.path.join(self.directory, "nginx.conf")
        with open(config, "w") as out:
            out.write(_NGINX.format(name=name, port=self.port, directory=self.directory))
            out.write(f"location /files/ {{ alias {files or self.directory}/; }}\n}}\n}}\n")
        self._command = [program("nginx"), "-p", self.directory, "-c", config]
        self._command += ["-e", os.path.join(self.directory, "error.log")]
        self.start()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        self.process = self._case.start(f"nginx-{self.name}", self._command, self.directory)
        self.process.until(lambda: accepts(self.port), "listens")

    def served(self) -> int:
        """Requests so far."""
        with open(os.path.join(self.directory, "access.log")) as log:
            return sum(1 for _ in log)


_NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 512; }}
http {{
access_log {directory}/access.log;
client_body_temp_path {directory}/body;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
sendfile on;
keepalive_requests 1000000;
server {{
listen 127.0.0.1:{port} backlog=1024;
location / {{ add_header X-Server {name}; return 200 "{name}"; }}
"""


class Backend:
    """A process of C{backend.py}, which says what it can."""

    def __init__(self, case: EndToEndCase, name: str = "backend") -> None:
        self._case = case
        self.name = name
        self.port = free_port()
        self._directory = case.directory(name)
        self.start()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        script = pathlib.Path(__file__).with_name("backend.py")
        command = [sys.executable, "-I", str(script), str(self.port), self.name]
        self.process = self._case.start(self.name, command, self._directory)
        self.process.until(lambda: accepts(self.port), "listens")

    def told(self, target: str) -> Any:
        """What it says when it is asked directly."""
        return ask(self.port, target).json


Table = Mapping[str, "str | int | float | bool | list[str]"]
NOTHING: Table = {}
NO_ENVIRONMENT: Mapping[str, str] = {}


def _toml(header: str, table: Table) -> str:
    # JSON writes texts, numbers, truth and arrays as TOML does.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in table.items()]
    return "".join([header, *lines])


class Daemon:
    """
    A dynbalance on ports of its own.

    @ivar http: the port of the HTTP listener.
    @ivar stream: likewise.
    @ivar admin: likewise.
    @ivar file: its configuration file.
    """

    def __init__(
        self,
        case: EndToEndCase,
        store: str = "memory:",
        name: str = "dynbalance",
        *,
        root: Table = NOTHING,
        keeping: Table = NOTHING,
        heartbeat: Table = NOTHING,
        upstream: Table = NOTHING,
        http: Table = NOTHING,
        stream: Table = NOTHING,
        more: str = "",
        routes: str = "[]",
        servers: str = "[]",
        options: tuple[str, ...] = (),
        wait: bool = True,
    ) -> None:
        """
        @param store: its URL.
        @param name: of the node, and of its log.
        @param root: options of the file's root; the others are those of its
            tables.
        @param keeping: of C{[store]}.
        @param more: TOML of further tables.
        @param routes: TOML of the HTTP listener's.
        @param servers: TOML of the upstream's.
        @param options: of the command line.
        @param wait: whether to wait until it serves.
        """
        self._case = case
        self._options = options
        self.name = name
        self.http, self.stream, self.admin = free_port(), free_port(), free_port()
        self.directory = case.directory(name)
        self.file = os.path.join(self.directory, "dynbalance.toml")
        tables = (
            _toml("", {"node": name, **root}),
            _toml("[store]\n", {"url": store, **keeping}),
            _toml("[heartbeat]\n", heartbeat),
            _toml("[upstreams.default]\n", upstream),
            f"servers = {servers}\n",
            _toml("[[http]]\n", {"listen": endpoint(self.http), **http}),
            f"routes = {routes}\n",
            _toml("[[stream]]\n", {"listen": endpoint(self.stream), **stream}),
            _toml("[admin]\n", {"listen": endpoint(self.admin)}),
            more,
        )
        with open(self.file, "w") as out:
            out.write("\n".join(tables))
        self.start(wait)

    @property
    def url(self) -> str:
        """Of the admin API."""
        return f"http://{LOOPBACK}:{self.admin}"

    def start(self, wait: bool = True) -> None:
        command = [*TWISTD, "-n", "--pidfile=", "dynbalance", "--config", self.file, *self._options]
        self.process = self._case.start(self.name, command, self.directory)
        self._case.addCleanup(self._case.assert_no_traceback, self.process)
        if wait:
            self.process.until(lambda: "serves as" in self.process.log(), "serves")

    def call(self, path: str, **fields: str | int) -> Any:
        """An order to the API, by curl."""
        words = [word for field in fields.items() for word in ("-d", "{}={}".format(*field))]
        return curl(f"{self.url}/upstream/{path}", "-X", "POST", *words)

    def add(self, port: int, **fields: str | int) -> None:
        """Add a server on this machine."""
        answer = self.call("add", host=LOOPBACK, port=port, **fields)
        assert answer["code"] == 200, answer

    def status(self) -> dict[str, dict[str, Any]]:
        """The servers by their addresses."""
        answer = ask(self.admin, "/upstream/status").json
        return {server["addr"]: server for server in answer["data"]}

    def state(self, address: str) -> str:
        """The word for a server."""
        return str(self.status()[address]["state"])

    def counts(self) -> dict[str, int]:
        """The connections of each server over all nodes."""
        return {addr: server["connections"] for addr, server in self.status().items()}


def endpoint(port: int) -> str:
    """A loopback port as Twisted writes it."""
    return f"tcp:{port}:interface={LOOPBACK}"


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
            name, command, directory, {**os.environ, "PYTHONPATH": path, **environment}
        )
        self.addCleanup(self._end, started)
        return started

    def assert_no_traceback(self, started: Program) -> None:
        """Nothing that others do to the daemon is a mistake of the daemon's."""
        log = started.log()
        assert "Traceback" not in log and "Unhandled" not in log, log

    def _end(self, started: Program) -> None:
        # A stopped process hears no other signal.
        if not started.ended:
            started.resume()
        started.kill()
        sys.stdout.write(f"--- {started.name} ({started.pid})\n{started.log()}\n")
