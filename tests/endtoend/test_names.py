"""
Servers that are given by name, and name servers that change their minds.
"""

from __future__ import annotations

import socket

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.nameserver import NameServer
from tests.endtoend.oracle import Oracle, Recorder
from tests.endtoend.servers import Backend

OTHER = "127.0.0.2"
"""As much this machine as the first one."""

STREAM = b"GET /one HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\n\r\n"


class NameTests(EndToEndCase):
    """A daemon whose C{resolver} is the test's."""

    def setUp(self) -> None:
        self.old = Recorder(self, "old")
        self.new = Recorder(self, "new", OTHER, self.old.port)
        self.names = NameServer(self, one=[LOOPBACK])
        self.name = f"one.test:{self.old.port}"

    def daemon(self, servers: str = "[]") -> Daemon:
        return Daemon(
            self,
            upstream={"retry_budget": 0.0, "connect_timeout": 1.0},
            more=self.names.table(),
            servers=servers,
        )

    def oracle(self, daemon: Daemon, *more: Recorder) -> Oracle:
        return Oracle(self, [daemon.http], [self.old, self.new, *more], clients=4)

    def nobody_fails(self, oracle: Oracle) -> None:
        """Every request was answered, and rightly."""
        oracle.stop()
        verdict = oracle.verdict()
        self.assertEqual(([], 0), (verdict.violations, verdict.failed()), str(verdict))

    def only(self, oracle: Oracle, server: Recorder, other: Recorder) -> None:
        """Wait until one of two gets everything; that holds."""

        def is_alone() -> bool:
            before = other.served()
            oracle.more(50)
            return other.served() == before

        wait_until(is_alone, f"only {server.name} to be asked")
        before = server.served(), other.served()
        oracle.more(200)
        self.assertEqual(before[1], other.served())
        self.assertGreater(server.served(), before[0])

    def test_moved(self) -> None:
        """
        A name moves under load: no request fails, and soon none goes to the old place,
        whose connections are not used again.  A stream there goes on; the next one
        goes to the new place.
        """
        daemon = self.daemon(servers=f'[{{ address = "{self.name}" }}]')
        oracle = self.oracle(daemon)
        oracle.more()
        self.assertEqual(0, self.new.served())
        stream = socket.create_connection((LOOPBACK, daemon.stream), 10)
        self.addCleanup(stream.close)
        stream.sendall(STREAM % b"first")
        self.assertIn(b"first", stream.recv(4096))
        self.names.hosts["one.test"] = [OTHER]
        self.only(oracle, self.new, self.old)
        daemon.process.until(
            lambda: f"one.test is at {OTHER} now" in daemon.process.log(), "says so"
        )
        stream.sendall(STREAM % b"second")
        self.assertIn(b"second", stream.recv(4096))
        self.assertEqual(1, self.old.recorded("whole")["second"])
        with socket.create_connection((LOOPBACK, daemon.stream), 10) as later:
            later.sendall(STREAM % b"third")
            self.assertIn(b"third", later.recv(4096))
        self.assertEqual(1, self.new.recorded("whole")["third"])
        self.nobody_fails(oracle)

    def test_vanished(self) -> None:
        """
        A name that was added by the API vanishes, and then nobody answers for it: all
        goes on where it was, until there is another answer.
        """
        daemon = self.daemon()
        answer = daemon.call("add", host="one.test", port=self.old.port, heartbeat="false")
        self.assertEqual(200, answer["code"], answer)
        oracle = self.oracle(daemon)
        oracle.more()
        del self.names.hosts["one.test"]
        daemon.process.until(lambda: "is not found any more" in daemon.process.log(), "says so")
        self.only(oracle, self.old, self.new)
        self.names.silent = True
        asked = self.names.asked
        wait_until(lambda: self.names.asked > asked, "a question that gets no answer")
        # Connections are new each time, so that each needs the address.
        for _ in range(20):
            self.assertEqual(200, ask(daemon.http, headers={"Connection": "close"}).status)
        self.names.silent, self.names.hosts = False, {"one.test": [OTHER]}
        daemon.process.until(lambda: "is found again" in daemon.process.log(), "says so")
        self.only(oracle, self.new, self.old)
        self.nobody_fails(oracle)

    def test_several(self) -> None:
        """All addresses of a name take turns, be they too many for a datagram."""
        self.names.hosts["one.test"] = [LOOPBACK, OTHER] * 20
        daemon = self.daemon(servers=f'[{{ address = "{self.name}" }}]')
        oracle = self.oracle(daemon)
        wait_until(lambda: self.old.served() and self.new.served(), "both to be asked")
        oracle.more()
        self.nobody_fails(oracle)

    def test_never_found(self) -> None:
        """
        While nobody says where a name is, each request to it is given up after
        C{connect_timeout}, and goes to the next server.
        """
        self.names.silent = True
        backend = Backend(self)
        daemon = self.daemon(
            servers=f'[{{ address = "{self.name}" }}, {{ address = "{backend.address}" }}]'
        )
        for _ in range(2):
            self.assertEqual(200, ask(daemon.http).status)

    def test_refused(self) -> None:
        """A name server has to be an address, with a port."""
        daemon = self.daemon()
        daemon.edit(f'"{LOOPBACK}:{self.names.port}"', '"dns.test:53"')
        daemon.reload("'dns.test:53' is not an IP address with a port")
