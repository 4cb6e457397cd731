"""
What stands around the daemon: Redis, nginx, and a backend of our own.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from dynbalance.net.tls import KeyPair
from tests.endtoend.harness import (
    BOUND,
    LOOPBACK,
    NO_ENVIRONMENT,
    EndToEndCase,
    accepts,
    ask,
    free_port,
    program,
)


@frozen
class Secured:
    """
    TLS for a redis-server; redis-cli comes the plain way.

    @ivar authority: the file of who has signed its certificate.
    @ivar pair: the certificate, for 127.0.0.1.
    @ivar caller: what it shows to others of its cluster.
    """

    authority: str
    pair: KeyPair
    caller: KeyPair

    def options(self, port: int) -> tuple[str, ...]:
        files = (
            *(("cert", self.pair.certificate), ("key", self.pair.key)),
            *(("client-cert", self.caller.certificate), ("client-key", self.caller.key)),
            ("ca-cert", self.authority),
        )
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-replication", "yes"),
            *(word for name, file in files for word in (f"--tls-{name}-file", file)),
        )


class Redis:
    """
    A redis-server on a TCP port of its own, which survives a restart of it.

    @ivar door: the port for everybody but redis-cli.
    """

    def __init__(
        self,
        case: EndToEndCase,
        *options: str,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        secured: Secured | None = None,
    ) -> None:
        """@param environment: more of it."""
        self._case = case
        self._environment = environment
        self.port = self.door = free_port()
        if secured is not None:
            self.door = free_port()
            options += secured.options(self.door)
        self._options = options
        self.directory = case.directory("redis")
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        command = [program("redis-server"), "--port", str(self.port), "--bind", LOOPBACK]
        command += ["--dir", self.directory, "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", *self._options]
        self.process = self._case.start("redis", command, self.directory, self._environment)
        self.process.until(self._answers, "answers")

    @classmethod
    def at(cls, port: int) -> Redis:
        """Whatever speaks Redis's protocol on a port; not to be started."""
        there = cls.__new__(cls)
        there.port = port
        return there

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

    def __init__(self, case: EndToEndCase, name: str = "backend", *tls: str) -> None:
        """@param tls: files of a certificate, its key and a client's CA, to speak TLS."""
        self._case = case
        self._tls = tls
        self.name = name
        self.port = free_port()
        self.directory = case.directory(name)
        self.start()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        script = pathlib.Path(__file__).with_name("backend.py")
        command = [sys.executable, "-I", str(script), str(self.port), self.name, *self._tls]
        self.process = self._case.start(self.name, command, self.directory)
        self.process.until(lambda: accepts(self.port), "listens")

    def told(self, target: str) -> Any:
        """What it says when it is asked directly."""
        return ask(self.port, target).json
