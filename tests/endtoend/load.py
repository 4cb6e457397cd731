"""
Clients that ask without a break while something happens to the daemon, and
that forgive nothing.
"""

from __future__ import annotations

import http.client
import threading

from tests.endtoend.harness import LOOPBACK, EndToEndCase, wait_until


class Load:
    """
    Half of the clients open a connection for each request, the others keep
    theirs as long as the daemon lets them.

    @ivar answered: good answers so far.
    @ivar failures: what went wrong, each in words.
    @ivar connections: that the clients of the second half have opened.
    """

    def __init__(self, case: EndToEndCase, port: int, clients: int = 4) -> None:
        self._port = port
        self._ending = threading.Event()
        self.answered = 0
        self.connections = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number % 2 == 1,))
            for number in range(clients)
        ]
        case.addCleanup(self.stop)
        for thread in self._threads:
            thread.start()
        self.go_on()

    def go_on(self, requests: int = 100) -> None:
        """Wait until so many more were answered."""
        goal = self.answered + requests
        wait_until(lambda: self.failures or self.answered >= goal, f"{requests} more answers")

    def stop(self) -> None:
        """End, and hear of all that failed."""
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def _ask_on(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ending.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=20)
                    connection.connect()
                    self._count(connections=int(keep))
                connection.request("GET", "/", headers={} if keep else {"Connection": "close"})
                response = connection.getresponse()
                body = response.read()
            except Exception as failed:  # noqa: BLE001 - told when the load ends
                self.failures.append(f"{'kept' if keep else 'new'} connection: {failed!r}")
                return
            if response.status != 200:
                self.failures.append(f"{response.status}: {body!r}")
                return
            self._count(answered=1)
            # What the daemon has said goodbye to is used no more.
            if not keep or response.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _count(self, answered: int = 0, connections: int = 0) -> None:
        with self._lock:
            self.answered += answered
            self.connections += connections
