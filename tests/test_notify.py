"""What the service manager is told."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.notify import Notifier, silent


class NotifierTests(SynchronousTestCase):
    """The words, and the socket that they go to."""

    def setUp(self) -> None:
        self.clock = Clock()
        directory = tempfile.mkdtemp(prefix="dynbalance-notify-")
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "notify")

    def manager(self, address: str) -> socket.socket:
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.setblocking(False)
        manager.bind(address)
        return manager

    def heard(self, manager: socket.socket) -> list[str]:
        words = []
        while True:
            try:
                words.append(manager.recv(4096).decode())
            except BlockingIOError:
                return words

    def notifier(self, **environ: str) -> Notifier:
        self.environ = {"PATH": "/bin", **environ}
        return Notifier.of(self.environ, 77, self.clock)

    def test_words(self) -> None:
        """The start, a reload and the end, each in one datagram."""
        manager = self.manager(self.path)
        said = self.notifier(NOTIFY_SOCKET=self.path)
        said.ready("serves")
        self.clock.advance(12.5)
        said.reloading()
        said.stopping("ends", 47.0)
        self.assertEqual(
            [
                "READY=1\nSTATUS=serves",
                "RELOADING=1\nMONOTONIC_USEC=12500000",
                "STOPPING=1\nSTATUS=ends\nEXTEND_TIMEOUT_USEC=47000000",
            ],
            self.heard(manager),
        )

    def test_abstract(self) -> None:
        """C{@} stands for a name that is no file's."""
        name = f"dynbalance-test-{os.getpid()}"
        manager = self.manager(f"\0{name}")
        self.notifier(NOTIFY_SOCKET=f"@{name}").ready("serves")
        self.assertEqual(["READY=1\nSTATUS=serves"], self.heard(manager))

    def test_watchdog(self) -> None:
        """From the start to the end it beats, twice as often as it has to."""
        name = f"dynbalance-test-{os.getpid()}"
        manager = self.manager(f"\0{name}")
        said = self.notifier(
            NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="20000000", WATCHDOG_PID="77"
        )
        self.clock.advance(60.0)
        self.assertEqual([], self.heard(manager))
        said.ready("serves")
        said.ready("again")
        self.heard(manager)
        self.clock.advance(10.0)
        self.clock.advance(10.0)
        self.assertEqual(["WATCHDOG=1", "WATCHDOG=1"], self.heard(manager))
        said.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_watchdog_of_another(self) -> None:
        """A watchdog that is another process's, or that nobody reads, is none of ours."""
        name = f"dynbalance-test-{os.getpid()}"
        self.manager(f"\0{name}")
        for environ in (
            {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "78"},
            {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "1000"},
        ):
            self.notifier(**environ).ready("serves")
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_environment(self) -> None:
        """What was meant for this process is not left to its children."""
        self.notifier(NOTIFY_SOCKET="@x", WATCHDOG_USEC="1000", WATCHDOG_PID="77")
        self.assertEqual({"PATH": "/bin"}, self.environ)

    def test_nobody(self) -> None:
        """Without a manager nothing is said; one that is gone stops nothing."""
        silent(self.clock).ready("serves")
        self.notifier(NOTIFY_SOCKET="vsock:2:1234").ready("serves")
        self.notifier(NOTIFY_SOCKET=self.path).ready("serves")
