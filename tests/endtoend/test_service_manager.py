"""
The daemon under a service manager, with a stand-in for systemd's socket, and the
unit that systemd is given.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import ROOT, EndToEndCase, ask, run

BEATS = 100
UNIT = ROOT / "etc" / "dynbalance.service"


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
