"""
Clients of which a server has nothing but work: they say nothing, or a byte now and
then, or do not take what they asked for.

All of them are sockets of one thread, so that thousands are cheap.
"""

from __future__ import annotations

import selectors
import socket
import threading

from tests.endtoend.harness import LOOPBACK, EndToEndCase

HEAD = b"GET /slow HTTP/1.1\r\nHost: a\r\n" + b"X-Slow: yes\r\n" * 1000
BODY = b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)


class Crowd:
    """
    @ivar lost: clients that the daemon has closed.
    """

    def __init__(self, case: EndToEndCase, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        # Of each, what is still to be said.
        self._talking: dict[socket.socket, bytes] = {}
        self._over = threading.Event()
        self._all: list[socket.socket] = []
        self.lost = 0
        self._thread = threading.Thread(target=self._run)
        case.addCleanup(self.leave)
        self._thread.start()

    def _connect(self, receive: int = 0) -> socket.socket:
        client = socket.socket()
        if receive:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        client.settimeout(30)
        client.connect((LOOPBACK, self._port))
        self._all.append(client)
        return client

    def idle(self, number: int) -> None:
        """Clients that say nothing."""
        for _ in range(number):
            self._selector.register(self._connect(), selectors.EVENT_READ)

    def talk(self, number: int, words: bytes) -> None:
        """Clients that say a byte of it every tenth of a second."""
        for _ in range(number):
            client = self._connect()
            client.sendall(words[:1])
            self._selector.register(client, selectors.EVENT_READ)
            self._talking[client] = words[1:]

    def ask(self, number: int, target: str) -> None:
        """Clients that ask, and read nothing."""
        for _ in range(number):
            self._connect(4096).sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def _run(self) -> None:
        while not self._over.wait(0.1):
            for key, _ in self._selector.select(0):
                # Nobody here has asked for anything yet.
                self._selector.unregister(key.fileobj)
                self.lost += 1
            for client, words in list(self._talking.items()):
                try:
                    client.send(words[:1])
                    self._talking[client] = words[1:]
                except OSError:
                    del self._talking[client]

    def leave(self) -> None:
        """All of them, at once."""
        self._over.set()
        self._thread.join()
        for client in self._all:
            client.close()
