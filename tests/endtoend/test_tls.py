"""
TLS on both sides, HTTP/2 from clients, and PROXY headers in and out.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from dynbalance.net.tls import KeyPair
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, program, wait_until
from tests.endtoend.servers import Backend
from tests.net.authority import Authority


def table(header: str, **values: str | bool | list[str]) -> str:
    """TOML of a table."""
    return "\n".join([f"[{header}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items()), ""])


def listener_tls(kind: str, pair: KeyPair, **more: str | list[str]) -> str:
    return table(f"{kind}.tls", certificate=pair.certificate, key=pair.key, **more)


class TlsCase(EndToEndCase):
    """
    @ivar authority: whom everybody trusts.
    @ivar pair: for C{a.example} and 127.0.0.1.
    """

    def setUp(self) -> None:
        self.files = Path(self.directory("certificates"))
        self.authority = Authority(self.files)
        self.pair = self.authority.issue("a.example", LOOPBACK, file="a")

    def curl(
        self, port: int, target: str, *options: str, stdin: bytes = b"", name: str = "a.example"
    ) -> subprocess.CompletedProcess[bytes]:
        command = [program("curl"), "-sS", "--max-time", "20", "--cacert", self.authority.file]
        command += ["--resolve", f"{name}:{port}:{LOOPBACK}", *options]
        return subprocess.run(
            [*command, f"https://{name}:{port}{target}"],
            input=stdin, capture_output=True, timeout=30, check=False,
        )  # fmt: skip

    def got(self, port: int, target: str, *options: str, **more: Any) -> bytes:
        """What curl gets."""
        done = self.curl(port, target, *options, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout


class ListenerTests(TlsCase):
    """Clients by TLS."""

    def serve(
        self, more: str = "", routes: str = "[]", http: str = "", **tls: str | list[str]
    ) -> None:
        self.backend = Backend(self)
        self.log = os.path.join(str(self.files), "access.log")
        self.daemon = Daemon(
            self,
            http={"access_log": self.log},
            more=listener_tls("http", self.pair, **tls) + more,
            routes=routes + "\n" + http,
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
            http='set_headers = { X-Extra = "$scheme $remote_addr", X-Forwarded-For = "" }',
        )
        for option in ("--http1.1", "--http2"):
            self.assertEqual(b"x", self.got(self.daemon.http, "/echo/o", option, "-d", "x"))
            status = ("-o", "/dev/null", "-w", "%{http_code}")
            long = ("-d", "x" * 11)
            self.assertEqual(b"413", self.got(self.daemon.http, "/echo/o", option, *long, *status))
            head = self.got(self.daemon.http, "/head", option)
            self.assertIn(b"\r\nX-Extra: https 127.0.0.1\r\n", head)
            self.assertNotIn(b"X-Forwarded-For", head)

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
