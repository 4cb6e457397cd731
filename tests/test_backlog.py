"""
How many may wait before a listener.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from attrs import evolve

from dynbalance.ports import OpenPort, Wanted, open_ports
from tests.net.building import NetCase

_SACKED = 28
"""Where C{TCP_INFO} of a listening socket (linux/tcp.h) has what was last asked for."""


def bound(port: OpenPort) -> int:
    """How many the kernel lets wait."""
    info = port.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    found: int = struct.unpack_from("=I", info, _SACKED)[0]
    return found


class LetWaitTests(NetCase):
    """C{backlog}."""

    def open(self, text: str) -> OpenPort:
        (port,) = open_ports([Wanted("http[0]", text, self.hub)], [])
        self.ports.append(port.port)
        return port

    def test_tcp(self) -> None:
        """What is said last holds, more or less than before."""
        port = self.open("tcp:0:interface=127.0.0.1")
        for count in (7, 3, 99):
            port.let_wait(count)
            self.assertEqual(count, bound(port))

    def test_cut(self) -> None:
        """The kernel has the last word, and asking for more is no error."""
        port = self.open("tcp:0:interface=127.0.0.1")
        port.let_wait(2**31 - 1)
        self.assertEqual(int(Path("/proc/sys/net/core/somaxconn").read_text()), bound(port))

    def test_unix(self) -> None:
        """A unix socket refuses who is one too many, at once."""
        path = self.mktemp()
        port = self.open(f"unix:{path}")
        port.let_wait(3)
        came = 0
        for _ in range(9):
            client = socket.socket(socket.AF_UNIX)
            self.closing.append(client)
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                break
            came += 1
        self.assertEqual(3 + 1, came)

    def test_lent(self) -> None:
        """Of a socket of systemd's the unit says it."""
        port = self.open("tcp:0:interface=127.0.0.1")
        port.let_wait(7)
        evolve(port, text="systemd:domain=INET:index=0").let_wait(9)
        self.assertEqual(7, bound(port))
