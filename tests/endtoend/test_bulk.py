"""
A gigabyte in either direction, and clients that stop reading or writing.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import struct
import time

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, run, wait_until
from tests.endtoend.servers import Backend, Nginx

MIB = 1 << 20
SIZE = 1 << 30
SLACK = 32 * MIB
"""Bytes by which the daemon may grow, whatever goes through it."""


def marked_file(directory: str, name: str) -> str:
    """
    A sparse file of a gigabyte in which every MiB begins with its number.

    @return: its path.
    """
    path = os.path.join(directory, name)
    with open(path, "wb") as out:
        for block in range(SIZE // MIB):
            out.seek(block * MIB)
            out.write(struct.pack(">Q", block))
        out.truncate(SIZE)
    return path


def marked_digest() -> str:
    """The digest of such a file."""
    digest = hashlib.sha1(usedforsecurity=False)
    zeros = bytes(MIB - 8)
    for block in range(SIZE // MIB):
        digest.update(struct.pack(">Q", block))
        digest.update(zeros)
    return digest.hexdigest()


class GigabyteTests(EndToEndCase):
    """All bytes arrive in order, and the daemon's memory stays flat."""

    @classmethod
    def setUpClass(cls) -> None:
        """Nobody but the tests shall have to compute it."""
        super().setUpClass()
        cls.digest = marked_digest()

    def setUp(self) -> None:
        self.daemon = Daemon(self)

    def serve_by(self, server: Backend | Nginx) -> None:
        """Use the server, once before memory is looked at."""
        self.daemon.add(server.port)
        for _ in range(20):
            self.assertEqual(200, ask(self.daemon.http).status)
        self.idle = self.daemon.process.memory()

    def assert_flat(self) -> None:
        peak = self.daemon.process.memory("VmHWM")
        grown = f"grew from {self.idle // MIB} to {peak // MIB} MiB"
        self.assertLess(peak - self.idle, SLACK, grown)

    def download(self, target: str) -> tuple[int, str, str | None]:
        """
        @return: how much came, its digest, and its announced length.
        """
        connection = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=60)
        self.addCleanup(connection.close)
        connection.request("GET", target)
        size, digest = 0, hashlib.sha1(usedforsecurity=False)
        with connection.getresponse() as response:
            self.assertEqual(200, response.status)
            length = response.headers["Content-Length"]
            while part := response.read(MIB):
                size += len(part)
                digest.update(part)
        return size, digest.hexdigest(), length

    def upload(self, *options: str) -> object:
        path = marked_file(self.directory("upload"), "big")
        url = f"http://{LOOPBACK}:{self.daemon.http}/sink"
        return json.loads(run("curl", "-sS", "-T", path, *options, url, bound=120))

    def test_download(self) -> None:
        """A file that nginx sends by sendfile."""
        directory = self.directory("files")
        marked_file(directory, "big")
        self.serve_by(Nginx(self, "one", directory))
        self.assertEqual((SIZE, self.digest, str(SIZE)), self.download("/files/big"))
        self.assert_flat()

    def test_chunked_download(self) -> None:
        """An answer without a length."""
        self.serve_by(Backend(self))
        self.assertEqual((SIZE, self.digest, None), self.download(f"/flow/{SIZE}"))
        self.assert_flat()

    def test_upload(self) -> None:
        """A body with a length."""
        self.serve_by(Backend(self))
        self.assertEqual(
            {"bytes": SIZE, "sha1": self.digest, "chunked": False}, self.upload()
        )
        self.assert_flat()

    def test_chunked_upload(self) -> None:
        """A body without a length stays without one."""
        self.serve_by(Backend(self))
        self.assertEqual(
            {"bytes": SIZE, "sha1": self.digest, "chunked": True},
            self.upload("-H", "Transfer-Encoding: chunked"),
        )
        self.assert_flat()

    def test_stalled_reader(self) -> None:
        """A client that reads nothing stops the server; one that reads on gets all of it."""
        backend = Backend(self)
        self.serve_by(backend)
        size = 256 * MIB
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.settimeout(30)
            client.connect((LOOPBACK, self.daemon.http))
            client.sendall(b"GET /flow/%d HTTP/1.0\r\n\r\n" % size)
            stopped = self.until_still(lambda: int(backend.told("/flowed")))
            self.assertLess(stopped, 64 * MIB)
            self.assert_flat()
            got = 0
            while data := client.recv(MIB):
                got += len(data)
        self.assertGreater(got, size)
        self.assertEqual(size, backend.told("/flowed"))
        self.assert_flat()

    def test_stalled_server(self) -> None:
        """A server that reads nothing stops the client."""
        backend = Backend(self)
        self.serve_by(backend)
        sent = 0
        with socket.create_connection((LOOPBACK, self.daemon.http), 30) as client:
            client.sendall(b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
            backend.process.pause()
            client.setblocking(False)
            last = time.monotonic()
            while time.monotonic() < last + 0.5:
                try:
                    sent += client.send(bytes(65536))
                except BlockingIOError:
                    time.sleep(0.01)
                else:
                    last = time.monotonic()
                    self.assertLess(sent, 64 * MIB)
            self.assert_flat()
            backend.process.resume()
            client.settimeout(30)
            while sent < SIZE // 8:
                sent += client.send(bytes(65536))
        self.assert_flat()

    def until_still(self, number) -> int:
        """
        @return: a number that grew and then did not change for half a second.
        """
        seen = [(0, time.monotonic())]

        def still() -> bool:
            now, value = time.monotonic(), number()
            if value != seen[0][0]:
                seen[0] = (value, now)
            return value > 0 and now - seen[0][1] > 0.5

        wait_until(still, "the bytes to stop")
        return seen[0][0]
