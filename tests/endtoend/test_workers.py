"""
Several worker processes behind one set of ports.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys

from tests.endtoend.daemon import Daemon, endpoint
from tests.endtoend.harness import LOOPBACK, EndToEndCase, accepts, ask, free_port, wait_until
from tests.endtoend.load import Load
from tests.endtoend.servers import Backend, Redis
from tests.endtoend.test_ending import Asking

MANY = 20
"""Connections that are never all with one of two workers: once in half a million times."""


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of one."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class WorkersCase(EndToEndCase):
    """A daemon with two workers, and what a test asks about them."""

    def begin(self, store: str = "", **more: object) -> None:
        """Start the daemon with a backend."""
        self.backend = Backend(self)
        root = {"workers": 2, "shutdown_timeout": 20.0}
        self.daemon = Daemon(self, store or self.redis.url, root=root, **more)  # type: ignore[arg-type]
        # When it is answered, all workers know it.
        self.daemon.add(self.backend.port)

    def metrics(self) -> dict[str, float]:
        lines = ask(self.daemon.admin, "/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def picks(self) -> float:
        name = "dynbalance_server_picks_total"
        return self.metrics()[f'{name}{{server="{self.backend.address}",upstream="default"}}']

    def pid(self, number: int) -> int:
        """Of a worker's newest process."""
        said = rf"Worker {number} serves \(process (\d+)\)"
        return int(re.findall(said, self.daemon.process.log())[-1])

    def hold(self, number: int) -> list[Asking]:
        """Requests that are not answered yet."""
        before = self.backend.told("/waiting")
        asking = [Asking(self.daemon.http, "/held") for _ in range(number)]
        for each in asking:
            self.addCleanup(each.wait)
        self.addCleanup(self.backend.told, "/release")
        wait_until(lambda: self.backend.told("/waiting") == before + number, "held requests")
        return asking

    def held(self, number: int) -> int:
        """Connections that a worker has published."""
        counts = self.redis.pairs("HGETALL", f"upstream:node:dynbalance-w{number}:conns")
        return sum(int(count) for count in counts.values())


class WorkersTests(WorkersCase):
    """Over a Redis, where each worker's counts can be read."""

    def setUp(self) -> None:
        self.redis = Redis(self)

    def test_share(self) -> None:
        """Both serve, each as a node; the API and the metrics tell of both together."""
        self.begin()
        asking = self.hold(MANY)
        wait_until(lambda: self.held(1) + self.held(2) == MANY, "all to be published")
        self.assertTrue(self.held(1))
        self.assertTrue(self.held(2))
        self.assertEqual(
            ["dynbalance", "dynbalance-w1", "dynbalance-w2"],
            sorted(self.redis("ZRANGE", "upstream:nodes", "0", "-1").split()),
        )
        wait_until(
            lambda: self.daemon.counts() == {self.backend.address: MANY}, "the sum in the status"
        )
        server = self.daemon.status()[self.backend.address]
        self.assertEqual(("up", MANY), (server["state"], server["node_connections"]))
        self.backend.told("/release")
        for each in asking:
            each.wait()
            assert each.reply, each.failed
            self.assertEqual(200, each.reply.status)
        self.assertEqual(MANY, self.picks())
        answered = 'code="2xx",server="' + self.backend.address + '",upstream="default"'
        metrics = self.metrics()
        self.assertEqual(MANY, metrics[f"dynbalance_server_requests_total{{{answered}}}"])
        self.assertGreater(metrics["dynbalance_worker_process_cpu_seconds_total"], 0)
        memory = [metrics[f'dynbalance_worker_process_resident_memory_bytes{{worker="{n}"}}']
                  for n in (1, 2)]
        self.assertGreater(min(memory), 1 << 20)

    def test_events(self) -> None:
        """The events' figures, and the list of upstreams, are those of both together."""
        self.begin()
        url = f"{self.daemon.url}/upstream/events"
        listener = self.start("curl", ["curl", "-sN", "-m", "60", url], self.directory("curl"))
        listener.until(lambda: "event: figures" in listener.log(), "hears figures")
        asking = self.hold(MANY)
        told = f'"node_connections":{MANY},"requests"'
        listener.until(lambda: told in listener.log(), "hears of all connections")
        (upstream,) = ask(self.daemon.admin, "/upstream/upstreams").json["data"]
        self.assertEqual((MANY, {"up": 1}), (upstream["node_connections"], upstream["states"]))
        self.backend.told("/release")
        for each in asking:
            each.wait()

        def answers() -> float:
            return sum(map(float, re.findall(r'"requests":([\d.]+)', listener.log())))

        # Told as of a second, which a second look is not to the millisecond.
        listener.until(lambda: answers() > MANY / 2, "hears of the answers")

    def test_killed(self) -> None:
        """One that is killed takes only its own connections with it, and comes back."""
        self.begin()
        asking = self.hold(MANY)
        wait_until(lambda: self.held(1) + self.held(2) == MANY, "all to be published")
        lost, first = self.held(1), self.pid(1)
        counted = self.picks()
        os.kill(first, signal.SIGKILL)
        # Whoever connects meanwhile is served by the other one, or waits for the next one.
        for _ in range(MANY):
            self.assertEqual(200, ask(self.daemon.http).status)
        wait_until(lambda: self.pid(1) != first, "another process")
        left = {self.backend.address: MANY - lost}
        wait_until(lambda: self.redis.counts() == left, "its counts to be given back", 5.0)
        self.assertEqual(counted + MANY, self.picks())
        self.backend.told("/release")
        for each in asking:
            each.wait()
        self.assertEqual(lost, sum(each.failed is not None for each in asking))
        self.assertEqual(2, self.metrics()['dynbalance_worker_starts_total{worker="1"}'])

    def test_parent_killed(self) -> None:
        """No worker outlives the parent, not even one that hears nothing."""
        self.begin()
        pids = self.pid(1), self.pid(2)
        self.assertTrue(all(runs(pid) for pid in pids))
        os.kill(pids[0], signal.SIGSTOP)
        self.daemon.process.kill()
        wait_until(lambda: not any(runs(pid) for pid in pids), "the workers to end", 5.0)
        # The last of a process's threads closes its sockets.
        wait_until(lambda: not accepts(self.daemon.http), "the sockets to be closed", 5.0)

    def test_end(self) -> None:
        """TERM: no new connections, what is in flight finishes, the status is 0."""
        self.begin()
        asking = self.hold(MANY)
        stream = socket.create_connection((LOOPBACK, self.daemon.stream), 20)
        self.addCleanup(stream.close)
        stream.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        wait_until(lambda: self.redis.counts() == {self.backend.address: MANY + 1}, "the stream")
        self.daemon.process.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.daemon.http), "the HTTP port to be closed")
        wait_until(lambda: not accepts(self.daemon.stream), "the TCP port to be closed")
        # The admin API tells until the end.
        held = {self.backend.address: MANY + 1}
        wait_until(lambda: self.daemon.counts() == held, "the status to tell it")
        self.backend.told("/release")
        for each in asking:
            each.wait()
            assert each.reply, each.failed
            self.assertEqual("close", each.reply.headers["connection"])
        stream.sendall(b"cd")
        self.assertIn(b"\r\n\r\nabcd", stream.recv(4096))
        stream.close()
        self.assertEqual(0, self.daemon.process.wait())
        self.assertEqual({self.backend.address: 0}, self.redis.counts())
        self.assertEqual("", self.redis("ZRANGE", "upstream:nodes", "0", "-1"))

    def test_second_signal(self) -> None:
        """A second TERM cuts what is in flight in all workers."""
        self.begin()
        asking = self.hold(MANY)
        self.daemon.process.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.daemon.http), "the HTTP port to be closed")
        self.daemon.process.signal(signal.SIGTERM)
        self.assertEqual(0, self.daemon.process.wait(10))
        for each in asking:
            each.wait()
            self.assertIsNotNone(each.failed)

    def test_terminal(self) -> None:
        """What is sent to all processes at once, such as Ctrl-C, ends in order too."""
        self.begin()
        (asking,) = self.hold(1)
        for pid in (self.pid(1), self.pid(2), self.daemon.process.pid):
            os.kill(pid, signal.SIGINT)
        wait_until(lambda: not accepts(self.daemon.http), "the HTTP port to be closed")
        self.backend.told("/release")
        asking.wait()
        assert asking.reply, asking.failed
        self.assertEqual(0, self.daemon.process.wait())

    def test_orders(self) -> None:
        """What the API has answered holds for all workers; what one finds out is told."""
        self.begin()
        host, port = self.backend.address.split(":")
        for action, status in (("disable", 502), ("enable", 200)) * 3:
            self.daemon.call("toggle", host=host, port=port, action=action)
            for _ in range(4):
                self.assertEqual(status, ask(self.daemon.http).status)
        dead = free_port()
        self.daemon.add(dead)

        def found_out() -> bool:
            self.assertEqual(200, ask(self.daemon.http).status)
            return self.daemon.state(f"{LOOPBACK}:{dead}") == "failed"

        wait_until(found_out, "one to find out")
        why = self.daemon.status()[f"{LOOPBACK}:{dead}"]["why"]
        self.assertRegex(why, r"\(worker [12] of 2\)$")
        # A worker explains its own choices.
        worker = int(why.split()[-3])
        told = ask(self.daemon.admin, "/upstream/explain").json["data"]
        self.assertEqual(1, told["worker"])
        states = {server["addr"]: server["state"] for server in told["servers"]}
        seen = "failed" if worker == 1 else "up"
        self.assertEqual(
            {self.backend.address: "up", f"{LOOPBACK}:{dead}": seen}, states
        )

    def test_reload(self) -> None:
        """HUP: all workers follow a changed file, new ports too, and no request fails."""
        self.begin()
        load = Load(self, self.daemon.http)
        held = self.hold(MANY)
        pids = self.pid(1), self.pid(2)
        other = Backend(self, "other")
        port, log = free_port(), os.path.join(self.directory("log"), "access.log")
        self.daemon.edit("[[http]]", f"""
            [[http]]
            listen = "{endpoint(port)}"
            upstream = "other"
            access_log = "{log}"
            [upstreams.other]
            servers = [{{ address = "{other.address}" }}]
            [[http]]
            keepalive_requests = 50
        """)
        self.daemon.reload()
        load.go_on()
        self.assertEqual({b"other"}, {ask(port).body for _ in range(MANY)})
        self.daemon.edit(other.address, self.backend.address)
        self.daemon.reload()
        self.assertEqual({b"backend"}, {ask(port).body for _ in range(MANY)})
        load.stop()
        self.assertEqual([], load.failures)
        # One that begins later begins by what is followed now.
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: self.pid(1) != pids[0], "another process")
        self.assertEqual({b"backend"}, {ask(port).body for _ in range(MANY)})
        self.daemon.edit(f'listen = "{endpoint(port)}"', f'listen = "{endpoint(free_port())}"')
        self.daemon.reload()
        self.assertFalse(accepts(port))
        self.assertEqual(pids[1], self.pid(2))
        self.backend.told("/release")
        for each in held:
            each.wait()
        self.assertTrue(any(each.reply for each in held))

    def test_reload_refused(self) -> None:
        """A file with a mistake changes nothing; the number of workers needs a restart."""
        self.begin()
        self.daemon.edit("workers = 2", "workers = 3")
        self.daemon.reload("nothing has changed")
        self.assertIn("workers: needs a restart", self.daemon.process.log())
        self.assertEqual(200, ask(self.daemon.http).status)

    def test_strict(self) -> None:
        """Counted strictly, max_conns holds over all workers."""
        self.begin(upstream={"counting": "strict"})
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        self.daemon.add(self.backend.port, max_conns=3)
        asking = [Asking(self.daemon.http, "/held") for _ in range(MANY)]
        for each in asking:
            self.addCleanup(each.wait)
        self.addCleanup(self.backend.told, "/release")
        wait_until(lambda: self.backend.told("/waiting") == 3, "three held requests")
        wait_until(lambda: sum(each.reply is not None for each in asking) == MANY - 3, "refusals")
        self.backend.told("/release")
        for each in asking:
            each.wait()
        statuses = sorted(each.reply.status for each in asking if each.reply)
        self.assertEqual([200] * 3 + [502] * (MANY - 3), statuses)

    def test_mounted_admin(self) -> None:
        """Whichever worker is asked answers from the shared store, and logs whole lines."""
        log = os.path.join(self.directory("log"), "access.log")
        self.begin(http={"mount_admin": True, "access_log": log})
        for _ in range(MANY):
            data = ask(self.daemon.http, "/upstream/status").json["data"]
            self.assertEqual([self.backend.address], [server["addr"] for server in data])
            self.assertEqual(200, ask(self.daemon.http, "/" + "x" * 9000).status)

        def lines() -> list[str]:
            with open(log) as text:
                return text.readlines()

        wait_until(lambda: len(lines()) == 2 * MANY, "a line for each")
        uris = [json.loads(line)["uri"] for line in lines()]
        self.assertEqual(MANY, sum(len(uri) == 9001 for uri in uris))


_ACTIVATED = """
import os, socket
listening = socket.socket()
listening.bind(("127.0.0.1", {port}))
listening.listen()
os.dup2(listening.fileno(), 3)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}}
from twisted.scripts.twistd import run
run()
"""
"""What systemd does before it starts a service with a socket."""


class EmbeddedTests(WorkersCase):
    """Over the embedded store."""

    def test_embedded(self) -> None:
        """The workers reach the parent's store, and it outlives them."""
        self.begin("embedded:")
        for _ in range(MANY):
            self.assertEqual(200, ask(self.daemon.http).status)
        self.assertEqual(MANY, self.picks())
        self.assertEqual(0, self.daemon.process.stop())
        log = self.daemon.process.log()
        self.assertNotIn("Store lost", log)
        self.assertNotIn("did not hear", log)

    def test_activated(self) -> None:
        """A socket that systemd has opened is served by all of them, also after a reload."""
        backend = Backend(self)
        port, admin = free_port(), free_port()
        place = self.directory("activated")
        with open(os.path.join(place, "dynbalance.toml"), "w") as out:
            out.write(f"""
                workers = 2
                http = [{{ listen = "systemd:domain=INET:name=http" }}]
                admin = {{ listen = "{endpoint(admin)}" }}
                upstreams.default.servers = [{{ address = "{backend.address}" }}]
            """)
        program = _ACTIVATED.format(port=port)
        command = [sys.executable, "-c", program, "-n", "--pidfile=", "dynbalance"]
        daemon = self.start("activated", [*command, "-c", "dynbalance.toml"], place)
        daemon.until(lambda: "serves as" in daemon.log(), "serves")
        for _ in range(MANY):
            self.assertEqual(200, ask(port).status)
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: "is followed" in daemon.log(), "reloads")
        for _ in range(MANY):
            self.assertEqual(200, ask(port).status)
        self.assertEqual(0, daemon.stop())
        self.assert_no_traceback(daemon)

    def test_unix_socket(self) -> None:
        """A socket that there is only once is served by all of them."""
        path = os.path.join(self.directory("socket"), "http.sock")
        self.begin("embedded:", http={"listen": f"unix:{path}:mode=600"})
        mode = os.stat(path).st_mode & 0o777
        self.assertEqual(0o600, mode)
        for _ in range(MANY):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(path)
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                self.assertIn(b" 200 ", client.recv(4096))
        self.assertEqual(0, self.daemon.process.stop())
        self.assertFalse(os.path.exists(path))
