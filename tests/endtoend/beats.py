"""
A heartbeat client that never gives up.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress

from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask


class Beats:
    """
    Heartbeats of servers, sent to the API again and again, whatever it says.

    @ivar answers: how often each status came.
    """

    def __init__(self, case: EndToEndCase, port: int, servers: list[int], pause: float) -> None:
        self.answers: Counter[int] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(port, servers, pause))
        self._thread.start()
        case.addCleanup(self.end)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self, port: int, servers: list[int], pause: float) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        while not self._ended.wait(pause):
            for server in servers:
                body = f"host={LOOPBACK}&port={server}".encode()
                with suppress(OSError):
                    reply = ask(port, "/upstream/refresh", "POST", body, form)
                    self.answers[reply.status] += 1
