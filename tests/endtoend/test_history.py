"""
Two nodes over one Redis: what one changes the other tells, undoes and restores.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Program, ask, curl, run, wait_until
from tests.endtoend.servers import Backend, Redis


class HistoryTests(EndToEndCase):
    """What operators do with curl."""

    def setUp(self) -> None:
        self.redis = Redis(self)
        self.one = Daemon(self, self.redis.url, "one")
        self.two = Daemon(self, self.redis.url, "two")
        self.backend = Backend(self)
        self.address = self.backend.address

    def update(self, daemon: Daemon, *more: str, weight: int) -> int:
        """@return: the HTTP status."""
        return int(
            run(
                *("curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "--max-time", "10"),
                *("-X", "POST", "-d", f"host={LOOPBACK}", "-d", f"port={self.backend.port}"),
                *("-d", f"weight={weight}", *more, f"{daemon.url}/upstream/update"),
            )
        )

    def etag(self, daemon: Daemon) -> str:
        """Of the status."""
        head = run("curl", "-sI", "--max-time", "10", f"{daemon.url}/upstream/status")
        fields = dict(line.lower().split(": ", 1) for line in head.splitlines() if ": " in line)
        return fields["etag"].strip()

    def get(self, daemon: Daemon, what: str) -> Any:
        answer = curl(f"{daemon.url}/upstream/{what}")
        self.assertEqual(200, answer["code"], answer)
        return answer["data"]

    def listen(self, daemon: Daemon, name: str, *more: str) -> Program:
        command = ["curl", "-sN", "--max-time", "60", *more, f"{daemon.url}/upstream/events"]
        return self.start(name, command, self.directory(name))

    def test_back_in_time(self) -> None:
        """A removal is undone on the other node, from the history or from a backup."""
        self.one.add(self.backend.port, weight=3)
        backup = json.dumps(self.get(self.one, "export?all=1"))
        revision = self.get(self.two, "history")[0]["revision"]
        self.assertEqual(200, self.update(self.one, weight=5))
        self.two.call("remove", host=LOOPBACK, port=self.backend.port)
        self.assertEqual(502, ask(self.two.http).status)

        would = self.two.call("rollback", revision=revision, dry_run=1)["data"]
        self.assertEqual([self.address], would["added"])
        self.assertEqual({}, self.two.status())
        self.assertEqual(200, self.two.call("rollback", revision=revision)["code"])
        self.assertEqual(200, ask(self.two.http).status)
        wait_until(lambda: self.address in self.one.status(), "the other node to see it")
        self.assertEqual(3, self.one.status()[self.address]["weight"])
        told = [(line["action"], line["by"]) for line in self.get(self.one, "history")]
        self.assertEqual(["rollback", "remove", "update", "add"], [action for action, _ in told])
        self.assertEqual({LOOPBACK}, {by for _, by in told})

        self.two.call("remove", host=LOOPBACK, port=self.backend.port)
        loaded = run(
            *("curl", "-s", "--max-time", "10", "-H", "Content-Type: application/json"),
            *("--data-binary", "@-", f"{self.one.url}/upstream/import"),
            stdin=f'{{"data":{backup}}}',
        )
        self.assertEqual(200, json.loads(loaded)["code"], loaded)
        self.assertEqual(3, self.one.status()[self.address]["weight"])
        self.assertEqual(200, ask(self.one.http).status)

    def test_one_of_many(self) -> None:
        """Of many orders for one revision, given to both nodes at once, one is carried out."""
        self.one.add(self.backend.port)
        wait_until(lambda: self.address in self.two.status(), "the other node to see it")
        tag = self.etag(self.two)
        self.assertEqual(tag, self.etag(self.one))

        def order(number: int) -> int:
            daemon = (self.one, self.two)[number % 2]
            return self.update(daemon, "-H", f"If-Match: {tag}", weight=number + 2)

        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(pool.map(order, range(16)))
        self.assertEqual({200: 1, 409: 15}, statuses)
        self.assertNotEqual(tag, self.etag(self.one))

    def test_events(self) -> None:
        """What one node is told is heard at both; who comes back elsewhere has missed nothing."""
        listener = self.listen(self.two, "listener")
        listener.until(lambda: "event: hello" in listener.log(), "begins to hear")
        self.one.add(self.backend.port)
        listener.until(lambda: '"action":"add"' in listener.log(), "hears of the server")
        listener.until(lambda: '"state":"up"' in listener.log(), "hears of its state")
        ids = [line[4:] for line in listener.log().splitlines() if line.startswith("id: ")]
        listener.kill()

        self.update(self.two, weight=7)
        again = self.listen(self.one, "again", "-H", f"Last-Event-ID: {ids[-1]}")
        again.until(lambda: "event: hello" in again.log(), "begins to hear")
        heard = again.log()
        self.assertEqual((1, 0), (heard.count('"action":"update"'), heard.count('"action":"add"')))
        again.until(lambda: "event: figures" in again.log(), "hears figures")
        self.one.process.stop()
        # Its end is an end in order, not a cut.
        self.assertEqual(0, again.wait())

    def test_explained(self) -> None:
        """What is said of a request is what becomes of it."""
        self.one.add(self.backend.port)
        other = Backend(self, "other")
        self.one.add(other.port, weight=9, max_conns=0)
        self.one.call("toggle", host=LOOPBACK, port=other.port, action="disable")
        said = run(
            *("curl", "-sG", "--max-time", "10", f"{self.one.url}/upstream/explain"),
            *("-d", "uri=/a", "--data-urlencode", "header=Cookie: a=b"),
        )
        data = json.loads(said)["data"]
        self.assertEqual(self.address, data["chosen"])
        why = {server["addr"]: server.get("why") for server in data["servers"]}
        self.assertEqual("an operator disabled it", why[other.address])
        self.assertEqual(b"backend", ask(self.one.http).body)

    def test_mounted(self) -> None:
        """A traffic listener says that events are not told there."""
        daemon = Daemon(self, self.redis.url, "three", http={"mount_admin": True})
        answer = curl(f"http://{LOOPBACK}:{daemon.http}/upstream/events")
        self.assertEqual(406, answer["code"])
        self.assertEqual([], curl(f"http://{LOOPBACK}:{daemon.http}/upstream/history")["data"])
        unmodified = run(
            *("curl", "-s", "--max-time", "10", "-w", "%{http_code}"),
            *("-H", 'If-None-Match: "0"', f"http://{LOOPBACK}:{daemon.http}/upstream/status"),
        )
        self.assertEqual("304", unmodified)
