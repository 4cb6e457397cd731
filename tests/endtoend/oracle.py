"""
Load whose every request is accounted for, whatever happens to the daemon, its store
and its servers meanwhile.

Clients write down what they asked and what they heard; servers write down what they
got (L{tests.endtoend.recorder}).  The verdict compares the two: a good answer is to
this request and to all of its bytes, a server has seen it, and a POST was begun at
one server at most.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import random
import sys
import threading
from collections import Counter
from itertools import count

from attrs import define, frozen

from tests.endtoend.harness import LOOPBACK, EndToEndCase, accepts, free_port, wait_until
from tests.endtoend.recorder import PAD

_names = count(1)
"""Of clients: each request of a run has a name of its own."""


class Recorder:
    """A process of C{recorder.py}."""

    def __init__(
        self, case: EndToEndCase, name: str, host: str = LOOPBACK, port: int = 0
    ) -> None:
        """@param port: 0 for one of its own."""
        self._case = case
        self.name = name
        self.host = host
        self.port = port or free_port()
        self.directory = case.directory(name)
        self.file = os.path.join(self.directory, "record")
        self.start()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        script = pathlib.Path(__file__).with_name("recorder.py")
        command = [sys.executable, "-I", str(script), self.host, str(self.port), self.file]
        self.process = self._case.start(self.name, command, self.directory)
        self.process.until(lambda: accepts(self.port, self.host), "listens")

    def served(self) -> int:
        """Requests so far."""
        return sum(self.recorded("whole").values())

    def recorded(self, what: str) -> Counter[str]:
        """How often it has begun each request, or had it whole."""
        with open(self.file) as lines:
            words = (line.split() for line in lines)
            return Counter(word[1] for word in words if word[0] == what)


@define
class Asked:
    """
    A request.

    @ivar port: of the daemon that was asked.
    @ivar outcome: the status; C{"lost"} where there was no answer; C{"wrong"} for
        an answer to something else.
    """

    name: str
    method: str
    port: int
    outcome: str = ""


@frozen
class Verdict:
    """
    @ivar outcomes: how often what came of which method.
    @ivar violations: what must never be, a line each.
    """

    outcomes: Counter[str]
    violations: list[str]

    def failed(self, method: str = "") -> int:
        """Requests that were not answered by 200."""
        return sum(
            number
            for what, number in self.outcomes.items()
            if not what.endswith(" 200") and what.startswith(method)
        )

    def __str__(self) -> str:
        told = ", ".join(f"{what}: {number}" for what, number in sorted(self.outcomes.items()))
        return told + "".join(f"\n  VIOLATION {line}" for line in self.violations)


class Oracle:
    """
    @param ports: of the daemons; each has clients of its own.
    @ivar servers: whose records count.
    """

    def __init__(
        self, case: EndToEndCase, ports: list[int], servers: list[Recorder], clients: int = 4
    ) -> None:
        self.servers = servers
        self._asked: list[Asked] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(port, f"{port}-{next(_names)}"))
            for port in ports
            for _ in range(clients)
        ]
        case.addCleanup(self.stop)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, requests: int = 200, bound: float = 30.0) -> None:
        """Wait for further good answers."""
        goal = self._good() + requests
        wait_until(lambda: self._good() >= goal, "good answers", bound)

    def _good(self) -> int:
        with self._lock:
            return sum(asked.outcome == "200" for asked in self._asked)

    def _run(self, port: int, who: str) -> None:
        chance = random.Random(who)
        connection: http.client.HTTPConnection | None = None
        number = 0
        while not self._over.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20)
            number += 1
            asked = Asked(f"{who}-{number}", chance.choice(("GET", "GET", "PUT", "POST")), port)
            size = 0 if asked.method == "GET" else chance.choice((1, 1000, 50_000))
            try:
                asked.outcome = self._ask(connection, asked, chance.randbytes(size))
            except (OSError, http.client.HTTPException):
                asked.outcome = "lost"
            if asked.outcome != "200" or chance.random() < 0.1:
                connection.close()
                connection = None
            with self._lock:
                self._asked.append(asked)
            if asked.outcome == "lost":
                # Whoever is not there need not be asked at once again.
                self._over.wait(0.02)
        if connection is not None:
            connection.close()

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, asked: Asked, body: bytes) -> str:
        target = "/long" if asked.method == "GET" else "/"
        connection.request(asked.method, target, body or None, {"X-Id": asked.name})
        with connection.getresponse() as response:
            answer = response.read()
        if response.status != 200:
            return str(response.status)
        digest = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        wanted = f"{asked.name} {digest}".encode()
        return "200" if answer == wanted + (b" " + PAD if target == "/long" else b"") else "wrong"

    def verdict(self, port: int = 0) -> Verdict:
        """
        What is to be said of it; to be asked when it has stopped.

        @param port: of a daemon, for what its clients have asked; 0 for all.
        """
        everything = [asked for asked in self._asked if port in (0, asked.port)]
        begun: Counter[str] = Counter()
        whole: Counter[str] = Counter()
        for server in self.servers:
            begun += server.recorded("begun")
            whole += server.recorded("whole")
        violations = []
        for asked in everything:
            if asked.outcome == "wrong":
                violations.append(f"{asked.name} {asked.method}: an answer to something else")
            if asked.outcome == "200" and not whole[asked.name]:
                violations.append(f"{asked.name} {asked.method}: answered, and no server had it")
            if asked.method == "POST" and begun[asked.name] > 1:
                violations.append(f"{asked.name} POST: begun {begun[asked.name]} times")
        outcomes = Counter(f"{asked.method} {asked.outcome}" for asked in everything)
        return Verdict(outcomes, violations)
