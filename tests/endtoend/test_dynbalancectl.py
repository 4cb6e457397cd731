"""dynbalancectl and its agent before a real daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import (
    LOOPBACK,
    ROOT,
    EndToEndCase,
    Program,
    accepts,
    free_port,
    wait_until,
)

CTL = [sys.executable, "-m", "dynbalance.ctl"]


class Done:
    """
    A command that has ended.

    @ivar status: its exit status.
    """

    def __init__(self, daemon: Daemon, words: tuple[str, ...], stdin: str) -> None:
        command = [*CTL, "--url", daemon.url, *words]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr


class CommandTests(EndToEndCase):
    """One daemon for all that an operator does in turn."""

    def setUp(self) -> None:
        self.daemon = Daemon(self)

    def ctl(self, *words: str, status: int = 0, stdin: str = "") -> Done:
        done = Done(self.daemon, words, stdin)
        self.assertEqual((status, words), (done.status, words), done.out + done.err)
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.ctl("--json", *words).out)["data"]

    def test_servers(self) -> None:
        """A server's life, order by order, and the statuses that scripts go by."""
        first, second = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
        self.ctl("health", status=1)
        self.ctl("add", first, "--weight", "2")
        self.assertIn("already exists", self.ctl("add", first, status=1).err)
        self.ctl("add", second, "--no-heartbeat", "--max-conns", "5")
        self.ctl("health")
        self.ctl("update", first, "--weight", "7")
        self.ctl("refresh", first)
        self.ctl("disable", second)
        self.assertIn("disabled", self.ctl("status").out)
        self.assertRegex(self.ctl("explain", "-H", "A: b", "-H", "C: d").out, r"disabled +0%")
        self.ctl("enable", second)
        self.ctl("drain", second, "--then", "remove", "--wait", "--wait-timeout", "20")
        wait_until(lambda: [s["addr"] for s in self.json("status")] == [first], "the removal")
        self.ctl("remove", first)
        self.assertEqual("no servers\n", self.ctl("status").out)
        self.ctl("remove", first, status=1)
        self.ctl("cleanup")
        self.ctl("reset")
        self.ctl("bogus", status=2)

    def test_backups(self) -> None:
        """What is changed can be seen, undone, written down and read again."""
        servers = '[[servers]]\nhost = "192.168.1.10"\nport = 8080\nweight = 2\nmax_conns = 9\n'
        self.ctl("init", "-", stdin=servers)
        self.assertIn("already", self.ctl("init", "-", stdin=servers, status=1).err)
        self.ctl("init", "-", "--force", stdin=servers.replace(".10", ".11"))
        self.assertEqual(["192.168.1.11"], [server["host"] for server in self.json("status")])
        revision = self.json("history", "--limit", "1")[0]["revision"]
        self.ctl("update", "192.168.1.11:8080", "--weight", "5")
        self.assertIn("weight 2 → 5", self.ctl("history").out)
        kept = self.ctl("export").out
        self.assertIn("~ default 192.168.1.11:8080", self.ctl("rollback", str(revision)).out)
        self.assertEqual(2, self.json("status")[0]["weight"])
        self.assertIn("~ default", self.ctl("import", "-", "--dry-run", stdin=kept).out)
        self.assertEqual(2, self.json("status")[0]["weight"])
        self.ctl("import", "-", stdin=kept)
        self.assertEqual(5, self.json("status")[0]["weight"])

    def test_watch(self) -> None:
        """A watch into a pipe is look after look."""
        out = self.ctl("status", "--watch", "--interval", "0.1", "--times", "2").out
        self.assertEqual(2, out.count("no servers"))

    def test_away(self) -> None:
        """A daemon that has ended is not reached: status 3."""
        self.daemon.process.stop()
        self.assertIn("Connection refused", self.ctl("status", status=3).err)


class AgentTests(EndToEndCase):
    """The agent beside a backend."""

    def setUp(self) -> None:
        self.daemon = Daemon(self, heartbeat={"ttl": 1.0, "cleanup_interval": 0.1})
        self.port = free_port()
        self.server = f"{LOOPBACK}:{self.port}"

    def agent(self, *words: str) -> Program:
        command = [
            *CTL, "--url", self.daemon.url, "heartbeat", "--port", str(self.port),
            "--interval", "0.2", *words,
        ]
        return self.start("agent", command, self.directory("agent"))

    def test_life(self) -> None:
        """
        It registers the server with its options, keeps it alive beyond its ttl,
        registers it again when it was removed, and drains it at the end.
        """
        agent = self.agent("--weight", "3")
        agent.until(lambda: self.server in self.daemon.status(), "registers")
        server = self.daemon.status()[self.server]
        self.assertEqual(3, server["weight"])
        created = server["created_at"]
        agent.until(
            lambda: self.daemon.status()[self.server]["last_heartbeat"] > created + 1.2, "beats"
        )
        self.assertEqual("up", self.daemon.state(self.server))
        self.daemon.call("remove", host=LOOPBACK, port=self.port)
        agent.until(lambda: self.server in self.daemon.status(), "registers again")
        agent.signal(signal.SIGTERM)
        self.assertEqual(0, agent.wait())
        self.assertEqual({}, self.daemon.status())
        self.assertIn("drained and removed", agent.log())

    def test_check(self) -> None:
        """Without a good answer of the check there is no heartbeat."""
        port = free_port()
        self.assertFalse(accepts(port))
        agent = self.agent("--check", f"http://{LOOPBACK}:{port}/")
        agent.until(lambda: "no heartbeat" in agent.log(), "notices")
        self.assertEqual({}, self.daemon.status())
        self.assertEqual(0, agent.stop())

    def test_daemon_away(self) -> None:
        """It outlives the daemon, and is there when that is back."""
        agent = self.agent()
        agent.until(lambda: self.server in self.daemon.status(), "registers")
        self.daemon.process.stop()
        agent.until(lambda: "Connection refused" in agent.log(), "notices")
        self.daemon.start()
        agent.until(lambda: self.server in self.daemon.status(), "registers again")
