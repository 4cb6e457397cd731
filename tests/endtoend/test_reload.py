"""
HUP: the configuration is read again, and no connection is lost by it.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket

from tests.endtoend.daemon import Daemon, endpoint
from tests.endtoend.harness import LOOPBACK, EndToEndCase, accepts, ask, free_port, wait_until
from tests.endtoend.load import Load
from tests.endtoend.servers import Backend
from tests.endtoend.test_ending import Asking

REFUSED = "nothing has changed"


class ReloadTests(EndToEndCase):
    """What a changed file changes, and what stays."""

    def setUp(self) -> None:
        self.old, self.new = Backend(self, "old"), Backend(self, "new")

    def serving(self, backend: Backend, **more: object) -> Daemon:
        servers = f'[{{ address = "{backend.address}" }}]'
        return Daemon(self, servers=servers, **more)  # type: ignore[arg-type]

    def test_servers(self) -> None:
        """Requests and streams go to the servers that the file names now; what runs goes on."""
        daemon = self.serving(self.old)
        held = Asking(daemon.http, "/held")
        self.addCleanup(held.wait)
        wait_until(lambda: self.old.told("/waiting") == 1, "the held request")
        with socket.create_connection((LOOPBACK, daemon.stream), 20) as stream:
            stream.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            wait_until(lambda: daemon.counts() == {self.old.address: 2}, "both to be counted")
            daemon.edit(self.old.address, self.new.address)
            daemon.reload()
            self.assertEqual(b"new", ask(daemon.http).body)
            self.assertEqual(b"new", ask(daemon.stream).body)
            self.assertEqual([self.new.address], list(daemon.status()))
            # It comes back, and still carries what it has carried.
            daemon.edit(self.new.address, self.old.address)
            daemon.reload()
            self.assertEqual({self.old.address: 2}, daemon.counts())
            stream.sendall(b"cd")
            self.assertIn(b"\r\n\r\nabcd", stream.recv(4096))
        self.old.told("/release")
        held.wait()
        assert held.reply, held.failed
        self.assertEqual(200, held.reply.status)
        wait_until(lambda: daemon.counts() == {self.old.address: 0}, "both to end")

    def test_listeners(self) -> None:
        """Listeners come and go; the connections of one that went finish."""
        daemon = self.serving(self.old)
        held = Asking(daemon.http, "/held")
        self.addCleanup(held.wait)
        wait_until(lambda: self.old.told("/waiting") == 1, "the held request")
        port = free_port()
        daemon.edit(endpoint(daemon.http), endpoint(port))
        daemon.reload()
        self.assertEqual(b"old", ask(port).body)
        self.assertFalse(accepts(daemon.http))
        self.old.told("/release")
        held.wait()
        assert held.reply, held.failed
        self.assertEqual("close", held.reply.headers["connection"])

    def test_changed_listener(self) -> None:
        """
        A listener whose table has changed is another one on the same port; idle
        clients of the first are not cut off, but their next answer is the last.
        """
        daemon = self.serving(self.old, http={"set_headers.X-Said": "first"})
        with socket.create_connection((LOOPBACK, daemon.http), 20) as idle:
            request = b"GET /head HTTP/1.1\r\nHost: a\r\n\r\n"
            idle.sendall(request)
            self.assertNotIn(b"Connection: close", idle.recv(4096))
            daemon.edit("first", "second")
            daemon.reload()
            self.assertIn(b"X-Said: second", ask(daemon.http, "/head").body)
            idle.sendall(request)
            last = b""
            while piece := idle.recv(4096):
                last += piece
        self.assertIn(b"X-Said: first", last)
        self.assertIn(b"Connection: close", last)

    def test_routes(self) -> None:
        """A route may lead to an upstream that is new; one that is gone leaves nothing."""
        daemon = self.serving(self.old)
        daemon.edit("routes = []", 'routes = [{ path = "/b/", upstream = "b" }]')
        daemon.edit("[admin]", f"""
            [upstreams.b]
            servers = [{{ address = "{self.new.address}" }}]
            [admin]""")
        daemon.reload()
        self.assertEqual(b"new", ask(daemon.http, "/b/").body)
        self.assertEqual(b"old", ask(daemon.http, "/").body)
        self.assertEqual(200, ask(daemon.admin, "/upstream/status?upstream=b").status)
        daemon.edit('[{ path = "/b/", upstream = "b" }]', "[]")
        daemon.edit("[upstreams.b]", "[upstreams.c]")
        daemon.reload()
        self.assertEqual(b"old", ask(daemon.http, "/b/").body)
        self.assertEqual(404, ask(daemon.admin, "/upstream/status?upstream=b").status)

    def test_mistakes(self) -> None:
        """A file with mistakes changes nothing, and each mistake has its line."""
        daemon = self.serving(self.old)
        daemon.edit(self.old.address, f"{LOOPBACK}:70000")
        daemon.edit("routes =", "ruotes =")
        daemon.reload(REFUSED)
        log = daemon.process.log()
        self.assertIn("upstreams.default.servers[0].address: port 70000 is not in 1-65535", log)
        self.assertIn("http[0].ruotes", log)
        self.assertEqual(b"old", ask(daemon.http).body)

    def test_port_in_use(self) -> None:
        """Nothing of a file is followed whose ports cannot all be had."""
        daemon = self.serving(self.old)
        free, taken = free_port(), self.new.port
        daemon.edit(endpoint(daemon.http), endpoint(free))
        daemon.edit(endpoint(daemon.stream), endpoint(taken))
        daemon.edit(self.old.address, self.new.address)
        daemon.reload(REFUSED)
        self.assertIn(f"stream[0].listen: {endpoint(taken)}", daemon.process.log())
        self.assertFalse(accepts(free))
        self.assertEqual(b"old", ask(daemon.http).body)
        self.assertEqual(b"old", ask(daemon.stream).body)

    def test_lasting(self) -> None:
        """What a running node is built on is not followed, and neither is the rest."""
        daemon = self.serving(self.old)
        daemon.edit('node = "', 'node = "an')
        daemon.edit(self.old.address, self.new.address)
        daemon.reload(REFUSED)
        self.assertIn("node: needs a restart to change", daemon.process.log())
        self.assertEqual(b"old", ask(daemon.http).body)

    def test_access_logs(self) -> None:
        """A log that was moved away is opened anew, by HUP and by USR1."""
        path = os.path.join(self.directory("logs"), "access.log")
        daemon = self.serving(self.old, http={"access_log": path})

        def uris(of: str) -> list[str]:
            return [json.loads(line)["uri"] for line in pathlib.Path(of).read_text().splitlines()]

        ask(daemon.http, "/1")
        wait_until(lambda: uris(path) == ["/1"], "a line")
        os.rename(path, f"{path}.1")
        daemon.reload()
        ask(daemon.http, "/2")
        wait_until(lambda: uris(path) == ["/2"], "a line in the second file")
        os.rename(path, f"{path}.2")
        daemon.process.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(path), "a third file")
        ask(daemon.http, "/3")
        wait_until(lambda: uris(path) == ["/3"], "a line in it")
        self.assertEqual(["/1"], uris(f"{path}.1"))
        self.assertEqual(["/2"], uris(f"{path}.2"))

    def test_health_checks(self) -> None:
        """Checks begin and end; what they have found ends with them."""
        daemon = self.serving(self.old)
        check = "{ type = 'http', uri = '/status/500', interval = 0.2, jitter = 0.0 }"
        daemon.edit("servers =", f"health_check = {check}\nservers =")
        daemon.reload()
        wait_until(lambda: daemon.state(self.old.address) == "unhealthy", "the check to fail")
        daemon.edit("/status/500", "/")
        daemon.reload()
        wait_until(lambda: daemon.state(self.old.address) == "up", "the check to pass")
        daemon.edit("uri = '/'", "uri = '/status/404'")
        daemon.reload()
        wait_until(lambda: daemon.state(self.old.address) == "unhealthy", "the check to fail")
        daemon.edit(f"health_check = {check}".replace("500", "404"), "")
        daemon.reload()
        self.assertEqual("up", daemon.state(self.old.address))

    def test_under_load(self) -> None:
        """Five times, with policies, servers and listeners that change: no request fails."""
        daemon = self.serving(self.old)
        load = Load(self, daemon.http)
        for number, policy in enumerate(("round_robin", "ewma", "hash", "random_two", "ip_hash")):
            both = (self.old.address, self.new.address)
            daemon.edit(both[number % 2], both[1 - number % 2])
            if number:
                daemon.edit("keepalive_requests = ", "keepalive_requests = 1")
                daemon.edit("policy = ", f'policy = "{policy}" # ')
            else:
                daemon.edit("[[http]]", "[[http]]\nkeepalive_requests = 1000")
                daemon.edit("servers = ", f'policy = "{policy}"\nservers = ')
            daemon.reload()
            load.go_on()
        load.stop()
        self.assertEqual([], load.failures)
        wait_until(lambda: list(daemon.counts().values()) == [0], "the counts to be given back")
