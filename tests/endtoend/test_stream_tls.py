"""
Streams behind and before TLS and PROXY headers, led by names, slowed down, and
written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import time
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress

from dynbalance.net.proxyprotocol import header
from tests.endtoend.certificates import TlsCase, listener_tls, table
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, free_port, program, wait_until
from tests.endtoend.servers import Backend
from tests.net.authority import client_context

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class StreamCase(TlsCase):
    """
    @ivar log: the stream listener's access log.
    """

    daemon: Daemon

    def serve(self, *backends: Backend, more: str = "", **stream: Any) -> None:
        self.log = os.path.join(str(self.files), "stream.log")
        self.daemon = Daemon(
            self,
            upstream={"retry_budget": 0},
            stream={"access_log": self.log, **stream},
            more=more,
        )
        for backend in backends:
            self.daemon.add(backend.port, max_fails=0)

    def logged(self, count: int = 1) -> list[dict[str, Any]]:
        """The first lines of the access log."""

        def lines() -> list[str]:
            with open(self.log) as log:
                there = log.readlines()
            return there if len(there) >= count else []

        return [json.loads(line) for line in wait_until(lines, f"{count} lines")]

    def connect(self) -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.daemon.stream), 10)
        self.addCleanup(client.close)
        return client

    def secure(self, name: str = "a.example") -> ssl.SSLSocket:
        context = client_context(self.authority.file)
        client = context.wrap_socket(self.connect(), server_hostname=name)
        self.addCleanup(client.close)
        return client

    def until_closed(self, client: socket.socket) -> bytes:
        return b"".join(iter(lambda: client.recv(65536), b""))


class StreamTlsTests(StreamCase):
    """TLS on either side."""

    def test_terminated(self) -> None:
        """A client by TLS has a server without; large messages pass both ways."""
        backend = Backend(self)
        self.serve(backend, more=listener_tls("stream", self.pair))
        body = os.urandom(2_000_000)
        url = ("--http1.1", "--data-binary", "@-")
        self.assertEqual(body, self.got(self.daemon.stream, "/echo", *url, stdin=body))
        entry = self.logged()[0]
        self.assertEqual((200, "finished", "default"), tuple(
            entry[name] for name in ("status", "reason", "upstream")
        ))
        self.assertGreater(entry["bytes_in"], len(body))
        self.assertGreater(entry["bytes_out"], len(body))
        self.assertEqual([backend.address], [each["server"] for each in entry["attempts"]])

    def test_s_client(self) -> None:
        """openssl's client is served, and its end is passed on."""
        self.serve(Backend(self), more=listener_tls("stream", self.pair))
        command = [program("openssl"), "s_client", "-quiet", "-ign_eof", "-CAfile"]
        command += [self.authority.file, "-verify_return_error", "-verify_hostname", "a.example"]
        command += ["-connect", f"{LOOPBACK}:{self.daemon.stream}", "-servername", "a.example"]
        done = subprocess.run(command, input=GET, capture_output=True, timeout=20, check=False)
        self.assertTrue(done.stdout.endswith(b"\r\n\r\nbackend"), done)

    def test_client_certificate(self) -> None:
        """Who shows no certificate where one is asked for is not served."""
        self.serve(
            Backend(self), more=listener_tls("stream", self.pair, client_ca=self.authority.file)
        )
        ours = self.authority.issue("us", file="us", client=True)
        shown = ("--cert", ours.certificate, "--key", ours.key)
        self.assertNotEqual(0, self.curl(self.daemon.stream, "/").returncode)
        self.assertEqual(b"backend", self.got(self.daemon.stream, "/", *shown))

    def test_to_the_servers(self) -> None:
        """A plain client has a server by TLS, once it is who it should be."""
        good = Backend(self, "good", *self._files(LOOPBACK))
        bad = Backend(self, "bad", *self._files("b.example"))
        tls = table("upstreams.default.tls", ca=self.authority.file)
        self.serve(good, bad, more=tls)
        for _ in range(6):
            client = self.connect()
            client.sendall(GET)
            self.assertTrue(self.until_closed(client).endswith(b"\r\n\r\ngood"))
            client.close()
        causes = [each["cause"] for line in self.logged(6) for each in line["attempts"]]
        self.assertTrue(any("is for b.example, not for 127.0.0.1" in cause for cause in causes))

    def test_no_good_server(self) -> None:
        """With nobody but strangers the client is closed, and the log says why."""
        bad = Backend(self, "bad", *self._files("b.example"))
        self.serve(bad, more=table("upstreams.default.tls", ca=self.authority.file))
        self.assertEqual(b"", self.until_closed(self.connect()))
        entry = self.logged()[0]
        self.assertEqual(502, entry["status"])
        self.assertIn("is for b.example, not for 127.0.0.1", entry["reason"])

    def test_both_sides(self) -> None:
        """TLS ends and begins anew here."""
        backend = Backend(self, "backend", *self._files(LOOPBACK))
        tls = table("upstreams.default.tls", ca=self.authority.file)
        self.serve(backend, more=tls + listener_tls("stream", self.pair))
        self.assertEqual(8 << 20, len(self.got(self.daemon.stream, f"/flow/{8 << 20}")))

    def _files(self, *names: str) -> tuple[str, str]:
        pair = self.authority.issue(*names, file=names[0])
        return pair.certificate, pair.key


class NameTests(StreamCase):
    """C{sni_routes}."""

    def routes(self, **more: Any) -> None:
        """One server for each of two names, and one for the rest; all by TLS."""
        pools = ""
        for name in ("a", "b"):
            names = (f"{name}.example", f"x.{name}.example")
            pair = self.authority.issue(*names, file=f"at-{name}")
            backend = Backend(self, name, pair.certificate, pair.key)
            pools += table(f"upstreams.{name}")
            pools += f'servers = [{{ address = "{backend.address}" }}]\n'
        rest = self.authority.issue("rest.example", file="rest")
        self.rest = Backend(self, "rest", rest.certificate, rest.key)
        pools += '[stream.sni_routes]\n"a.example" = "a"\n"*.b.example" = "b"\n'
        self.serve(self.rest, more=pools, **more)

    def test_by_name(self) -> None:
        """The name leads, TLS is between the client and the server, and the rest goes elsewhere."""
        self.routes()
        cases = {"a.example": b"a", "x.b.example": b"b", "rest.example": b"rest"}
        for name, said in cases.items():
            self.assertEqual(said, self.got(self.daemon.stream, "/", name=name), name)
        self.assertEqual(["a", "b", "default"], [line["upstream"] for line in self.logged(3)])

    def test_s_client(self) -> None:
        """openssl's -servername leads to the server whose certificate it gets."""
        self.routes()
        command = [program("openssl"), "s_client", "-connect", f"{LOOPBACK}:{self.daemon.stream}"]
        command += ["-servername", "a.example", "-verify_hostname", "a.example"]
        command += ["-CAfile", self.authority.file, "-verify_return_error"]
        done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
        self.assertIn(b"Verify return code: 0 (ok)", done.stdout)

    def test_hello_in_pieces(self) -> None:
        """A ClientHello may come a byte at a time."""
        self.routes()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(self.authority.file)
        tls = context.wrap_bio(incoming, outgoing, server_hostname="x.b.example")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        client = self.connect()
        hello = outgoing.read()
        for at in range(0, len(hello), 100):
            client.sendall(hello[at : at + 100])
            time.sleep(0.01)
        for _ in range(10):
            incoming.write(client.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
        self.assertIsNotNone(tls.cipher())
        client.close()
        self.assertEqual("b", self.logged()[0]["upstream"])

    def test_no_tls(self) -> None:
        """Who speaks something else is led where nobody is named."""
        self.routes()
        self.rest.process.kill()
        client = self.connect()
        client.sendall(GET)
        with contextlib.suppress(ConnectionError):
            self.until_closed(client)
        entry = self.logged()[0]
        self.assertEqual(("default", 502), (entry["upstream"], entry["status"]))

    def test_terminated(self) -> None:
        """Where TLS ends here, the name leads all the same."""
        pool = Backend(self, "pool")
        more = table("upstreams.pool") + f'servers = [{{ address = "{pool.address}" }}]\n'
        more += listener_tls("stream", self.pair) + '[stream.sni_routes]\n"a.example" = "pool"\n'
        self.serve(Backend(self, "rest"), more=more)
        self.assertEqual(b"pool", self.got(self.daemon.stream, "/"))
        address = self.got(self.daemon.stream, "/", name=LOOPBACK)
        self.assertEqual(b"rest", address)


class PrefaceTests(StreamCase):
    """PROXY headers in and out."""

    def test_passed_on(self) -> None:
        """The client that a header names is named to the server, in the version it wants."""
        for version, tls in ((1, False), (2, True)):
            with socket.create_server((LOOPBACK, 0)) as server:
                server.settimeout(10)
                self.log = os.path.join(str(self.files), f"{version}.log")
                more = listener_tls("stream", self.pair) if tls else ""
                self.daemon = Daemon(
                    self, name=f"dynbalance{version}", upstream={"proxy_protocol": version},
                    stream={"proxy_protocol": True, "access_log": self.log}, more=more,
                )  # fmt: skip
                self.daemon.add(server.getsockname()[1])
                client: socket.socket = self.connect()
                client.sendall(b"PROXY TCP4 10.1.2.3 10.9.9.9 1000 443\r\n")
                if tls:
                    context = client_context(self.authority.file)
                    client = context.wrap_socket(client, server_hostname="a.example")
                    self.addCleanup(client.close)
                client.sendall(b"hello")
                accepted, _ = server.accept()
                there = IPv4Address("TCP", LOOPBACK, self.daemon.stream)
                expected = header(version, IPv4Address("TCP", "10.1.2.3", 1000), there) + b"hello"
                with accepted:
                    accepted.settimeout(10)
                    said = b""
                    while len(said) < len(expected):
                        said += accepted.recv(65536)
                    self.assertEqual(expected, said)
                client.close()
                self.assertEqual("10.1.2.3", self.logged()[0]["client"])

    def test_nameless(self) -> None:
        """A header that names a path, or nobody, is as good as one that names an address."""
        self.serve(Backend(self), proxy_protocol=True, more=listener_tls("stream", self.pair))
        path = UNIXAddress("/run/x")
        for preface in (header(2, path, path), header(2, None, None), b"PROXY UNKNOWN\r\n"):
            plain = self.connect()
            plain.sendall(preface)
            context = client_context(self.authority.file)
            with context.wrap_socket(plain, server_hostname="a.example") as client:
                client.sendall(GET)
                self.assertTrue(client.recv(65536).startswith(b"HTTP/1.1 200"))

    def test_broken(self) -> None:
        """Who does not begin with a header is closed; the log has status 400."""
        self.serve(Backend(self), proxy_protocol=True)
        client = self.connect()
        client.sendall(b"hello")
        self.assertEqual(400, self.logged()[0]["status"])

    def test_haproxy(self) -> None:
        """HAProxy in front of us and behind us understands and is understood."""
        backend = Backend(self)
        front, behind = free_port(), free_port()
        self.daemon = Daemon(
            self, upstream={"proxy_protocol": 2}, stream={"proxy_protocol": True}
        )
        self.daemon.add(behind)
        config = os.path.join(str(self.files), "haproxy.cfg")
        with open(config, "w") as out:
            out.write(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n"
                " timeout server 20s\n"
                f"frontend front\n bind {LOOPBACK}:{front}\n default_backend ours\n"
                f"backend ours\n server us {LOOPBACK}:{self.daemon.stream} send-proxy-v2\n"
                f"frontend behind\n mode http\n bind {LOOPBACK}:{behind} accept-proxy\n"
                " http-request set-header X-Seen %[src]:%[src_port]\n default_backend real\n"
                f"backend real\n mode http\n server real {backend.address}\n"
            )
        directory = str(self.files)
        haproxy = self.start("haproxy", [program("haproxy"), "-db", "-f", config], directory)
        haproxy.until(lambda: _listens(front), "listens")
        with socket.create_connection((LOOPBACK, front), 10) as client:
            client.sendall(GET.replace(b"/ ", b"/head ", 1))
            said = self.until_closed(client)
            port = client.getsockname()[1]
        self.assertIn(b"x-seen: 127.0.0.1:%d\r\n" % port, said.lower())


class RateTests(StreamCase):
    """C{download_rate} and C{upload_rate}."""

    def test_download(self) -> None:
        """Of 4 s worth of bytes the first second's come at once, the others in 3 s."""
        self.serve(Backend(self), download_rate=100_000)
        begun = time.monotonic()
        client = self.connect()
        client.sendall(b"GET /flow/400000 HTTP/1.1\r\nHost: a\r\n\r\n")
        size = 0
        while size < 400_000:
            size += len(client.recv(65536))
        self.assertTrue(2.8 < time.monotonic() - begun < 4.5, time.monotonic() - begun)

    def test_upload(self) -> None:
        """What a client sends is taken no faster; its end comes behind it; nothing is busy."""
        backend = Backend(self)
        self.serve(backend, upload_rate=100_000)
        begun = time.monotonic()
        body = os.urandom(300_000)
        client = self.connect()
        head = GET.replace(b"GET /", b"POST /echo").replace(b"\r\n\r\n", b"\r\nContent-Length: ")
        client.sendall(head + b"300000\r\n\r\n" + body)
        busy = self._cpu()
        client.shutdown(socket.SHUT_WR)
        said = self.until_closed(client)
        self.assertTrue(1.8 < time.monotonic() - begun < 3.5, time.monotonic() - begun)
        self.assertTrue(said.endswith(body))
        self.assertLess(self._cpu() - busy, 0.5)

    def _cpu(self) -> float:
        """Seconds of processor time that the daemon has used."""
        with open(f"/proc/{self.daemon.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class LogTests(StreamCase):
    """What the access log says of other endings."""

    def test_words(self) -> None:
        """No server, silence, and too many."""
        self.serve(timeout=0.3, max_connections=1)
        self.assertEqual(b"", self.until_closed(self.connect()))
        backend = Backend(self)
        self.daemon.add(backend.port)
        silent = self.connect()
        with self.connect() as refused:
            self.assertEqual(b"", self.until_closed(refused))
        self.assertEqual(b"", self.until_closed(silent))
        lines = self.logged(3)
        self.assertEqual([502, 503, 200], [line["status"] for line in lines])
        self.assertEqual("max_connections", lines[1]["reason"])
        self.assertEqual("idle", lines[2]["reason"])
        self.assertEqual([backend.address], [each["server"] for each in lines[2]["attempts"]])


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), 1).close()
    except OSError:
        return False
    return True
