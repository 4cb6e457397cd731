"""
The daemon under a service manager, with a stand-in for systemd's socket, and the
unit that systemd is given.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import sys

from tests.endtoend.daemon import TWISTD, Daemon, endpoint
from tests.endtoend.harness import LOOPBACK, ROOT, EndToEndCase, ask, free_port, run

BEATS = 100
UNIT = ROOT / "etc" / "dynbalance.service"


ACTIVATED = f"""
import os, socket
skt = socket.socket()
skt.bind(("{LOOPBACK}", {{port}}))
skt.listen(100)
os.dup2(skt.fileno(), 3)
os.environ |= {{{{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}}}}
from twisted.scripts.twistd import run
run()
"""
"""What systemd does before it starts a service with a socket."""


class Manager:
    """
    Stands in for the manager.

    @ivar environment: what it gives a service.
    """

    def __init__(self, case: EndToEndCase, watchdog: float) -> None:
        path = os.path.join(case.directory("manager"), "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self._socket.settimeout(20.0)
        self._socket.bind(path)
        self.environment = {
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": str(int(watchdog * 1_000_000)),
        }

    def next(self, but: str = "WATCHDOG=1") -> dict[str, str]:
        """The next word that is not this one."""
        for _ in range(BEATS):
            word = self._socket.recv(4096).decode()
            if word != but:
                return dict(line.split("=", 1) for line in word.split("\n"))
        raise AssertionError(f"nothing but {BEATS} times {but}")


class NotifyTests(EndToEndCase):
    """C{Type=notify}."""

    def test_life(self) -> None:
        """It says when it serves, lives, reloads and ends."""
        manager = Manager(self, 0.4)
        daemon = Daemon(self, environment=manager.environment)
        self.assertEqual("1", manager.next()["READY"])
        self.assertEqual({"WATCHDOG": "1"}, manager.next(but=""))
        self.assertEqual({"WATCHDOG": "1"}, manager.next(but=""))
        daemon.edit("routes =", "mount_admin = true\nroutes =")
        daemon.reload()
        began = manager.next()
        self.assertEqual("1", began["RELOADING"])
        self.assertGreater(int(began["MONOTONIC_USEC"]), 0)
        self.assertEqual("1", manager.next()["READY"])
        daemon.edit("[admin]", "[nonsense]\n[admin]")
        daemon.reload("nothing has changed")
        self.assertEqual("1", manager.next()["RELOADING"])
        self.assertEqual("1", manager.next()["READY"])
        daemon.process.signal(signal.SIGTERM)
        last = manager.next()
        self.assertEqual("1", last["STOPPING"])
        self.assertGreater(int(last["EXTEND_TIMEOUT_USEC"]), 30_000_000)
        self.assertEqual(0, daemon.process.wait())

    def test_nobody_listens(self) -> None:
        """A manager that is gone keeps nobody from serving."""
        where = os.path.join(self.directory("nothing"), "notify")
        daemon = Daemon(self, environment={"NOTIFY_SOCKET": where})
        self.assertEqual(200, ask(daemon.admin, "/healthz").status)
        self.assertEqual(1, daemon.process.log().count("does not hear"))


class SocketTests(EndToEndCase):
    """Sockets that systemd has opened."""

    def test_reloads_and_takeover(self) -> None:
        """
        One that the file names no more is kept for when it names it again, and a
        new process is given it as any other.
        """
        port, other, admin = free_port(), free_port(), free_port()
        lent, own = "systemd:domain=INET:name=http", endpoint(other)
        place = pathlib.Path(self.directory("activated"))
        file = place / "dynbalance.toml"

        def write(listen: str) -> None:
            file.write_text(f"""
                store.url = "memory:"
                http = [{{ listen = "{listen}" }}]
                upstreams.default.servers = [{{ address = "{LOOPBACK}:{admin}" }}]
                admin = {{ listen = "{endpoint(admin)}" }}
            """)

        write(lent)
        rest = ["-n", "--pidfile=", "dynbalance", "-c", file.name]
        first = self.start(
            "activated", [sys.executable, "-c", ACTIVATED.format(port=port), *rest], str(place)
        )
        first.until(lambda: "serves as" in first.log(), "serves")
        for listen, where in ((own, other), (lent, port)):
            write(listen)
            followed = first.log().count("is followed")
            first.signal(signal.SIGHUP)
            first.until(lambda n=followed: first.log().count("is followed") > n, "reloads")
            self.assertEqual(200, ask(where, "/healthz").status)
        second = self.start("second", [*TWISTD, *rest], str(place))
        second.until(lambda: "serves as" in second.log(), "serves")
        self.assertEqual(0, first.wait())
        self.assertEqual(200, ask(port, "/healthz").status)
        self.assertEqual(0, second.stop())
        third = self.start("third", [*TWISTD, *rest], str(place))
        self.assertEqual(1, third.wait())
        self.assertIn("systemd has opened no such socket", third.log())


class UnitTests(EndToEndCase):
    """C{etc/dynbalance.service}."""

    def test_verified(self) -> None:
        """systemd finds nothing wrong with it."""
        directory = pathlib.Path(self.directory("unit"))
        text = UNIT.read_text()
        # Programs and pages are where it says on the machines that it is for.
        for there, here in (
            ("/opt/dynbalance/bin/twistd", "/bin/true"),
            ("file:///opt/dynbalance/README.rst", f"file://{ROOT}/README.rst"),
        ):
            self.assertIn(there, text)
            text = text.replace(there, here)
        unit = directory / "dynbalance.service"
        unit.write_text(text)
        self.assertEqual("", run("systemd-analyze", "verify", str(unit)))

    def test_exposure(self) -> None:
        """It lets the daemon do little else: systemd gives it 2.0 of 10 at most."""
        run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT))
