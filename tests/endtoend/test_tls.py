"""
HTTP over TLS on both sides, HTTP/2 from clients, and PROXY headers in and out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
from typing import Any

from twisted.internet.address import IPv4Address

from dynbalance.net.proxyprotocol import header
from tests.endtoend.certificates import TlsCase, listener_tls, table
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ask, program, wait_until
from tests.endtoend.servers import Backend
from tests.net.authority import server_context


class ListenerTests(TlsCase):
    """Clients by TLS."""

    def serve(
        self, more: str = "", routes: str = "[]", settings: str = "", **tls: str | list[str]
    ) -> None:
        self.backend = Backend(self)
        self.log = os.path.join(str(self.files), "access.log")
        self.daemon = Daemon(
            self,
            http={"access_log": self.log},
            more=listener_tls("http", self.pair, **tls) + more,
            routes=routes + "\n" + settings,
        )
        self.daemon.add(self.backend.port)

    def logged(self) -> list[dict[str, Any]]:
        with open(self.log) as lines:
            return [json.loads(line) for line in lines]

    def test_both_versions(self) -> None:
        """curl speaks HTTP/1.1 and HTTP/2; the server hears of https, and so does the log."""
        self.serve()
        cases = (("--http1.1", b"1.1", "HTTP/1.1"), ("--http2", b"2", "HTTP/2.0"))
        for number, (option, said, logged) in enumerate(cases):
            head = self.got(self.daemon.http, "/head?a=b", option, "-w", "%{http_version}")
            head, _, version = head.rpartition(b"\r\n")
            self.assertEqual(said, version)
            self.assertIn(b"GET /head?a=b HTTP/1.1\r\n", head)
            self.assertIn(b"\r\nX-Forwarded-Proto: https\r\n", head)
            self.assertIn(b"\r\nX-Real-IP: 127.0.0.1\r\n", head)
            self.assertIn(b"\r\nHost: a.example:%d\r\n" % self.daemon.http, head)
            entry = wait_until(lambda at=number: self.logged()[at:], "the log")[0]
            self.assertEqual((logged, 200), (entry["protocol"], entry["status"]))
            self.assertEqual("/head?a=b", entry["uri"])
            self.assertEqual([self.backend.address], [each["server"] for each in entry["attempts"]])

    def test_refused(self) -> None:
        """What is refused before it is read has a line in the log, with either version."""
        self.serve()
        long = "X: " + "x" * 40_000
        for number, option in enumerate(("--http1.1", "--http2")):
            said = self.got(self.daemon.http, "/long?a", option, "-H", long)
            self.assertEqual(b"431 Request Header Fields Too Large\n", said)
            entry = wait_until(lambda at=number: self.logged()[at:], "the log")[0]
            self.assertEqual((431, "/long?a", []), tuple(
                entry[name] for name in ("status", "uri", "attempts")
            ))
            self.assertGreater(entry["bytes_out"], 0)

    def test_bodies(self) -> None:
        """Large bodies pass in both directions, with either version."""
        self.serve()
        body = os.urandom(3_000_000)
        for option in ("--http1.1", "--http2"):
            echoed = self.got(self.daemon.http, "/echo", option, "--data-binary", "@-", stdin=body)
            self.assertEqual(body, echoed)
            self.assertEqual(20 << 20, len(self.got(self.daemon.http, f"/flow/{20 << 20}", option)))

    def test_other_answers(self) -> None:
        """HEAD, errors of the server and of ours are the same in HTTP/2."""
        self.serve()
        said = self.got(self.daemon.http, "/", "--http2", "--head")
        self.assertTrue(said.startswith(b"HTTP/2 200"), said)
        self.assertIn(b"content-length: 7\r\n", said)
        self.assertIn(b"x-server: backend\r\n", said)
        said = self.got(self.daemon.http, "/status/503", "--http2", "-i")
        self.assertTrue(said.startswith(b"HTTP/2 503"), said)
        self.backend.process.kill()
        said = self.got(self.daemon.http, "/", "--http2", "-i")
        self.assertTrue(said.startswith(b"HTTP/2 502"), said)
        self.assertIn(b"502 Bad Gateway", said)

    def test_concurrent(self) -> None:
        """One connection carries many requests at a time."""
        self.serve()
        urls = [f"https://a.example:{self.daemon.http}/echo?{i}" for i in range(40)]
        command = [program("curl"), "-sS", "--max-time", "20", "--cacert", self.authority.file]
        command += ["--resolve", f"a.example:{self.daemon.http}:{LOOPBACK}", "--http2"]
        command += ["--parallel", "--parallel-max", "40", "-d", "0123456789", *urls]
        command += ["-w", "%{num_connects}\n"]
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(40, done.stdout.count(b"0123456789"))

    def test_client_certificate(self) -> None:
        """Who has no certificate is not let in where one is asked for."""
        self.serve(client_ca=self.authority.file)
        ours = self.authority.issue("us", file="us", client=True)
        for option in ("--http1.1", "--http2"):
            self.assertNotEqual(0, self.curl(self.daemon.http, "/", option).returncode)
            shown = ("--cert", ours.certificate, "--key", ours.key)
            self.assertEqual(b"backend", self.got(self.daemon.http, "/", option, *shown))

    def test_routes_and_fields(self) -> None:
        """Routes, fields that are set and limits hold in HTTP/2, too."""
        other = Backend(self, "other")
        self.serve(
            more=table("upstreams.other")
            + f'servers = [{{ address = "{other.address}" }}]\nclient_max_body_size = 10\n',
            routes='[{ path = "/echo/o", upstream = "other" }]',
            settings='set_headers = { X-Extra = "$scheme $remote_addr", X-Forwarded-For = "" }',
        )
        for option in ("--http1.1", "--http2"):
            self.assertEqual(b"x", self.got(self.daemon.http, "/echo/o", option, "-d", "x"))
            status = ("-o", "/dev/null", "-w", "%{http_code}")
            long = ("-d", "x" * 11)
            self.assertEqual(b"413", self.got(self.daemon.http, "/echo/o", option, *long, *status))
            head = self.got(self.daemon.http, "/head", option)
            self.assertIn(b"\r\nX-Extra: https 127.0.0.1\r\n", head)
            self.assertNotIn(b"X-Forwarded-For", head)

    def test_several_certificates(self) -> None:
        """Each name is shown its certificate by HTTP and by streams, and openssl verifies it."""
        pairs = [
            self.authority.issue("b.example", "c.example", file="b"),
            self.authority.issue("*.wild.example", file="w"),
        ]
        listed = "".join(
            table(f"[{kind}.tls.certificates]", certificate=pair.certificate, key=pair.key)
            for kind in ("http", "stream")
            for pair in pairs
        )
        self.backend = Backend(self)
        tls = listener_tls("http", self.pair) + listener_tls("stream", self.pair)
        self.daemon = Daemon(self, more=tls + listed)
        self.daemon.add(self.backend.port)
        for name in ("a.example", "b.example", "c.example", "x.wild.example"):
            self.assertEqual(b"backend", self.got(self.daemon.http, "/", name=name))
            self.assertEqual(b"backend", self.got(self.daemon.stream, "/", name=name))
        self.assertIn(b"a.example", self._shown("d.example"))
        self.assertIn(b"*.wild.example", self._shown("y.wild.example"))

    def _shown(self, name: str) -> bytes:
        """What openssl says of the certificate that is shown for a name."""
        openssl = program("openssl")
        command = [openssl, "s_client", "-connect", f"{LOOPBACK}:{self.daemon.stream}"]
        command += ["-servername", name]
        said = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
        command = [openssl, "x509", "-noout", "-ext", "subjectAltName"]
        done = subprocess.run(
            command, input=said.stdout, capture_output=True, timeout=20, check=True
        )
        return done.stdout

    def test_counts(self) -> None:
        """Who never finishes a handshake or a header counts as a connection, and in the metrics."""
        self.backend = Backend(self)
        limit = {"max_connections": 2, "proxy_protocol": True}
        tls = listener_tls("http", self.pair) + listener_tls("stream", self.pair)
        self.daemon = Daemon(self, http=limit, stream={"max_connections": 2}, more=tls)
        self.daemon.add(self.backend.port)
        for kind, port in (("http", self.daemon.http), ("stream", self.daemon.stream)):
            silent = [socket.create_connection((LOOPBACK, port), 10) for _ in range(2)]
            if kind == "http":
                # This one is a step further than the other.
                silent[0].sendall(b"PROXY UNKNOWN\r\n")
            self._wait_for(kind, "connections", 2)
            with socket.create_connection((LOOPBACK, port), 10) as late:
                self.assertEqual(b"", late.recv(1))
            self._wait_for(kind, "rejected_total", 1)
            silent[0].sendall(b"no TLS at all")
            self._wait_for(kind, "failed_handshakes_total", 1)
            silent[1].sendall(b"nothing of the kind\r\n\r\n")
            self._wait_for(kind, "connections", 0)
            for each in silent:
                each.close()
        self._wait_for("http", "broken_headers_total", 1)
        self._wait_for("stream", "failed_handshakes_total", 2)
        self.assertEqual(b"backend", self.got(self.daemon.stream, "/"))
        self._wait_for("stream", "accepted_total", 1)

    def _wait_for(self, kind: str, name: str, value: int) -> None:
        """Wait for a number in the metrics."""
        begins, ends = f'dynbalance_listener_{name}{{kind="{kind}",', f" {value:.1f}"

        def there() -> bool:
            lines = ask(self.daemon.admin, "/metrics").body.decode().splitlines()
            return any(line.startswith(begins) and line.endswith(ends) for line in lines)

        wait_until(there, f"{kind} {name} {value}")

    def test_drain(self) -> None:
        """At the end a request under way is answered, an idle connection and a handshake cut."""
        self.serve()
        silent = socket.create_connection((LOOPBACK, self.daemon.http), 10)
        self.addCleanup(silent.close)
        url = f"https://{LOOPBACK}:{self.daemon.http}/held"
        command = [program("curl"), "-sS", "-k", "--http2", url]
        held = subprocess.Popen(command, stdout=subprocess.PIPE)
        wait_until(lambda: self.backend.told("/waiting") == 1, "the request")
        self.daemon.process.signal(15)
        wait_until(lambda: not self._accepts(), "the port to close")
        self.backend.told("/release")
        said, _ = held.communicate(timeout=10)
        self.assertEqual((0, b"backend"), (held.returncode, said))
        self.assertEqual(0, self.daemon.process.wait())

    def _accepts(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.daemon.http), 1).close()
        except OSError:
            return False
        return True


class ServerTests(TlsCase):
    """Servers by TLS."""

    def serve(self, *backends: Backend, **tls: str | bool) -> None:
        more = table("upstreams.default.tls", ca=self.authority.file, **tls)
        self.daemon = Daemon(self, upstream={"retry_budget": 0}, more=more)
        for backend in backends:
            self.daemon.add(backend.port, max_fails=0)

    def files_of(self, *names: str, **options: Any) -> tuple[str, str]:
        pair = self.authority.issue(*names, file=f"issued-{len(os.listdir(self.files))}", **options)
        return pair.certificate, pair.key

    def refusal(self, name: str, *tls: str, **ours: str | bool) -> str:
        """What the log says when a server is not accepted; the client gets 502."""
        self.serve(Backend(self, name, *tls), **ours)
        self.assertEqual(502, ask(self.daemon.http).status)
        lines = self.daemon.process.log().splitlines()
        return next(line for line in lines if "the TLS handshake failed" in line)

    def test_good(self) -> None:
        """A good server is asked, its connection kept, and large bodies pass both ways."""
        backend = Backend(self, "backend", *self.files_of(LOOPBACK))
        self.serve(backend)
        before = None
        for _ in range(5):
            accepted = ask(self.daemon.http, "/accepted").json
            self.assertIn(before, (None, accepted))
            before = accepted
        body = os.urandom(2_000_000)
        self.assertEqual(body, ask(self.daemon.http, "/echo", "POST", body).body)
        self.assertEqual(8 << 20, len(ask(self.daemon.http, f"/flow/{8 << 20}").body))
        self.assertIn(b"X-Forwarded-Proto: http\r\n", ask(self.daemon.http, "/head").body)

    def test_server_name(self) -> None:
        """The certificate may be for a name that the configuration says."""
        self.serve(Backend(self, "backend", *self.files_of("b.example")), server_name="b.example")
        self.assertEqual(200, ask(self.daemon.http).status)

    def test_wrong_name(self) -> None:
        """A certificate for somebody else is refused, and the log says for whom it is."""
        why = self.refusal("backend", *self.files_of("b.example"))
        self.assertIn("the certificate is for b.example, not for 127.0.0.1", why)

    def test_expired(self) -> None:
        """An old certificate is refused."""
        why = self.refusal("backend", *self.files_of(LOOPBACK, begins=-9, ends=-1))
        self.assertIn("it has expired", why)

    def test_self_signed(self) -> None:
        """A certificate that vouches for itself is refused, unless nothing is verified."""
        files = self.files_of(LOOPBACK, self_signed=True)
        self.assertIn("self-signed", self.refusal("backend", *files))
        self.serve(Backend(self, "again", *files), verify=False)
        self.assertEqual(200, ask(self.daemon.http).status)

    def test_client_certificate(self) -> None:
        """We show a certificate where a server asks for one."""
        ours = self.authority.issue("us", file="us", client=True)
        backend = Backend(self, "backend", *self.files_of(LOOPBACK), self.authority.file)
        self.serve(backend, certificate=ours.certificate, key=ours.key)
        self.assertEqual(200, ask(self.daemon.http).status)

    def test_next_server(self) -> None:
        """A handshake that fails is a connection that fails: another server is asked."""
        good = Backend(self, "good", *self.files_of(LOOPBACK))
        bad = Backend(self, "bad", *self.files_of("b.example"))
        self.serve(good, bad)
        for _ in range(10):
            said = ask(self.daemon.http, "/", "POST", b"once")
            self.assertEqual((200, b"good"), (said.status, said.body))

    def test_unusable_files(self) -> None:
        """Certificates that cannot be used end the start, each by its option's path."""
        more = table("http.tls", certificate="/nowhere.crt", key="/nowhere.key")
        daemon = Daemon(self, more=more, wait=False)
        self.assertEqual(1, daemon.process.wait())
        self.assertIn("dynbalance: http[0].tls.certificate: /nowhere.crt:", daemon.process.log())
        more = table("upstreams.default.tls", ca="/nowhere.crt")
        daemon = Daemon(self, more=more, wait=False, name="another")
        self.assertEqual(1, daemon.process.wait())
        self.assertIn("dynbalance: upstreams.default.tls.ca: /nowhere.crt:", daemon.process.log())


V2 = header(2, IPv4Address("TCP", "10.1.2.3", 1000), IPv4Address("TCP", "10.9.9.9", 443))
GET = b"GET /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class PrefaceTests(TlsCase):
    """PROXY headers to an HTTP listener, and from it."""

    def say(self, data: bytes) -> bytes:
        with socket.create_connection((LOOPBACK, self.daemon.http), 10) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def test_accepted(self) -> None:
        """The address of a header in either version is the client's, if its sender is trusted."""
        backend = Backend(self)
        trusted = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
        self.daemon = Daemon(self, http=trusted)
        self.daemon.add(backend.port)
        for preface in (b"PROXY TCP4 10.1.2.3 10.9.9.9 1000 443\r\n", V2):
            head = self.say(preface + GET)
            self.assertIn(b"\r\nX-Real-IP: 10.1.2.3\r\nX-Forwarded-For: 10.1.2.3\r\n", head)
        self.assertIn(b"X-Real-IP: 127.0.0.1\r\n", self.say(b"PROXY UNKNOWN\r\n" + GET))
        with contextlib.suppress(ConnectionError):
            self.assertEqual(b"", self.say(GET))
        wait_until(lambda: "broken header from" in self.daemon.process.log(), "the log")

    def test_not_trusted(self) -> None:
        """A header of somebody else is read, and not believed."""
        backend = Backend(self)
        others = {"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}
        self.daemon = Daemon(self, http=others)
        self.daemon.add(backend.port)
        self.assertIn(b"X-Real-IP: 127.0.0.1\r\n", self.say(V2 + GET))

    def test_before_tls(self) -> None:
        """The header comes before the handshake, with both versions of HTTP."""
        backend = Backend(self)
        trusted = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
        self.daemon = Daemon(self, http=trusted, more=listener_tls("http", self.pair))
        self.daemon.add(backend.port)
        for option in ("--http1.1", "--http2"):
            head = self.got(self.daemon.http, "/head", option, "--haproxy-protocol")
            self.assertIn(b"X-Forwarded-Proto: https\r\n", head)

    def test_sent(self) -> None:
        """A server hears first of the client, once on each connection, in clear before TLS."""
        for version in (1, 2):
            for tls in (False, True):
                with socket.create_server((LOOPBACK, 0)) as server:
                    server.settimeout(10)
                    more = table("upstreams.default.tls", ca=self.authority.file) if tls else ""
                    name = f"dynbalance{version}{tls}"
                    upstream = {"proxy_protocol": version}
                    self.daemon = Daemon(self, name=name, upstream=upstream, more=more)
                    self.daemon.add(server.getsockname()[1])
                    self._ask_twice(server, version, tls)

    def _ask_twice(self, server: socket.socket, version: int, tls: bool) -> None:
        client = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=10)
        self.addCleanup(client.close)
        for _ in range(2):
            client.connect()
            client.putrequest("GET", "/")
            client.endheaders()
            accepted, _ = server.accept()
            with contextlib.ExitStack() as closing:
                closing.enter_context(accepted)
                here = IPv4Address("TCP", *client.sock.getsockname())
                there = IPv4Address("TCP", LOOPBACK, self.daemon.http)
                expected = header(version, here, there)
                self.assertEqual(expected, _exactly(accepted, len(expected)))
                said = accepted
                if tls:
                    said = server_context(self.pair).wrap_socket(accepted, server_side=True)
                    closing.enter_context(said)
                self.assertTrue(said.recv(65536).startswith(b"GET / HTTP/1.1\r\n"))
                said.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.assertEqual(b"ok", client.getresponse().read())
                self.assertEqual(b"", said.recv(1))
            client.close()


def _exactly(skt: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = skt.recv(size - len(data))
        assert more, data
        data += more
    return data
