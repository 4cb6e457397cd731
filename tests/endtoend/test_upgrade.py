"""
WebSocket through the HTTP listener.
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import struct

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, wait_until
from tests.endtoend.servers import Backend

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketTests(EndToEndCase):
    """A client of our own, frame by frame."""

    def setUp(self) -> None:
        self.backend = Backend(self)
        self.daemon = Daemon(self, root={"shutdown_timeout": 20.0})
        self.daemon.add(self.backend.port)
        self.client = socket.create_connection((LOOPBACK, self.daemon.http), 20)
        self.addCleanup(self.client.close)
        self.stream = self.client.makefile("rb")
        self.addCleanup(self.stream.close)

    def shake_hands(self, rest: bytes = b"") -> None:
        """
        @param rest: sent together with the handshake.
        """
        key = base64.b64encode(os.urandom(16))
        self.client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key + b"\r\n\r\n" + rest
        )
        head = b"".join(iter(self.stream.readline, b"\r\n"))
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        proof = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        self.assertIn(b"sec-websocket-accept: " + proof.lower(), head.lower())
        # The server's first frame comes in one segment with its head.
        self.assertEqual((1, b"hello"), self.receive())

    def receive(self) -> tuple[int, bytes]:
        """
        @return: opcode and payload of the next frame.
        """
        first, size = self.stream.read(2)
        if size == 126:
            (size,) = struct.unpack(">H", self.stream.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.stream.read(8))
        return first & 0x0F, self.stream.read(size)

    def test_echo(self) -> None:
        """Frames of all sizes come back as they were, until both have said farewell."""
        self.shake_hands()
        for size in (0, 5, 200, 70_000, 1_000_000):
            payload = os.urandom(size)
            self.client.sendall(masked(2, payload))
            self.assertEqual((2, payload), self.receive())
        self.assertEqual({self.backend.address: 1}, self.daemon.counts())
        self.client.sendall(masked(8, b"\x03\xe8"))
        self.assertEqual((8, b"\x03\xe8"), self.receive())
        self.assertEqual(b"", self.stream.read())
        wait_until(lambda: self.daemon.counts() == {self.backend.address: 0}, "the count to be 0")

    def test_pipelined(self) -> None:
        """What a client sends right behind its handshake reaches the server."""
        self.shake_hands(masked(1, b"early") + masked(1, b"bird"))
        self.assertEqual((1, b"early"), self.receive())
        self.assertEqual((1, b"bird"), self.receive())

    def test_server_lost(self) -> None:
        """A server that dies takes the client's connection with it."""
        self.shake_hands()
        self.backend.process.kill()
        self.assertEqual(b"", self.stream.read())

    def test_outlives_the_order_to_end(self) -> None:
        """A tunnel goes on after TERM, and the daemon ends when the tunnel has."""
        self.shake_hands()
        self.daemon.process.signal(signal.SIGTERM)
        wait_until(lambda: not self.accepted(), "the port to be closed")
        self.client.sendall(masked(1, b"still there"))
        self.assertEqual((1, b"still there"), self.receive())
        self.client.sendall(masked(8, b""))
        self.assertEqual(0, self.daemon.process.wait())

    def accepted(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.daemon.http), 1).close()
        except ConnectionRefusedError:
            return False
        return True


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame as clients send it."""
    size = len(payload)
    if size < 126:
        length = struct.pack(">B", 0x80 | size)
    elif size < 65536:
        length = struct.pack(">BH", 0x80 | 126, size)
    else:
        length = struct.pack(">BQ", 0x80 | 127, size)
    key = os.urandom(4)
    mask = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return bytes([0x80 | opcode]) + length + key + mixed.to_bytes(size, "big")
