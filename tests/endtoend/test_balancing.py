"""
Who is asked, again or later: policies, cookies, retries, the waiting line,
drains, slow starts and panic, with real servers.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from typing import Any

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Reply, ask, run, wait_until
from tests.endtoend.servers import Backend, Nginx

HASHES = ("ip", "consistent", "plain")


def file_servers(*servers: tuple[str, str]) -> str:
    """TOML of servers: address, and more options or nothing."""
    return "[" + ", ".join(f'{{ address = "{a}"{more} }}' for a, more in servers) + "]"


class PolicyTests(EndToEndCase):
    """Four nginx servers with weights 1, 1, 1 and 2 in one upstream for each policy."""

    def setUp(self) -> None:
        self.servers = [Nginx(self, name) for name in ("one", "two", "three", "double")]
        weights = [", weight = 1"] * 3 + [", weight = 2"]
        listed = file_servers(
            *((each.address, more) for each, more in zip(self.servers, weights, strict=True))
        )
        names = ("round", "random", "times", *HASHES)
        self.daemon = Daemon(
            self,
            routes="["
            + ", ".join(f'{{ path = "/{name}/", upstream = "{name}" }}' for name in names)
            + "]",
            more=f"""
[upstreams.round]
policy = "round_robin"
servers = {listed}
[upstreams.random]
policy = "random_two"
servers = {listed}
[upstreams.times]
policy = "ewma"
servers = {listed}
[upstreams.ip]
policy = "ip_hash"
servers = {listed}
[upstreams.consistent]
policy = "hash"
hash_key = "$arg_user"
servers = {listed}
[upstreams.plain]
policy = "hash"
hash_key = "$cookie_user"
hash_consistent = false
servers = {listed}
""",
        )

    def served(self, target: str, times: int, **headers: str) -> Counter[str]:
        replies = [ask(self.daemon.http, target, headers=headers) for _ in range(times)]
        self.assertEqual({200}, {reply.status for reply in replies})
        return Counter(reply.headers["x-server"] for reply in replies)

    def test_shares(self) -> None:
        """
        In turns the shares are exact; by two draws everybody gets something; by
        times whoever is fast, but not one alone; by a key the same one each time.
        """
        exact = {"one": 10, "two": 10, "three": 10, "double": 20}
        self.assertEqual(exact, self.served("/round/", 50))
        self.assertEqual(set(exact), set(self.served("/random/", 100)))
        self.assertGreater(len(self.served("/times/", 100)), 1)
        self.assertEqual(1, len(self.served("/ip/", 10)))
        shares = Counter(
            next(iter(self.served(f"/consistent/?user={n}", 2))) for n in range(60)
        )
        self.assertEqual(set(exact), set(shares))
        shares = Counter(
            next(iter(self.served("/plain/", 1, cookie=f"user={n}"))) for n in range(60)
        )
        self.assertEqual(set(exact), set(shares))
        [mine] = self.served("/plain/", 8, cookie="user=me")
        self.assertIn(mine, exact)


class SameAddressTests(EndToEndCase):
    def test_lines(self) -> None:
        """Two lines with one address are two servers, wherever one of them is named."""
        one, other = Nginx(self, "one"), Nginx(self, "other")
        log = os.path.join(self.directory("logs"), "access.log")
        daemon = Daemon(
            self,
            upstream={"policy": "round_robin"},
            http={"access_log": log},
            servers=file_servers(
                (one.address, ", weight = 2"), (other.address, ""), (one.address, "")
            ),
        )
        replies = [ask(daemon.http) for _ in range(8)]
        word = [reply.headers["x-server"] for reply in replies]
        self.assertEqual(["one", "other", "one", "one"] * 2, word)
        second = f"{one.address}#2"
        self.assertEqual({one.address, other.address, second}, set(daemon.status()))
        wait_until(lambda: len(lines(log)) == 8, "the log")
        asked = Counter(line["attempts"][0]["server"] for line in lines(log))
        self.assertEqual({one.address: 4, other.address: 2, second: 2}, asked)
        page = ask(daemon.admin, "/metrics").body.decode()
        self.assertIn(f'server_picks_total{{server="{second}",upstream="default"}} 2.0', page)
        answer = daemon.call("add", host=LOOPBACK, port=one.port)
        self.assertEqual(f"Server already exists: {one.address}", answer["message"])


def lines(path: str) -> list[Any]:
    """Of an access log."""
    with open(path) as log:
        return [json.loads(line) for line in log]


class StickyTests(EndToEndCase):
    def test_cookie_jar(self) -> None:
        """curl with a cookie jar stays with its server until that one is gone."""
        servers = [Nginx(self, name) for name in ("one", "two", "three")]
        daemon = Daemon(
            self,
            upstream={"policy": "round_robin"},
            more='[upstreams.default.sticky]\ncookie = "srv"\nsamesite = "strict"\n',
        )
        for server in servers:
            daemon.add(server.port, heartbeat="false")
        jar = os.path.join(self.directory("jar"), "jar")

        def visit() -> str:
            return run("curl", "-sS", "-b", jar, "-c", jar, f"http://{LOOPBACK}:{daemon.http}/")

        mine = visit()
        self.assertEqual({mine}, {visit() for _ in range(6)})
        self.assertEqual(3, len({ask(daemon.http).body for _ in range(6)}))
        [server] = [each for each in servers if each.name == mine]
        daemon.call("toggle", host=LOOPBACK, port=server.port, action="drain")
        other = visit()
        self.assertNotEqual(mine, other)
        self.assertEqual({other}, {visit() for _ in range(6)})


class RetryTests(EndToEndCase):
    def test_status(self) -> None:
        """An answer that is named goes to nobody; where it has to, it goes as it is."""
        bad, good = Backend(self, "bad"), Nginx(self, "good")
        daemon = Daemon(
            self,
            upstream={
                "policy": "round_robin",
                "next_upstream": ["error", "timeout", "http_503"],
                "retry_budget": 0,
            },
            servers=file_servers((bad.address, ", max_fails = 0"), (good.address, "")),
        )
        replies = [ask(daemon.http, "/status/503") for _ in range(10)]
        self.assertEqual([200] * 10, [reply.status for reply in replies])
        posted = [ask(daemon.http, "/status/503", "POST", b"x") for _ in range(10)]
        self.assertEqual(
            {(503, "bad"): 5, (200, "good"): 5},
            Counter((reply.status, reply.headers["x-server"]) for reply in posted),
        )
        self.assertEqual({404, 200}, {ask(daemon.http, "/status/404").status for _ in range(4)})


class Asking:
    """A request in a thread of its own."""

    def __init__(self, port: int, target: str) -> None:
        self.reply: Reply | None = None
        self._thread = threading.Thread(target=self._run, args=(port, target))
        self._thread.start()

    def _run(self, port: int, target: str) -> None:
        self.reply = ask(port, target)

    def result(self) -> Reply:
        self._thread.join(20.0)
        assert self.reply is not None
        return self.reply


class LineTests(EndToEndCase):
    def test_waits(self) -> None:
        """Requests wait for the only place of the only server, no longer than they may."""
        backend = Backend(self)
        daemon = Daemon(
            self,
            upstream={"queue": 2, "queue_timeout": 10.0},
            servers=file_servers((backend.address, ", max_conns = 1")),
        )
        first = Asking(daemon.http, "/held")
        wait_until(lambda: backend.told("/waiting") == 1, "the first request")
        second = Asking(daemon.http, "/")
        third = Asking(daemon.http, "/")

        def waiting() -> bool:
            page = ask(daemon.admin, "/metrics").body.decode()
            return 'dynbalance_upstream_waiting{upstream="default"} 2.0' in page

        wait_until(waiting, "two in the line")
        self.assertEqual(502, ask(daemon.http).status)
        backend.told("/release")
        self.assertEqual(
            [200, 200, 200], [each.result().status for each in (first, second, third)]
        )


class DrainTests(EndToEndCase):
    def test_running_request(self) -> None:
        """A draining server finishes what it has, gets nothing new, and is removed."""
        old, new = Backend(self, "old"), Backend(self, "new")
        daemon = Daemon(self)
        daemon.add(old.port, heartbeat="false")
        held = Asking(daemon.http, "/held")
        wait_until(lambda: old.told("/waiting") == 1, "the request")
        daemon.add(new.port, heartbeat="false")
        answer = daemon.call("remove", host=LOOPBACK, port=old.port, drain=60)
        self.assertEqual("Server is draining", answer["message"])
        self.assertEqual({"new"}, {ask(daemon.http).headers["x-server"] for _ in range(5)})
        time.sleep(2.5)
        shown = daemon.status()[old.address]
        self.assertEqual(("draining", 1, 1, "remove"), (
            shown["state"], shown["connections"], shown["node_connections"], shown["drain_then"]
        ))
        self.assertLess(shown["drain_remaining"], 58.5)
        old.told("/release")
        self.assertEqual((200, "old"), (held.result().status, held.result().headers["x-server"]))
        wait_until(lambda: old.address not in daemon.status(), "the removal")

    def test_deadline_and_undo(self) -> None:
        """At its deadline the server is disabled; enabling it undoes a drain."""
        backend = Backend(self)
        daemon = Daemon(self)
        daemon.add(backend.port, heartbeat="false")
        held = Asking(daemon.http, "/held")
        wait_until(lambda: backend.told("/waiting") == 1, "the request")
        where = {"host": LOOPBACK, "port": backend.port}
        daemon.call("toggle", **where, action="drain", deadline=30)
        self.assertEqual(502, ask(daemon.http).status)
        daemon.call("toggle", **where, action="enable")
        self.assertEqual(200, ask(daemon.http).status)
        daemon.call("toggle", **where, action="drain", deadline=1)
        wait_until(lambda: daemon.state(backend.address) == "disabled", "the deadline")
        backend.told("/release")
        self.assertEqual(200, held.result().status)
        self.assertIn("1 connections go on", daemon.process.log())


class SlowStartTests(EndToEndCase):
    def test_share_rises(self) -> None:
        """A server that is added gets little at first, and then its part."""
        old, new = Nginx(self, "old"), Nginx(self, "new")
        daemon = Daemon(self, upstream={"policy": "round_robin", "slow_start": 1.0})
        daemon.add(old.port, heartbeat="false")
        daemon.add(new.port, heartbeat="false", slow_start=4.0)

        def share() -> float:
            asked = [ask(daemon.http).headers["x-server"] for _ in range(20)]
            return asked.count("new") / len(asked)

        # The first one starts slowly, too, but alone.
        wait_until(lambda: daemon.status()[old.address]["slow_start"] == 1, "the first one")
        where = {"host": LOOPBACK, "port": new.port}
        daemon.call("toggle", **where, action="disable")
        daemon.call("toggle", **where, action="enable")
        shares = [share()]
        self.assertLess(daemon.status()[new.address]["slow_start"], 1)
        wait_until(lambda: daemon.status()[new.address]["slow_start"] > 0.5, "half of it")
        shares.append(share())
        wait_until(lambda: daemon.status()[new.address]["slow_start"] == 1, "all of it")
        shares.append(share())
        self.assertEqual(sorted(shares), shares)
        self.assertLess(shares[0], 0.3)
        self.assertApproximates(0.5, shares[2], 0.06)


class PanicTests(EndToEndCase):
    def test_last_good(self) -> None:
        """When all heartbeats have stopped the servers are asked all the same."""
        silent, disabled = Nginx(self, "silent"), Nginx(self, "disabled")
        daemon = Daemon(
            self,
            upstream={"panic": "last_good"},
            heartbeat={"ttl": 1.0, "cleanup_interval": 0.2},
        )
        for server in (silent, disabled):
            daemon.add(server.port)
        daemon.call("toggle", host=LOOPBACK, port=disabled.port, action="disable")
        wait_until(lambda: daemon.state(silent.address) == "expired", "the heartbeats' end")
        self.assertEqual({"silent"}, {ask(daemon.http).headers["x-server"] for _ in range(6)})
        page = ask(daemon.admin, "/metrics").body.decode()
        self.assertIn('dynbalance_upstream_panic{upstream="default"} 1.0', page)
