"""
Requests that the daemon reads whole before it chooses a server.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import threading
from collections.abc import Iterator

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Reply, ask, wait_until
from tests.endtoend.servers import Backend

MIB = 1 << 20
SIZE = 100 * MIB


class RequestBufferingTests(EndToEndCase):
    """A daemon with C{request_buffering}, and a backend that counts what it gets."""

    def setUp(self) -> None:
        self.state = self.directory("state")
        self.daemon = Daemon(
            self,
            upstream={"request_buffering": True},
            options=("--state-dir", self.state),
        )
        self.backend = Backend(self)
        self.daemon.add(self.backend.port)

    def spooled(self) -> list[int]:
        """The sizes of the daemon's files without a name."""
        spool = os.path.join(self.state, "spool")
        sizes = []
        here = f"/proc/{self.daemon.process.pid}/fd"
        for name in os.listdir(here):
            path = os.path.join(here, name)
            try:
                if os.readlink(path).startswith(spool):
                    sizes.append(os.stat(path).st_size)
            except FileNotFoundError:
                continue
        return sizes

    def test_upload(self) -> None:
        """
        A long chunked body is on disk until it is whole, in files that nobody else
        sees; then one server gets it, with its length; the memory stays what it was.
        """
        ask(self.daemon.http)
        before = self.daemon.process.memory("VmHWM")
        accepted = self.backend.told("/accepted")
        digest = hashlib.sha1(usedforsecurity=False)
        seen: list[tuple[object, list[int]]] = []

        def body() -> Iterator[bytes]:
            for number in range(SIZE // MIB):
                piece = number.to_bytes(4, "big") * (MIB // 4)
                digest.update(piece)
                yield piece
                if number == 50:
                    wait_until(lambda: sum(self.spooled()) > 40 * MIB, "most of it to be on disk")
                    seen.append((self.backend.told("/accepted"), self.spooled()))

        connection = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=60)
        self.addCleanup(connection.close)
        chunked = {"Transfer-Encoding": "chunked"}
        connection.request("PUT", "/sink", body(), chunked, encode_chunked=True)
        told = Reply(connection.getresponse()).json
        self.assertEqual(SIZE, told["bytes"])
        self.assertEqual(digest.hexdigest(), told["sha1"])
        self.assertFalse(told["chunked"])

        # Only the test itself asked the server in the meantime.
        ((while_coming, sizes),) = seen
        self.assertEqual(accepted + 1, while_coming)
        self.assertEqual(1, len(sizes))
        spool = os.path.join(self.state, "spool")
        self.assertEqual(0o700, os.stat(spool).st_mode & 0o777)
        self.assertEqual([], os.listdir(spool))
        wait_until(lambda: not self.spooled(), "the file to be let go")
        self.assertLess(self.daemon.process.memory("VmHWM") - before, 16 * MIB)

    def test_resent(self) -> None:
        """A server that dies in the middle of a body leaves it to another, whole."""
        data = os.urandom(20 * MIB)
        replies: list[Reply] = []
        self.backend.process.pause()

        def upload() -> None:
            replies.append(ask(self.daemon.http, "/sink", "PUT", data))

        thread = threading.Thread(target=upload)
        thread.start()
        address = self.backend.address
        wait_until(lambda: self.daemon.counts()[address] == 1, "it to be under way")
        other = Backend(self, "other")
        self.daemon.add(other.port)
        self.backend.process.kill()
        thread.join(30)
        (reply,) = replies
        self.assertEqual(200, reply.status)
        self.assertEqual(hashlib.sha1(data, usedforsecurity=False).hexdigest(), reply.json["sha1"])

    def test_disk_full(self) -> None:
        """Without room for a body its client hears 507; the others are served on."""
        resource.prlimit(self.daemon.process.pid, resource.RLIMIT_FSIZE, (MIB, MIB))
        connection = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=30)
        self.addCleanup(connection.close)
        connection.putrequest("PUT", "/sink")
        connection.putheader("Content-Length", str(4 * MIB))
        connection.endheaders()
        connection.send(bytes(2 * MIB))
        self.assertEqual(507, Reply(connection.getresponse()).status)
        wait_until(lambda: not self.spooled(), "the file to be let go")
        small = ask(self.daemon.http, "/sink", "PUT", b"x" * 500_000)
        self.assertEqual((200, 500_000), (small.status, small.json["bytes"]))
