"""
Certificates that change while the daemon runs, on both sides.
"""

from __future__ import annotations

import os
import socket
import ssl

from tests.endtoend.certificates import TlsCase, listener_tls, table
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask
from tests.endtoend.servers import Backend
from tests.net.authority import Authority, client_context

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


class RenewalTests(TlsCase):
    """HUP after files were replaced."""

    def call(self, port: int, alpn: tuple[str, ...] = ()) -> ssl.SSLSocket:
        context = client_context(self.authority.file, alpn=alpn)
        context.check_hostname = False
        plain = socket.create_connection((LOOPBACK, port), 10)
        client = context.wrap_socket(plain, server_hostname="a.example")
        self.addCleanup(client.close)
        return client

    def names(self, client: ssl.SSLSocket) -> list[str]:
        """Whom the certificate is for that was shown."""
        shown = client.getpeercert()
        assert shown is not None
        return [str(each[1]) for each in shown["subjectAltName"]]

    def answered(self, client: ssl.SSLSocket) -> None:
        client.sendall(GET)
        said = b""
        while not said.endswith(b"\r\n\r\nbackend"):
            more = client.recv(65536)
            assert more, said
            said += more

    def test_listeners(self) -> None:
        """Connections go on with the certificate they have, new ones get the new one."""
        backend = Backend(self)
        other = self.authority.issue("b.example", file="b")
        more = "".join(
            listener_tls(kind, self.pair)
            + table(f"[{kind}.tls.certificates]", certificate=other.certificate, key=other.key)
            for kind in ("http", "stream")
        )
        daemon = Daemon(self, more=more)
        daemon.add(backend.port)
        before = {port: self.call(port) for port in (daemon.http, daemon.stream)}
        for client in before.values():
            self.answered(client)
        self.authority.issue("new.example", LOOPBACK, file="a")
        for port in before:
            self.assertIn("a.example", self.names(self.call(port)))
        daemon.reload()
        for port, client in before.items():
            self.answered(client)
            fresh = self.call(port)
            self.assertIn("new.example", self.names(fresh))
            self.answered(fresh)
        said = self.got(daemon.http, "/", "--http2", name="b.example")
        self.assertEqual(b"backend", said)
        self._broken(daemon, before)

    def _broken(self, daemon: Daemon, before: dict[int, ssl.SSLSocket]) -> None:
        """A file that is of no use changes nothing, and is named with its option and reason."""
        with open(self.pair.key) as key:
            good = key.read()
        foreign = self.authority.issue("x.example", file="x")
        os.replace(foreign.key, self.pair.key)
        self.authority.issue("newer.example", file="b")
        daemon.reload("nothing has changed")
        log = daemon.process.log()
        for kind in ("http", "stream"):
            wrong = f"{self.pair.key} is not the key of {self.pair.certificate}"
            self.assertIn(f"{kind}[0].tls.key: {wrong}", log)
        for port, client in before.items():
            self.answered(client)
            self.assertIn("new.example", self.names(self.call(port)))
        # Not even the certificate that was good is followed alone.
        self.assertNotEqual(0, self.curl(daemon.http, "/", name="newer.example").returncode)
        with open(self.pair.key, "w") as key:
            key.write(good)
        daemon.reload()
        self.assertEqual(b"backend", self.got(daemon.http, "/", name="newer.example"))

    def test_servers(self) -> None:
        """Servers are judged by the authorities of now, and shown the certificate of now."""
        new = Authority(self.files, "new")
        ours = self.authority.issue("us", file="us", client=True)
        issued = new.issue(LOOPBACK, file="server")
        backend = Backend(self, "backend", issued.certificate, issued.key, new.file)
        trusted = os.path.join(str(self.files), "trusted.pem")
        with open(self.authority.file) as old, open(trusted, "w") as out:
            out.write(old.read())
        tls = {"ca": trusted, "certificate": ours.certificate, "key": ours.key}
        more = table("upstreams.default.tls", **tls)
        daemon = Daemon(self, upstream={"retry_budget": 0}, more=more)
        daemon.add(backend.port, max_fails=0)
        self.assertEqual(502, ask(daemon.http).status)
        self.assertIn("that is not trusted", daemon.process.log())
        with open(new.file) as good, open(trusted, "w") as out:
            out.write(good.read())
        new.issue("us", file="us", client=True)
        self.assertEqual(502, ask(daemon.http).status)
        daemon.reload()
        self.assertEqual(b"backend", ask(daemon.http).body)
