"""Tests of the shell scripts in C{etc} against a real admin site."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.admin.sitecase import SiteCase

ETC = Path(__file__).parent.parent.parent / "etc"


class _Watched(ProcessProtocol):
    """
    A program whose output is watched.

    @ivar said: what it printed so far.
    @ivar ended: fires with its exit status, or minus the signal.
    """

    def __init__(self) -> None:
        self.said = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.said += data.decode()
        for text, deferred in self._waiting:
            if text in self.said and not deferred.called:
                deferred.callback(None)

    def says(self, text: str) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self._waiting.append((text, deferred))
        self.childDataReceived(1, b"")
        return deferred.addTimeout(20, reactor)

    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        assert isinstance(value, (ProcessDone, ProcessTerminated))
        self.ended.callback(value.exitCode if value.exitCode is not None else -value.signal)


class HeartbeatClientTests(SiteCase):
    def start(self, **environ: str) -> _Watched:
        """Start the client; it is ended with the test."""
        watched = _Watched()
        script = str(ETC / "heartbeat_client.sh")
        environ = {"PATH": os.environ["PATH"], "BASE_URL": self.url, **environ}
        process = reactor.spawnProcess(watched, "sh", ["sh", script], env=environ)

        async def end() -> None:
            if process.pid is not None:
                process.signalProcess("KILL")
                await watched.ended

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        watched.process = process
        return watched

    async def test_registers_and_beats(self) -> None:
        """An unknown server is registered, then it beats; the host is the caller's address."""
        watched = self.start(PORT="8080", INTERVAL="1", WEIGHT="3")
        await watched.says("✓ Heartbeat successful: Heartbeat refreshed successfully")
        self.assertIn("✗ Heartbeat failed: Server not found: 127.0.0.1:8080", watched.said)
        self.assertIn("✓ Server registered successfully", watched.said)
        server = self.balancer.upstream("default").server("127.0.0.1:8080")
        assert server is not None
        self.assertEqual(server.weight, 3)

    async def test_ends_at_once(self) -> None:
        """TERM ends it in the middle of a long pause, and its pause with it."""
        for name in ("TERM", "INT", "HUP"):
            watched = self.start(HOST="10.0.0.1", INTERVAL="1000")
            await watched.says("✓ Server registered successfully")
            watched.process.signalProcess(name)
            # The pipe would stay open as long as the pause lives.
            self.assertEqual(await watched.ended.addTimeout(5, reactor), 0)
            self.assertIn("Heartbeat client stopped", watched.said)
            await self.curl(f"{self.url}/upstream/remove", "-d", "host=10.0.0.1&port=8080")

    async def test_says_why_it_fails(self) -> None:
        """What dynbalance refuses is printed, and a dead dynbalance is survived."""
        refused = self.start(PORT="0")
        await refused.says("✗ Heartbeat failed: Invalid port number: 0")
        refused.process.signalProcess(signal.SIGTERM)
        lost = self.start(BASE_URL="http://127.0.0.1:1", INTERVAL="0.1")
        await lost.says("✗ Heartbeat failed: curl: (7)")
        before = len(lost.said)
        while "Heartbeat failed" not in lost.said[before:]:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.02, turn.callback, None)
            await turn


class ManageServersTests(SiteCase):
    async def manage(self, *arguments: str, **environ: str) -> tuple[str, int]:
        script = str(ETC / "manage_servers.sh")
        return await self.run_program("sh", script, *arguments, BASE_URL=self.url, **environ)

    async def test_commands(self) -> None:
        """Each command does what its name says, and exits 0."""
        said, status = await self.manage("add", "10.0.0.1", "80", "2", "50")
        self.assertEqual((said.splitlines()[0], status), ("Adding server: 10.0.0.1:80", 0))
        server = self.balancer.upstream("default").server("10.0.0.1:80")
        assert server is not None
        self.assertEqual((server.weight, server.max_conns), (2, 50))
        for command, text in (
            ("refresh", "Heartbeat refreshed successfully"),
            ("disable", "Server disabled successfully"),
            ("enable", "Server enabled successfully"),
            ("status", "10.0.0.1:80"),
            ("remove", "Server removed successfully"),
        ):
            arguments = () if command == "status" else ("10.0.0.1", "80")
            said, status = await self.manage(command, *arguments)
            self.assertEqual(status, 0, said)
            self.assertIn(text, said)
        self.assertEqual(self.keys(), [])

    async def test_from_the_environment(self) -> None:
        """HOST and PORT stand in for arguments; no HOST is the caller's address."""
        await self.manage("add", HOST="10.0.0.2", PORT="81")
        await self.manage("add", PORT="82")
        self.assertEqual(self.keys(), ["10.0.0.2:81", "127.0.0.1:82"])

    async def test_batch(self) -> None:
        """Without a command it adds and refreshes a batch, as the seed's script did."""
        said, status = await self.manage()
        self.assertEqual(status, 0, said)
        self.assertEqual(len(self.keys()), 3)
        self.assertEqual(said.count("Heartbeat refreshed successfully"), 3)
        self.assertIn("Final server status:", said)
        said, status = await self.manage()
        self.assertEqual((status, said.count("Server already exists")), (1, 3))

    async def test_exit_status(self) -> None:
        """1 for a refusal, 2 for a wrong use, 3 for no answer."""
        said, status = await self.manage("remove", "10.0.0.1", "80")
        self.assertEqual(status, 1)
        self.assertIn("Server not found: 10.0.0.1:80", said)
        printed, _ = await self.run_program(
            "sh",
            "-c",
            '"$0" nonsense 2>/dev/null; echo $?; "$0" add 2>/dev/null; echo $?;'
            ' BASE_URL=http://127.0.0.1:1 "$0" status 2>/dev/null; echo $?',
            str(ETC / "manage_servers.sh"),
        )
        self.assertEqual(printed.split(), ["2", "2", "3"])

    async def test_odd_arguments_are_only_text(self) -> None:
        """What a shell or a form could misread reaches the API as it is."""
        said, status = await self.manage("add", "a&port=1 $(id) '\"", "80")
        self.assertEqual(status, 1)
        self.assertIn("Invalid host: ", said)
        self.assertEqual(self.keys(), [])
