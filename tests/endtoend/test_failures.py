"""
Servers that die, leave and come back while clients ask.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections import Counter

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, free_port, wait_until
from tests.endtoend.servers import Backend


class Load:
    """
    Clients that ask without a pause until they are told to stop.

    @ivar answers: who answered how often; what went wrong counts under its
        own words.
    """

    def __init__(self, port: int, clients: int = 8) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=20)
        try:
            while not self._over.is_set():
                self._note(self._once(connection))
        finally:
            connection.close()

    def _once(self, connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("GET", "/")
            with connection.getresponse() as response:
                body = response.read().decode()
                return body if response.status == 200 else f"status {response.status}"
        except (OSError, http.client.HTTPException) as failed:
            connection.close()
            return repr(failed)

    def _note(self, answer: str) -> None:
        with self._lock:
            self.answers[answer] += 1

    def more(self, number: int = 200) -> int:
        """Wait for further answers."""
        goal = self.answers.total() + number
        return wait_until(lambda: max(0, self.answers.total() - goal), "answers")

    def from_(self, name: str, number: int = 20) -> None:
        """Wait for further answers of one server."""
        goal = self.answers[name] + number
        wait_until(lambda: self.answers[name] >= goal, f"answers of {name}")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)


class LoadTests(EndToEndCase):
    """Two servers under load; not one GET may fail."""

    def setUp(self) -> None:
        self.daemon = Daemon(self, upstream={"connect_timeout": 1.0})
        self.one, self.two = Backend(self, "one"), Backend(self, "two")
        for backend in (self.one, self.two):
            self.daemon.add(backend.port, fail_timeout=1)
        self.load = Load(self.daemon.http)
        self.addCleanup(self.load.stop)
        self.load.from_("one")
        self.load.from_("two")

    def assert_none_failed(self) -> None:
        self.load.stop()
        self.assertEqual({"one", "two"}, set(self.load.answers))
        nothing = {self.one.address: 0, self.two.address: 0}
        wait_until(lambda: self.daemon.counts() == nothing, "all counts to be 0")

    def test_killed(self) -> None:
        """One is killed: the other serves alone, and both do when it is back."""
        self.one.process.kill()
        self.load.more()
        wait_until(lambda: self.daemon.state(self.one.address) == "failed", "it to be out")
        self.one.start()
        self.load.from_("one")
        self.assert_none_failed()

    def test_killed_again_and_again(self) -> None:
        """One is killed and started five times."""
        for _ in range(5):
            self.one.process.kill()
            self.load.more(100)
            self.one.start()
            self.load.from_("one", 5)
        self.assert_none_failed()

    def test_stopped(self) -> None:
        """One ends gracefully and comes back."""
        self.assertEqual(0, self.one.process.stop())
        self.load.more()
        self.one.start()
        self.load.from_("one")
        self.assert_none_failed()

    def test_disabled(self) -> None:
        """One that a person takes out gets nothing more, until it is put back."""
        self.daemon.call("toggle", host=LOOPBACK, port=self.one.port, action="disable")
        wait_until(lambda: self.daemon.counts()[self.one.address] == 0, "its last requests")
        before = self.load.answers["one"]
        self.load.more()
        # What was answered by then was perhaps not counted here yet.
        self.assertLess(self.load.answers["one"] - before, 9)
        self.daemon.call("toggle", host=LOOPBACK, port=self.one.port, action="enable")
        self.load.from_("one")
        self.assert_none_failed()

    def test_removed_and_added(self) -> None:
        """Members come and go under load."""
        for _ in range(5):
            self.daemon.call("remove", host=LOOPBACK, port=self.one.port)
            self.load.more(50)
            self.daemon.add(self.one.port)
            self.load.from_("one", 5)
        self.assert_none_failed()


class LateTests(EndToEndCase):
    """Servers that take too long."""

    def test_read_timeout(self) -> None:
        """One that does not answer in time is passed over for a GET."""
        daemon = Daemon(self, upstream={"read_timeout": 0.6, "policy": "round_robin"})
        asleep, awake = Backend(self, "asleep"), Backend(self, "awake")
        daemon.add(asleep.port)
        daemon.add(awake.port)
        asleep.process.pause()
        for _ in range(4):
            self.assertEqual(b"awake", ask(daemon.http).body)
        self.assertEqual("failed", daemon.state(asleep.address))

    def test_not_sent_twice(self) -> None:
        """A POST that a server may have carried out is not given to another one."""
        daemon = Daemon(self, upstream={"read_timeout": 0.6, "policy": "round_robin"})
        asleep, awake = Backend(self, "asleep"), Backend(self, "awake")
        daemon.add(asleep.port, max_fails=0)
        daemon.add(awake.port, max_fails=0)
        asleep.process.pause()
        statuses = [ask(daemon.http, "/echo", "POST", b"order").status for _ in range(4)]
        self.assertEqual([200, 200, 504, 504], sorted(statuses))

    def test_sent_to_the_next(self) -> None:
        """A POST that no server has seen is given to the next one, with all of its body."""
        # Half of them are tried again, which is more than the usual budget.
        daemon = Daemon(self, upstream={"policy": "round_robin", "retry_budget": 0.0})
        backend = Backend(self)
        daemon.add(backend.port)
        daemon.add(free_port(), max_fails=0)
        for size in (10, 1000, 1_000_000):
            body = os.urandom(size)
            for _ in range(4):
                self.assertEqual(body, ask(daemon.http, "/echo", "POST", body).body)

    def test_gateway_timeout(self) -> None:
        """With no other server the client gets 504."""
        daemon = Daemon(self, upstream={"read_timeout": 0.6})
        backend = Backend(self)
        daemon.add(backend.port)
        self.assertEqual(504, ask(daemon.http, "/held").status)
        wait_until(lambda: daemon.counts() == {backend.address: 0}, "the count to be 0")

    def test_full(self) -> None:
        """max_conns holds, and what it refuses is 502."""
        daemon, backend = Daemon(self), Backend(self)
        daemon.add(backend.port, max_conns=1)
        client = threading.Thread(target=ask, args=(daemon.http, "/held"))
        client.start()
        wait_until(lambda: backend.told("/waiting") == 1, "the held request")
        self.assertEqual("full", daemon.state(backend.address))
        self.assertEqual(502, ask(daemon.http).status)
        backend.told("/release")
        client.join(30)
        self.assertEqual(200, ask(daemon.http).status)
