"""
Our ends of TLS against other people's programs.
"""

import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.prefaced import Prefaced
from dynbalance.net.tls import ClientTls, ServerTls
from dynbalance.net.tlsport import TlsListener
from tests.net.authority import Authority
from tests.net.building import Factory, HalfNotes, Notes
from tests.net.pump import unused_port
from tests.net.tlscase import TlsCase
from tests.temporary import Temporary

BODY = b"x" * 300_000


class Answering(Notes):
    """Answers a request as a web server would, in one write, and closes."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.got.endswith(b"\r\n\r\n"):
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            self.transport.write(head % len(BODY) + BODY)
            self.transport.loseConnection()


class Echo(HalfNotes):
    """Says everything back when the client has ended."""

    def readConnectionLost(self) -> None:
        self.transport.write(self.got.upper())
        self.transport.loseConnection()


class Length(Resource):
    """Says which HTTP it is, and how much was sent; much of it."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        return b"%b %d " % (request.clientproto, len(request.content.read())) + BODY


class PeerTests(TlsCase):
    def run_program(
        self, *arguments: str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end while the reactor turns."""
        with (
            open(self.mktemp(), "w+b") as given,
            open(self.mktemp(), "w+b") as out,
            open(self.mktemp(), "w+b") as err,
        ):
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(arguments, stdin=given, stdout=out, stderr=err)
            try:
                self.pump.until(lambda: process.poll() is not None)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(
                arguments, process.returncode, out.read(), err.read()
            )

    def curl(self, port: int, *options: str) -> subprocess.CompletedProcess[bytes]:
        return self.run_program(
            "curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10",
            "--cacert", self.authority.file, "--resolve", f"a.example:{port}:127.0.0.1",
            *options, f"https://a.example:{port}/",
        )  # fmt: skip

    def test_curl(self) -> None:
        """curl verifies us and gets a large answer, with either version of TLS."""
        port, _ = self.serve(kind=Answering)
        for options in ((), ("--tls-max", "1.2")):
            done = self.curl(port, *options)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertEqual(done.stdout, BODY)

    def test_curl_behind_a_proxy(self) -> None:
        """curl's PROXY header is read before its handshake."""
        factory = Factory(Answering)
        inner = TlsListener(ServerTls([self.pair_a]), factory, self.hub, self.deadlines)
        port = self.listen(Prefaced(inner, self.hub, self.deadlines))
        done = self.curl(port, "--haproxy-protocol")
        self.assertEqual((done.returncode, done.stdout), (0, BODY))

    def test_curl_without_certificate(self) -> None:
        """Who has no certificate, where one is asked for, gets no answer; who has one does."""
        port, _ = self.serve(ServerTls([self.pair_a], client_ca=self.authority.file), Answering)
        self.assertNotEqual(self.curl(port).returncode, 0)
        ours = self.authority.issue("us", file="us", client=True)
        done = self.curl(port, "--cert", ours.certificate, "--key", ours.key)
        self.assertEqual((done.returncode, done.stdout), (0, BODY))

    def test_s_client(self) -> None:
        """openssl sees our certificate, and no renegotiation and no compression."""
        port, _ = self.serve(kind=Answering)
        done = self.run_program(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.example",
            "-CAfile", self.authority.file, "-verify_hostname", "a.example",
            "-verify_return_error", "-tls1_2", "-ign_eof",
            stdin=b"GET / HTTP/1.1\r\n\r\n",
        )  # fmt: skip
        self.assertIn(b"Verify return code: 0 (ok)", done.stdout)
        self.assertIn(b"Compression: NONE", done.stdout)
        self.assertIn(BODY, done.stdout)

    def test_s_client_renegotiates(self) -> None:
        """A client that wants to negotiate anew is not let."""
        port, factory = self.serve(kind=Notes)
        done = self.run_program(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2",
            stdin=b"R\n",
        )  # fmt: skip
        self.assertIn(b"no renegotiation", done.stderr.lower() + done.stdout.lower())
        self.pump.until(lambda: factory.built[0].lost)

    def test_s_server(self) -> None:
        """openssl's server is reached, and verified, and shown our certificate."""
        ours = self.authority.issue("us", file="us", client=True)
        port = unused_port()
        with open(self.mktemp(), "w+b") as out:
            server = subprocess.Popen(
                (
                    "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www",
                    "-cert", self.pair_a.certificate, "-key", self.pair_a.key,
                    "-CAfile", self.authority.file, "-Verify", "1", "-verify_return_error",
                ),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
            try:
                tls = ClientTls(ca=self.authority.file, certificate=ours.certificate, key=ours.key)
                dialed: list[Any] = []

                def reached() -> bool:
                    if not dialed or dialed[-1].failed:
                        dialed.append(self.dial(port, tls))
                    return dialed[-1].protocol is not None

                self.pump.until(reached)
                protocol = dialed[-1].protocol
                protocol.transport.write(b"GET / HTTP/1.0\r\n\r\n")
                self.pump.until(lambda: protocol.lost)
                self.assertIn(b"TLSv1.3", protocol.got)
                self.assertIn(b"Client certificate", protocol.got)
            finally:
                server.kill()
                server.wait()

    def test_half_closed_s_client(self) -> None:
        """A client that has said all in TLS still hears the answer."""
        port, _ = self.serve(kind=Echo)
        peer = self.call(port).handshake()
        peer.send(b"everything")
        peer.end()
        answer = peer.peer
        self.pump.until(lambda: answer.read() or answer.ended)
        self.assertGreater(len(answer.got), len(b"EVERYTHING"))


class Http2Tests(Temporary, TestCase):
    """On the real reactor, which Twisted's HTTP/2 takes for itself."""

    async def test_curl(self) -> None:
        """Twisted's own web server, and its HTTP/2, find in ours the transport they need."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        authority = Authority(directory)
        given = directory / "given"
        given.write_bytes(BODY)
        hub = carrier(reactor)
        self.addCleanup(hub.close)
        tls = ServerTls([authority.issue("a.example")], alpn=("h2", "http/1.1"))
        factory = TlsListener(tls, Site(Length()), hub, Deadlines(reactor))
        port = hub.listenTCP(0, factory, interface="127.0.0.1")
        number = port.getHost().port
        for option, protocol in (("--http2", b"HTTP/2"), ("--http1.1", b"HTTP/1.1")):
            done = await deferToThread(
                subprocess.run,
                (
                    "curl", "-sS", "--noproxy", "*", "--max-time", "10", option,
                    "--cacert", authority.file, "--data-binary", f"@{given}",
                    "--resolve", f"a.example:{number}:127.0.0.1", f"https://a.example:{number}/",
                ),
                capture_output=True, check=False,
            )  # fmt: skip
            self.assertEqual(done.stderr, b"")
            self.assertEqual(done.stdout, protocol + b" 300000 " + BODY)
        await port.stopListening()
        # The clients have gone; we hear of it on the next turns.
        for _ in range(100):
            if not hub.getReaders():
                break
            await deferLater(reactor, 0.02)
        self.assertEqual(hub.getReaders(), [])
