"""
HTTP/1.1 as clients speak it, and what the configuration makes of it.
"""

from __future__ import annotations

import http.client
import re
import socket
import time

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.servers import Backend, Nginx


class RawCase(EndToEndCase):
    """Bytes to a listener and back."""

    daemon: Daemon

    def connect(self) -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.daemon.http), 20)
        self.addCleanup(client.close)
        return client

    def say(self, data: bytes) -> bytes:
        """Send, and read until the daemon closes."""
        client = self.connect()
        client.sendall(data)
        return until_closed(client)


def until_closed(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


class MessageTests(RawCase):
    """Requests and answers of every form."""

    def setUp(self) -> None:
        self.backend, self.daemon = Backend(self), Daemon(self)
        self.daemon.add(self.backend.port, max_fails=0)

    def test_pipelined(self) -> None:
        """Requests sent ahead are answered in their order."""
        paths = [b"/echo", b"/status/204", b"/", b"/status/404"]
        requests = [b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths]
        requests.append(b"GET /head HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n")
        said = self.say(b"".join(requests))
        codes = re.findall(rb"HTTP/1.1 (\d+) ", said)
        self.assertEqual([b"200", b"204", b"200", b"404", b"200"], codes)
        self.assertIn(b"\r\nHost: last\r\n", said)

    def test_kept(self) -> None:
        """Both sides' connections are kept."""
        before = self.backend.told("/accepted")
        client = self.connect()
        for _ in range(50):
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertTrue(client.recv(65536).endswith(b"\r\n\r\nbackend"))
        # One was the daemon's, the other asks for the number.
        self.assertEqual(2, self.backend.told("/accepted") - before)

    def test_head(self) -> None:
        """An answer to HEAD has a length and no body."""
        said = self.say(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertIn(b"Content-Length: 7\r\n", said)
        self.assertTrue(said.endswith(b"\r\n\r\n"))

    def test_expect(self) -> None:
        """Who waits for a word before the body is given it."""
        client = self.connect()
        client.sendall(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            b"Content-Length: 4\r\nConnection: close\r\n\r\n"
        )
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.recv(4096))
        client.sendall(b"body")
        self.assertTrue(until_closed(client).endswith(b"\r\n\r\nbody"))

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets what is chunked in one piece, up to the end."""
        said = self.say(b"GET /flow/100000 HTTP/1.0\r\n\r\n")
        head, _, body = said.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head.lower())
        self.assertEqual(100_000, len(body))

    def test_chunks(self) -> None:
        """Chunks arrive as chunks, whatever their sizes."""
        said = self.say(
            b"POST /sink HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;a=b\r\nd\r\n0\r\nA: trailer\r\n\r\n"
        )
        self.assertIn(b'{"bytes": 4, ', said)
        self.assertIn(b'"chunked": true', said)

    def test_two_readings(self) -> None:
        """What two programs could read as two different messages reaches no server."""
        for fields in (
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 4\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Content-Length: +4\r\n",
            b"Content-Length : 4\r\n",
            b"Host: b\r\n",
            b"X: a\nTransfer-Encoding: chunked\r\n",
        ):
            said = self.say(b"POST /echo HTTP/1.1\r\nHost: a\r\n%s\r\n0\r\n\r\n" % fields)
            self.assertIn(said[:12], (b"HTTP/1.1 400", b"HTTP/1.1 501"), fields)
            self.assertEqual(1, said.count(b"HTTP/1.1"), fields)
        self.assertEqual(0, self.served())

    def served(self) -> float:
        """Requests that were passed on so far."""
        lines = ask(self.daemon.admin, "/metrics").body.decode().splitlines()
        found = [line for line in lines if line.startswith("dynbalance_server_picks_total{")]
        return sum(float(line.split()[-1]) for line in found)

    def test_no_message(self) -> None:
        """Bytes that are no HTTP get 400, a head without an end 431."""
        self.assertIn(b" 400 ", self.say(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")[:16])
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"
        self.assertIn(b" 431 ", self.say(head)[:16])

    def test_not_modified(self) -> None:
        """nginx's 304 and ranges come through."""
        directory = self.directory("files")
        with open(f"{directory}/f", "w") as out:
            out.write("0123456789")
        nginx = Nginx(self, "files", directory)
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        self.daemon.add(nginx.port)
        reply = ask(self.daemon.http, "/files/f")
        self.assertEqual(b"0123456789", reply.body)
        reply = ask(
            self.daemon.http, "/files/f", headers={"If-None-Match": reply.headers["etag"]}
        )
        self.assertEqual((304, b""), (reply.status, reply.body))
        reply = ask(self.daemon.http, "/files/f", headers={"Range": "bytes=3-5"})
        self.assertEqual((206, b"345"), (reply.status, reply.body))


class OptionTests(RawCase):
    """What the file says of an HTTP listener and its upstream."""

    def setUp(self) -> None:
        self.backend = Backend(self)

    def begin(self, **tables: object) -> None:
        self.daemon = Daemon(self, **tables)  # type: ignore[arg-type]
        self.daemon.add(self.backend.port)

    def test_max_body(self) -> None:
        """A body above client_max_body_size gets 413, announced or not."""
        self.begin(upstream={"client_max_body_size": 1000})
        self.assertEqual(200, ask(self.daemon.http, "/echo", "POST", b"a" * 1000).status)
        self.assertEqual(413, ask(self.daemon.http, "/echo", "POST", b"a" * 1001).status)
        said = self.say(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n"
        )
        self.assertIn(b" 413 ", said[:16])

    def test_timeouts(self) -> None:
        """Clients that say nothing, or not all, are closed in time."""
        self.begin(http={"client_header_timeout": 0.3, "keepalive_timeout": 0.3})
        began = time.monotonic()
        self.assertEqual(b"", self.say(b""))
        self.assertIn(b" 408 ", self.say(b"GET / HTTP/1.1\r\nHo")[:16])
        client = self.connect()
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(until_closed(client).endswith(b"backend"))
        self.assertLess(time.monotonic() - began, 10)

    def test_max_connections(self) -> None:
        """One more than max_connections is closed, until another leaves."""
        self.begin(http={"max_connections": 1})
        first = self.connect()
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first.recv(4096)
        self.assertEqual(b"", until_closed(self.connect()))
        first.close()
        wait_until(self.let_in, "another to be let in")

    def let_in(self) -> bool:
        try:
            return ask(self.daemon.http).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def test_trusted_proxies(self) -> None:
        """The client's address is believed of a trusted peer, and of nobody else."""
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        self.begin(http={"trusted_proxies": ["127.0.0.0/8"]})
        head = ask(self.daemon.http, "/head", headers=forwarded).body
        self.assertIn(b"X-Real-IP: 192.0.2.7\r\n", head)
        self.daemon.process.stop()
        self.begin(http={"trusted_proxies": ["10.0.0.0/8"]})
        head = ask(self.daemon.http, "/head", headers=forwarded).body
        self.assertIn(b"X-Real-IP: 127.0.0.1\r\n", head)
        self.assertIn(b"X-Forwarded-For: 127.0.0.1\r\n", head)

    def test_stream_options(self) -> None:
        """A silent TCP connection ends in time; one too many is closed at once."""
        self.begin(stream={"timeout": 0.5, "max_connections": 1})
        address = (LOOPBACK, self.daemon.stream)
        with socket.create_connection(address, 20) as first:
            wait_until(lambda: self.daemon.counts() == {self.backend.address: 1}, "the first")
            with socket.create_connection(address, 20) as second:
                self.assertEqual(b"", second.recv(1))
            self.assertEqual(b"", first.recv(1))
        wait_until(lambda: self.daemon.counts() == {self.backend.address: 0}, "its end")


class UpstreamTests(EndToEndCase):
    """Several upstreams, and servers from the file."""

    def test_routes(self) -> None:
        """Host and path choose the upstream, and each has members of its own."""
        default, api, old = (Backend(self, name) for name in ("default", "api", "old"))
        daemon = Daemon(
            self,
            more="""
            [upstreams.api]
            [upstreams.old]
            """,
            routes="""[
                { host = "api.example", upstream = "api" },
                { host = "api.example", path = "/v1/", upstream = "old" },
            ]""",
        )
        daemon.add(default.port)
        daemon.add(api.port, upstream="api")
        daemon.add(old.port, upstream="old")
        for host, path, name in (
            ("www.example", "/v1/x", b"default"),
            ("api.example", "/", b"api"),
            ("API.example:80", "/v1", b"api"),
            ("api.example", "/v1/x", b"old"),
        ):
            self.assertEqual(name, ask(daemon.http, path, headers={"Host": host}).body)
        shown = ask(daemon.admin, "/upstream/status?upstream=api").json["data"]
        self.assertEqual([api.address], [server["addr"] for server in shown])
        self.assertEqual(404, ask(daemon.admin, "/upstream/status?upstream=none").status)

    def test_servers_from_the_file(self) -> None:
        """They serve without heartbeats; a backup only when nobody else can; the API keeps off."""
        first, spare, down = (Backend(self, name) for name in ("first", "spare", "down"))
        daemon = Daemon(
            self,
            heartbeat={"ttl": 0.5, "cleanup_interval": 0.1},
            servers=f"""[
                {{ address = "{first.address}", weight = 3 }},
                {{ address = "{spare.address}", backup = true }},
                {{ address = "{down.address}", down = true }},
            ]""",
        )
        self.assertEqual({b"first"}, {ask(daemon.http).body for _ in range(10)})
        first.process.kill()
        self.assertEqual({b"spare"}, {ask(daemon.http).body for _ in range(10)})
        shown = daemon.status()
        self.assertEqual({"file"}, {server["source"] for server in shown.values()})
        self.assertEqual("down", shown[down.address]["state"])
        for path in ("remove", "toggle", "refresh"):
            fields = {"action": "disable"} if path == "toggle" else {}
            answer = daemon.call(path, host=LOOPBACK, port=spare.port, **fields)
            self.assertEqual(400, answer["code"], answer)
        self.assertEqual(shown.keys(), daemon.status().keys())
