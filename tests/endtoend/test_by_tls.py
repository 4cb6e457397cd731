"""
What has a test of its own without TLS, by TLS: health checks, and requests that
are read whole.
"""

from __future__ import annotations

import os

from tests.endtoend.certificates import TlsCase, listener_tls, table
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask, wait_until
from tests.endtoend.servers import Backend

CHECKS = table("upstreams.default.health_check", uri="/status/204") + "interval = 0.3\n"


class ByTlsTests(TlsCase):
    """Servers with certificates."""

    def backend(self, name: str) -> Backend:
        pair = self.authority.issue(name, file=name)
        return Backend(self, name, pair.certificate, pair.key)

    def test_checks(self) -> None:
        """A server is asked by TLS where it serves by TLS, and what it shows has to be good."""
        good, bad = self.backend(LOOPBACK), self.backend("b.example")
        more = table("upstreams.default.tls", ca=self.authority.file) + CHECKS
        daemon = Daemon(self, more=more)
        daemon.add(good.port, heartbeat="false")
        daemon.add(bad.port, heartbeat="false")
        wait_until(lambda: daemon.state(bad.address) == "unhealthy", "the bad one to be out")
        why = str(daemon.status()[bad.address]["why"])
        self.assertIn("the certificate is for b.example, not for 127.0.0.1", why)
        self.assertEqual("up", daemon.state(good.address))
        self.assertEqual(b"127.0.0.1", ask(daemon.http).body)

    def test_checks_of_plain_servers(self) -> None:
        """A server that does not speak TLS is out where it should."""
        plain = Backend(self)
        more = table("upstreams.default.tls", ca=self.authority.file) + CHECKS
        daemon = Daemon(self, more=more)
        daemon.add(plain.port, heartbeat="false")
        wait_until(lambda: daemon.state(plain.address) == "unhealthy", "it to be out")

    def test_buffered(self) -> None:
        """By either version of HTTP and by TLS to the server a whole request is one."""
        backend = self.backend(LOOPBACK)
        more = listener_tls("http", self.pair) + table(
            "upstreams.default.tls", ca=self.authority.file
        )
        daemon = Daemon(
            self,
            upstream={"request_buffering": True, "body_buffer": 1000},
            more=more,
            options=("--state-dir", self.directory("state")),
        )
        daemon.add(backend.port, heartbeat="false")
        for size in (10, 3_000_000):
            body = os.urandom(size)
            for option in ("--http1.1", "--http2"):
                got = self.got(daemon.http, "/echo", option, "--data-binary", "@-", stdin=body)
                self.assertEqual(body, got)
