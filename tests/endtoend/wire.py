"""
A wire that makes answers late.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tests.endtoend.harness import LOOPBACK, EndToEndCase


class SlowWire:
    """
    A TCP proxy to a port of this machine.

    @ivar port: where it listens.
    @ivar delay: seconds by which each piece of an answer is late.
    """

    def __init__(self, case: EndToEndCase, to: int) -> None:
        self.delay = 0.0
        self._to = to
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self._start(self._accept)
        case.addCleanup(self._end)

    def _start(self, what: Callable[..., None], *args: object) -> None:
        threading.Thread(target=what, args=args, daemon=True).start()

    def _end(self) -> None:
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((LOOPBACK, self._to))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._start(self._carry, client, server, False)
            self._start(self._carry, server, client, True)

    def _carry(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if late:
                    time.sleep(self.delay)
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
