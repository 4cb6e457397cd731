"""
Several daemons with one store and C{counting = "strict"}: C{max_conns} holds
over all of them.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, wait_until
from tests.endtoend.servers import Backend, Redis
from tests.endtoend.test_balancing import Asking

LEASE = 2.0


class Crowd:
    """
    Clients in threads, each with request after request over a kept connection.

    @ivar statuses: of the answers so far; C{"lost"} counts broken connections.
    """

    def __init__(self, ports: list[int], clients: int, target: str) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._target = target
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(ports[n % len(ports)],))
            for n in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20.0)
        while not self._ending.is_set():
            try:
                connection.request("GET", self._target)
                with connection.getresponse() as response:
                    response.read()
                    self.statuses[response.status] += 1
            except OSError:
                # Its daemon was killed.
                self.statuses["lost"] += 1
                connection.close()
                self._ending.wait(0.1)
            except http.client.HTTPException:
                self.statuses["lost"] += 1
                connection.close()
        connection.close()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30.0)
            assert not thread.is_alive()


class StrictTests(EndToEndCase):
    """Three nodes before one backend that counts what it serves at once."""

    def nodes(self, redis: Redis, **upstream: str | float | bool) -> list[Daemon]:
        return [
            Daemon(
                self,
                redis.url,
                f"node-{n}",
                keeping={"lease": LEASE},
                upstream={"counting": "strict", "queue": 200, **upstream},
            )
            for n in range(3)
        ]

    def test_never_exceeded(self) -> None:
        """
        With 200 clients at three nodes the backend never serves more than
        C{max_conns} at once, and nearly always as many; not even when a node is
        killed, whose places the others have within the lease.
        """
        redis, backend = Redis(self), Backend(self)
        daemons = self.nodes(redis)
        daemons[0].add(backend.port, max_conns=20, heartbeat="false")
        wait_until(lambda: all(each.status() for each in daemons), "the server on all nodes")
        crowd = Crowd([each.http for each in daemons], 200, "/busy/0.1")
        self.addCleanup(crowd.end)
        try:
            wait_until(lambda: crowd.statuses[200] > 200, "the crowd to be served")
            backend.told("/most")
            wait_until(lambda: crowd.statuses[200] > 700, "many more")
            first = backend.told("/most")
            daemons[2].process.signal(signal.SIGKILL)
            killed = time.monotonic()
            daemons[2].process.wait()
            wait_until(
                lambda: redis("ZRANGE", "upstream:nodes", "0", "-1").split()
                == ["node-0", "node-1"],
                "the end of the lease",
            )
            self.assertLess(time.monotonic() - killed, LEASE + 3.0)
            served = crowd.statuses[200]
            wait_until(lambda: crowd.statuses[200] > served + 200, "service by the others")
            backend.told("/most")
            wait_until(lambda: crowd.statuses[200] > served + 700, "more of it")
            second = backend.told("/most")
        finally:
            crowd.end()
        for seen in (first, second):
            self.assertEqual(20, seen["most"])
            self.assertGreater(seen["mean"], 12.0)
        self.assertEqual({200, "lost"}, set(crowd.statuses))
        wait_until(lambda: redis.counts() == {backend.address: 0}, "nothing to be held")
        self.assertEqual("", redis("KEYS", "*node-2*"))
        self.assertIn(
            'dynbalance_upstream_strict{upstream="default"} 1.0',
            ask(daemons[0].admin, "/metrics").body.decode(),
        )

    def test_other_ways(self) -> None:
        """
        The limit holds for streams, for retries and for a hook that chooses the
        one server, and clients that wait are served when there is a place.
        """
        redis, backend = Redis(self), Backend(self)
        hooks = self.directory("hooks")
        with open(os.path.join(hooks, "chosen.py"), "w") as out:
            out.write(f"def choose(here):\n    here.set_current_peer('{backend.address}')\n")
        listed = f'[{{ address = "{backend.address}", max_conns = 2 }}]'
        first, second = (
            Daemon(
                self,
                redis.url,
                f"node-{n}",
                upstream={"counting": "strict", "queue": 5},
                stream={"half_close": False},
                servers=listed,
                routes='[{ path = "/held/hooked", upstream = "hooked" }]',
                more="[upstreams.hooked]\n"
                f'counting = "strict"\nbalancer = "chosen:choose"\nservers = {listed}\n',
                modules=hooks,
            )
            for n in range(2)
        )
        # One place for a stream, one for a request; the third has to wait.
        with socket.create_connection((LOOPBACK, first.stream), 10.0) as stream:
            stream.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda: backend.told("/waiting") == 1, "the stream")
            asked = [Asking(second.http, "/held")]
            wait_until(lambda: backend.told("/waiting") == 2, "the request")
            asked.append(Asking(second.http, "/"))
            wait_until(
                lambda: 'dynbalance_upstream_waiting{upstream="default"} 1.0'
                in ask(second.admin, "/metrics").body.decode(),
                "one in the line",
            )
        # The stream's end is heard with the next exchange.
        self.assertEqual(200, asked[1].result().status)
        hooked = [Asking(each.http, "/held/hooked") for each in (first, second)]
        wait_until(lambda: backend.told("/waiting") == 4, "the hook's requests")
        self.assertEqual(502, ask(first.http, "/held/hooked").status)
        backend.told("/release")
        for each in (asked[0], *hooked):
            self.assertEqual(200, each.result().status)

    def test_store_away(self) -> None:
        """Without the store requests are served, at once; with it again the limit holds."""
        redis, backend = Redis(self), Backend(self)
        daemon = Daemon(
            self, redis.url, keeping={"timeout": 0.5}, upstream={"counting": "strict"}
        )
        daemon.add(backend.port, max_conns=2, heartbeat="false")
        metric = 'dynbalance_upstream_strict{upstream="default"} %s.0'

        def exact() -> str:
            page = ask(daemon.admin, "/metrics").body.decode()
            return "1" if metric % 1 in page else "0"

        self.assertEqual("1", exact())
        redis.process.pause()
        self.assertEqual(200, ask(daemon.http).status)
        wait_until(lambda: exact() == "0", "the daemon to miss the store")
        self.assertEqual([200] * 20, [ask(daemon.http).status for _ in range(20)])
        self.assertEqual(1, daemon.process.log().count("the store cannot be asked"))
        redis.process.resume()
        wait_until(lambda: exact() == "1", "the daemon to find the store")
        held = [Asking(daemon.http, "/held") for _ in range(2)]
        wait_until(lambda: backend.told("/waiting") == 2, "two requests")
        self.assertEqual(502, ask(daemon.http).status)
        backend.told("/release")
        self.assertEqual([200, 200], [each.result().status for each in held])
