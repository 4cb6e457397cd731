"""
Shell scripts: the two that users have had from the beginning, which stand in
C{seed/} as they were printed, and our own in C{etc/}.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, Program, ask, program, wait_until
from tests.endtoend.servers import Backend

SEED = pathlib.Path(__file__).with_name("seed")
ETC = pathlib.Path(__file__).resolve().parents[2] / "etc"
BATCH = [f"192.168.1.{last}:8080" for last in (101, 102, 103)]


class SeedScriptTests(EndToEndCase):
    """As printed; only the variables of addresses are others."""

    def copy(self, name: str, **variables: str) -> str:
        """
        A copy in which sed has replaced variables.

        @return: its path.
        """
        path = os.path.join(self.directory("script"), name)
        text = (SEED / name).read_text()
        edits = []
        for variable, value in variables.items():
            self.assertEqual(1, len(re.findall(f"^{variable}=", text, re.MULTILINE)))
            edits += ["-e", f"s|^{variable}=[^ ]*|{variable}={value}|"]
        with open(path, "w") as out:
            subprocess.run(
                [program("sed"), *edits, str(SEED / name)], stdout=out, check=True, timeout=10
            )
        changed = sum(a != b for a, b in zip(text.split("\n"), self.lines(path), strict=True))
        self.assertEqual(len(variables), changed)
        return path

    def lines(self, path: str) -> list[str]:
        return pathlib.Path(path).read_text().split("\n")

    def beat(self, script: str) -> Program:
        """Start a heartbeat script."""
        return self.start("heartbeat", [program("bash"), script], self.directory("heartbeat"))

    def test_heartbeat(self) -> None:
        """It registers the unknown server, beats, and registers again after a removal."""
        daemon, backend = Daemon(self), Backend(self)
        script = self.copy(
            "heartbeat_client.sh",
            BASE_URL=f'"{daemon.url}"',
            HOST=f'"{LOOPBACK}"',
            PORT=f'"{backend.port}"',
            INTERVAL="0.2",
        )
        self.assert_registers(daemon, backend, self.beat(script))

    def test_heartbeat_without_host(self) -> None:
        """Its empty HOST is the caller's address; through the traffic port as well."""
        daemon, backend = Daemon(self, http={"mount_admin": True}), Backend(self)
        script = self.copy(
            "heartbeat_client.sh",
            BASE_URL=f'"http://{LOOPBACK}:{daemon.http}"',
            PORT=f'"{backend.port}"',
            INTERVAL="0.2",
        )
        self.assert_registers(daemon, backend, self.beat(script))

    def assert_registers(self, daemon: Daemon, backend: Backend, client: Program) -> None:
        client.until(lambda: "✓ Server registered successfully" in client.log(), "registers")
        self.assertIn("✗ Heartbeat failed: Server not found", client.log())
        good = "✓ Heartbeat successful: Heartbeat refreshed successfully"
        client.until(lambda: client.log().count(good) >= 2, "beats")
        self.assertEqual(b"backend", ask(daemon.http).body)
        daemon.call("remove", host=LOOPBACK, port=backend.port)
        client.until(lambda: client.log().count("✓ Server registered") == 2, "registers again")
        self.assertEqual("up", daemon.state(backend.address))
        self.assertNotIn("✗ Failed", client.log())

    def test_manage(self) -> None:
        """It adds three servers, beats for them, and jq shows them."""
        daemon = Daemon(self)
        script = self.copy("manage_servers.sh", BASE_URL=f'"{daemon.url}"')
        done = subprocess.run(
            [program("bash"), script], capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        orders, _, status = done.stdout.partition("Final server status:\n")
        answers = [json.loads(line) for line in orders.splitlines() if line.startswith("{")]
        self.assertEqual(
            [(200, "Server added successfully")] * 3
            + [(200, "Heartbeat refreshed successfully")] * 3,
            [(answer["code"], answer["message"]) for answer in answers],
        )
        shown = json.loads(status)
        self.assertEqual((200, "Success"), (shown["code"], shown["message"]))
        self.assertEqual(
            [(BATCH[0], 1, 1000), (BATCH[1], 2, 2000), (BATCH[2], 1, 1500)],
            [(server["addr"], server["weight"], server["max_conns"]) for server in shown["data"]],
        )
        for server in shown["data"]:
            self.assertTrue(server["enabled"] and server["is_active"])
            self.assertTrue(0 <= server["time_since_heartbeat"] < 10)


class OwnScriptTests(EndToEndCase):
    """C{etc/heartbeat_client.sh} and C{etc/manage_servers.sh}."""

    def setUp(self) -> None:
        self.daemon = Daemon(self)
        self.backend = Backend(self)

    def manage(self, *words: str) -> tuple[int, str]:
        """
        @return: exit status and output.
        """
        done = subprocess.run(
            [program("sh"), str(ETC / "manage_servers.sh"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "BASE_URL": self.daemon.url},
        )
        return done.returncode, done.stdout

    def test_heartbeat(self) -> None:
        """It registers, beats, registers again after a removal, and ends by TERM."""
        client = self.start(
            "heartbeat",
            [program("sh"), str(ETC / "heartbeat_client.sh")],
            self.directory("heartbeat"),
            {
                "BASE_URL": self.daemon.url,
                "PORT": str(self.backend.port),
                "INTERVAL": "0.2",
                "WEIGHT": "3",
            },
        )
        client.until(lambda: "✓ Server registered successfully" in client.log(), "registers")
        client.until(lambda: client.log().count("✓ Heartbeat successful") >= 2, "beats")
        self.assertEqual(3, self.daemon.status()[self.backend.address]["weight"])
        self.assertEqual(b"backend", ask(self.daemon.http).body)
        self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        client.until(lambda: client.log().count("✓ Server registered") == 2, "registers again")
        self.assertEqual(0, client.stop())

    def test_manage(self) -> None:
        """Each order does what it says, and its exit status tells whether."""
        server = (LOOPBACK, str(self.backend.port))
        self.assertEqual(1, self.manage("remove", *server)[0])
        self.assertEqual(0, self.manage("add", *server, "2", "50")[0])
        shown = self.daemon.status()[self.backend.address]
        self.assertEqual((2, 50), (shown["weight"], shown["max_conns"]))
        self.assertEqual(0, self.manage("refresh", *server)[0])
        self.assertEqual(0, self.manage("disable", *server)[0])
        self.assertEqual("disabled", self.daemon.state(self.backend.address))
        self.assertEqual(0, self.manage("enable", *server)[0])
        self.assertEqual("up", self.daemon.state(self.backend.address))
        self.assertEqual(0, self.manage("remove", *server)[0])
        self.assertEqual({}, self.daemon.status())
        self.assertEqual(2, self.manage("add")[0])
        self.daemon.process.stop()
        self.assertEqual(3, self.manage("status")[0])

    def test_batch(self) -> None:
        """Without a word it does what the first script did."""
        code, said = self.manage()
        self.assertEqual(0, code, said)
        shown = json.loads(said.partition("Final server status:\n")[2])
        self.assertEqual(BATCH, [server["addr"] for server in shown["data"]])
        wait_until(lambda: sorted(self.daemon.status()) == BATCH, "three servers")
