"""
The daemon itself, with a configuration of the test's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tests.endtoend.harness import (
    LOOPBACK,
    NO_ENVIRONMENT,
    ROOT,
    EndToEndCase,
    ask,
    curl,
    free_port,
)

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
Table = Mapping[str, "str | int | float | bool | list[str]"]
NOTHING: Table = {}


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
        modules: str = "",
        environment: Mapping[str, str] = NO_ENVIRONMENT,
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
        @param modules: a directory where it finds more of Python.
        @param environment: more of it.
        @param wait: whether to wait until it serves.
        """
        self._case = case
        self._options = options
        self._modules = modules
        self._environment = environment
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
        environment = dict(self._environment)
        if self._modules:
            path = (str(ROOT), self._modules, os.environ.get("PYTHONPATH", ""))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        self.process = self._case.start(self.name, command, self.directory, environment)
        self._case.addCleanup(self._case.assert_no_traceback, self.process)
        if wait:
            self.process.until(lambda: "serves as" in self.process.log(), "serves")

    def edit(self, before: str, after: str) -> None:
        """Change the configuration file."""
        with open(self.file) as old:
            text = old.read()
        assert before in text, f"no {before!r} in {text}"
        with open(self.file, "w") as new:
            new.write(text.replace(before, after, 1))

    def reload(self, verdict: str = "is followed") -> None:
        """Have it read the file again, and wait for what it says of it."""
        said = len(self.process.lines_with(verdict))
        self.process.signal(signal.SIGHUP)
        self.process.until(lambda: len(self.process.lines_with(verdict)) > said, "reloads")

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
