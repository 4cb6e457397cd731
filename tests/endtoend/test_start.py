"""
How the daemon starts, and how it refuses to.
"""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess

from tests.endtoend.daemon import TWISTD, Daemon, endpoint
from tests.endtoend.harness import (
    BOUND,
    LOOPBACK,
    ROOT,
    EndToEndCase,
    Program,
    accepts,
    ask,
    free_port,
    wait_until,
)
from tests.endtoend.servers import Backend


class CommandCase(EndToEndCase):
    """A command line in a directory of its own, for starts that end by themselves."""

    def setUp(self) -> None:
        self.place = self.directory("start")
        self.http, self.stream, self.admin = free_port(), free_port(), free_port()

    def path(self, name: str) -> str:
        return os.path.join(self.place, name)

    def twistd(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TWISTD, *words],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    def listeners(self) -> list[str]:
        """Options for ports of our own."""
        return [
            *("--http", endpoint(self.http), "--stream", endpoint(self.stream)),
            *("--admin", endpoint(self.admin)),
        ]


class RefusedTests(CommandCase):
    """Starts that cannot be."""

    def refuse(self, text: str, *options: str) -> list[str]:
        """
        Start with a file and be refused.

        @return: what was said, by line.
        """
        with open(self.path("c.toml"), "w") as out:
            out.write(text)
        done = self.twistd("-n", "dynbalance", "-c", "c.toml", *options)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertEqual(["c.toml"], os.listdir(self.place))
        for port in (self.http, self.stream, self.admin):
            self.assertFalse(accepts(port))
        return done.stderr.splitlines()

    def test_mistakes(self) -> None:
        """All mistakes of the file and of the command line have a line each."""
        text = """
            workerz = 1
            [upstreams.api]
            servers = [{ address = "127.0.0.1:80" }, { address = "127.0.0.1:70000" }]
            [[http]]
            upstraem = "api"
            keepalive_requests = -1
        """
        self.assertEqual(
            [
                "--stream",
                "http[0].keepalive_requests",
                "http[0].upstraem",
                "upstreams.api.servers[1].address",
                "workers",
                "workerz",
            ],
            sorted(
                re.sub(r"^dynbalance: ([^:]*): .+$", r"\1", line)
                for line in self.refuse(text, "--workers", "1025", "--stream", "tcp:0x")
            ),
        )

    def test_words(self) -> None:
        """The line says what is wrong."""
        self.assertEqual(
            [
                "dynbalance: upstreams.api.servers[0].address: port 70000 is not in 1-65535",
            ],
            self.refuse('[upstreams.api]\nservers = [{ address = "127.0.0.1:70000" }]\n'),
        )

    def test_not_toml(self) -> None:
        """A file that is no TOML is one mistake."""
        (line,) = self.refuse("listen = [")
        self.assertTrue(line.startswith("dynbalance: --config: c.toml: "), line)

    def test_no_file(self) -> None:
        """So is a file that is not there."""
        done = self.twistd("-n", "dynbalance", "--config", "none.toml")
        self.assertEqual(1, done.returncode)
        self.assertEqual(
            "dynbalance: --config: none.toml: No such file or directory\n", done.stderr
        )
        self.assertEqual([], os.listdir(self.place))

    def test_unknown_option(self) -> None:
        """And an option that does not exist."""
        done = self.twistd("-n", "dynbalance", "--htpp", "tcp:1")
        self.assertEqual(1, done.returncode)
        self.assertEqual(1, len(done.stderr.splitlines()))
        self.assertIn("--htpp", done.stderr)

    def test_open_admin(self) -> None:
        """An admin listener that other machines reach needs to know whom to let in."""
        (line,) = self.refuse(f'[admin]\nlisten = "tcp:{self.admin}"\n')
        self.assertTrue(line.startswith("dynbalance: admin.listen: "), line)

    def test_open_mounted_admin(self) -> None:
        """So does a traffic listener with the admin API on it."""
        (line,) = self.refuse(f'[[http]]\nlisten = "tcp:{self.http}"\nmount_admin = true\n')
        self.assertTrue(line.startswith("dynbalance: http[0]."), line)

    def test_port_in_use(self) -> None:
        """A port that somebody has is named, and the other ports are given back."""
        with socket.socket() as other:
            other.bind((LOOPBACK, self.http))
            other.listen()
            words = ("--pidfile=pid", "dynbalance", "--store", "memory:", *self.listeners())
            done = self.twistd("-n", *words)
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        (line,) = [line for line in said.splitlines() if "dynbalance: " in line]
        self.assertIn(f"dynbalance: http[0].listen: {endpoint(self.http)}: ", line)
        self.assertIn("Address already in use", line)
        self.assertNotIn("Traceback", said)
        self.assertEqual([], os.listdir(self.place))
        self.assertFalse(accepts(self.stream) or accepts(self.admin))

    def test_no_store_program(self) -> None:
        """Without a server program on the path the embedded store says so, and how to get one."""
        done = subprocess.run(
            [*TWISTD, "-n", "--pidfile=", "dynbalance", *self.listeners()],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": self.place},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        (line,) = [line for line in said.splitlines() if "dynbalance: store.url: " in line]
        self.assertIn("dynbalance[embedded]", line)
        self.assertNotIn("Traceback", said)


class DaemonizedTests(CommandCase):
    """Without C{-n}."""

    def words(self, *options: str) -> list[str]:
        return [
            *("--pidfile=pid", "--logfile=log", "dynbalance", "--store", "memory:"),
            *(*self.listeners(), *options),
        ]

    def kill(self, pid: int) -> None:
        if gone(pid):
            return
        os.kill(pid, signal.SIGKILL)

    def test_serves(self) -> None:
        """It goes into the background, writes its process id, serves, and ends by TERM."""
        done = self.twistd(*self.words())
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        pid = int(pathlib.Path(self.path("pid")).read_text())
        self.addCleanup(self.kill, pid)
        # The parent returns when the ports are bound: nobody is refused.
        self.assertEqual(200, ask(self.admin, "/healthz").status)
        backend = Backend(self)
        self.assertEqual(200, ask(self.admin, f"/upstream/add?port={backend.port}", "POST").status)
        self.assertEqual(b"backend", ask(self.http).body)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: gone(pid), "it to end")
        self.assertEqual(["log"], os.listdir(self.place))
        log = pathlib.Path(self.path("log")).read_text()
        self.assertIn("dynbalance has ended", log)
        self.assertNotIn("Traceback", log)

    def test_port_in_use(self) -> None:
        """The parent's status says that the start was refused, the log says why."""
        with socket.socket() as other:
            other.bind((LOOPBACK, self.stream))
            other.listen()
            done = self.twistd(*self.words())
        self.assertEqual(1, done.returncode)
        self.assertIn("stream[0].listen", done.stderr)
        # The parent does not wait for the child's last words.
        log = pathlib.Path(self.path("log"))
        line = f"stream[0].listen: {endpoint(self.stream)}: "
        wait_until(lambda: line in log.read_text(), "the line in the log")
        wait_until(lambda: os.listdir(self.place) == ["log"], "the process id to be removed")
        self.assertNotIn("Traceback", log.read_text())


def gone(pid: int) -> bool:
    """Whether there is no such process any more."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class EmbeddedTests(EndToEndCase):
    """The store that comes with the daemon, as it is by default."""

    def setUp(self) -> None:
        self.state = self.directory("state")
        self.backend = Backend(self)

    def begin(self, *options: str) -> Daemon:
        return Daemon(self, "embedded:", options=("--state-dir", self.state, *options))

    def child(self, daemon: Daemon) -> int:
        """The process id of the store's server."""
        children = pathlib.Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        (pid,) = wait_until(lambda: children.read_text().split(), "the store's server")
        return int(pid)

    def test_demo(self) -> None:
        """Three servers register themselves and answer; with the daemon they go."""
        daemon = self.begin("--demo")
        wait_until(lambda: len(daemon.status()) == 3, "three servers")
        bodies = {ask(daemon.http, "/x").body.decode() for _ in range(60)}
        self.assertEqual(
            [f"Demo server {name} answers GET /x\n" for name in ("ada", "ben", "cleo")],
            sorted(bodies),
        )
        self.assertTrue(all(shown["is_active"] for shown in daemon.status().values()))
        self.assertEqual(0, daemon.process.stop())
        daemon.start()
        wait_until(lambda: len(daemon.status()) == 3, "only three servers again")

    def test_survives_a_restart(self) -> None:
        """What the API was told is still known after the end and another start."""
        daemon = self.begin()
        daemon.add(self.backend.port, weight=7, heartbeat="false")
        child = self.child(daemon)
        self.assertEqual(0, daemon.process.stop())
        self.assertTrue(gone(child))
        # Asked to end, not cut off by the end of its parent.
        self.assertIn("bye bye", read(pathlib.Path(self.state, "store", "server.log")))
        daemon.start()
        self.assertEqual(b"backend", ask(daemon.http).body)
        self.assertEqual(7, daemon.status()[self.backend.address]["weight"])

    def test_private(self) -> None:
        """Its directory is the owner's alone, and it has no TCP port."""
        daemon = self.begin()
        child = self.child(daemon)
        mode = os.stat(os.path.join(self.state, "store")).st_mode & 0o777
        self.assertEqual(0o700, mode)
        sockets = set()
        for entry in os.listdir(f"/proc/{child}/fd"):
            link = os.readlink(f"/proc/{child}/fd/{entry}")
            sockets.update(re.findall(r"socket:\[(\d+)\]", link))
        with open("/proc/net/tcp") as tcp, open("/proc/net/tcp6") as tcp6:
            inodes = {line.split()[9] for line in [*tcp, *tcp6]}
        self.assertEqual(set(), sockets & inodes)

    def test_killed(self) -> None:
        """A server that dies is started again, with all that it knew."""
        daemon = self.begin()
        daemon.add(self.backend.port, heartbeat="false")
        # It writes to the disk every second.
        child = self.child(daemon)
        log = os.path.join(self.state, "store", "appendonlydir")
        wait_until(
            lambda: any(self.backend.address in read(path) for path in pathlib.Path(log).iterdir()),
            "the server to be on the disk",
        )
        os.kill(child, signal.SIGKILL)
        for _ in range(20):
            self.assertEqual(200, ask(daemon.http).status)
        wait_until(lambda: gone(child) and self.child(daemon) != child, "another server")
        wait_until(
            lambda: ask(daemon.admin, "/upstream/health").status == 200, "the store to be back"
        )
        self.assertEqual([self.backend.address], list(daemon.status()))

    def test_daemon_killed(self) -> None:
        """With a daemon that is killed its server goes too, and the next start works."""
        daemon = self.begin()
        daemon.add(self.backend.port, heartbeat="false")
        child = self.child(daemon)
        daemon.process.kill()
        wait_until(lambda: gone(child), "the store's server to end")
        daemon.start()
        self.assertEqual(200, ask(daemon.admin, "/upstream/health").status)

    def test_two_daemons(self) -> None:
        """A directory that another daemon uses is refused in one line."""
        daemon = self.begin()
        other = Daemon(
            self, "embedded:", "other", options=("--state-dir", self.state), wait=False
        )
        self.assertEqual(1, other.process.wait())
        (line,) = [line for line in other.process.log().splitlines() if "store.url" in line]
        self.assertIn(f"process {daemon.process.pid}", line)
        self.assertNotIn("Traceback", other.process.log())
        self.assertEqual(200, ask(daemon.admin, "/upstream/health").status)


def read(path: pathlib.Path) -> str:
    return path.read_text(errors="replace")


class LateFailureTests(EndToEndCase):
    """What goes wrong when the ports are bound already."""

    def test_status(self) -> None:
        """A start that fails late ends with status 1, for who would start it again."""
        modules = self.directory("modules")
        with open(os.path.join(modules, "sitecustomize.py"), "w") as out:
            out.write(
                "from dynbalance.store.memory import MemoryStore\n"
                "from twisted.internet.defer import fail\n"
                "MemoryStore.open = lambda self: fail(OSError('no such thing'))\n"
            )
        process = Daemon(self, modules=modules, wait=False).process
        self.assertEqual(1, process.wait())
        self.assertIn("the start failed", process.log())

    def assert_no_traceback(self, started: Program) -> None:
        """It is a mistake of ours that has its traceback here."""


class HelpTests(CommandCase):
    """What twistd says of dynbalance."""

    def test_listed(self) -> None:
        """It is among twistd's commands."""
        done = self.twistd("--help")
        self.assertEqual(0, done.returncode)
        self.assertIn("\n    dynbalance ", done.stdout)

    def test_options(self) -> None:
        """Each option is explained."""
        done = self.twistd("dynbalance", "--help")
        for option in ("config", "http", "stream", "admin", "store", "state-dir", "workers"):
            self.assertIn(f"--{option}=", done.stdout)
        self.assertIn("--demo", done.stdout)
        self.assertEqual([], os.listdir(self.place))

    def test_example(self) -> None:
        """The example file starts a daemon as it is, but for its addresses."""
        example = (pathlib.Path(__file__).parents[2] / "etc" / "dynbalance.toml").read_text()
        for theirs, ours in (
            ("tcp:8080", self.http),
            ("tcp:10000", self.stream),
            ("tcp:8081:interface=127.0.0.1", self.admin),
        ):
            line = f'#listen = "{theirs}"\n'
            self.assertEqual(1, example.count(line))
            example = example.replace(line, f'listen = "{endpoint(ours)}"\n')
        with open(self.path("c.toml"), "w") as out:
            out.write(example)
        state = self.directory("state")
        command = [*TWISTD, "-n", "--pidfile=", "dynbalance", "-c", "c.toml", "--state-dir", state]
        daemon = self.start("example", command, self.place)
        daemon.until(lambda: "serves as" in daemon.log(), "serves")
        self.assertEqual(200, ask(self.admin, "/upstream/status").status)
        self.assertEqual(502, ask(self.http).status)
        self.assertEqual(0, daemon.stop())
