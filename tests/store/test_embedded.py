"""
Tests for L{dynbalance.store.embedded} with a real server.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from dynbalance.errors import StoreUnavailable, StoreUnusable
from dynbalance.store.embedded import AGAIN, EmbeddedStore
from tests.store.contract_suite import A, StoreContract, order
from tests.store.history_suite import HistoryContract
from tests.store.real import DEADLINE, Client, age

clock: Any = reactor


def embedded(state_dir: str) -> EmbeddedStore:
    """A store with the system's server, whatever bundle is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program, "these tests need redis-server or valkey-server"
    return EmbeddedStore(state_dir, reactor, program=program)


def lives(pid: int) -> bool:
    """Whether a process is there and not just waiting to be told of."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition: Any) -> None:
    """Wait for C{condition()}, within bounds."""
    end = clock.seconds() + DEADLINE
    while not condition():
        assert clock.seconds() < end, "it did not happen"
        await deferLater(clock, 0.01)


class EmbeddedContractTests(StoreContract, HistoryContract, TestCase):
    """The embedded store keeps the contract."""

    directory: str

    def setUp(self) -> Any:
        self.directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.store = embedded(self.directory)
        return self.store.open()

    def tearDown(self) -> Any:
        return self.store.close()

    async def elapse(self, seconds: float) -> None:
        client = Client(os.path.join(self.directory, "store", "server.sock"))
        age(client, seconds)
        client.close()


class EmbeddedStoreTests(TestCase):
    """The server's life."""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="dynbalance test ")
        self.addCleanup(shutil.rmtree, self.directory)

    async def opened(self, directory: str | None = None) -> EmbeddedStore:
        """A store that is closed at the end."""
        store = embedded(directory or self.directory)
        self.addCleanup(store.close)
        await store.open()
        self.assertTrue(store.available)
        return store

    async def test_kept(self) -> None:
        """What was stored is there at the next start."""
        first = await self.opened()
        await first.add("default", order(), "ops")
        await first.close()
        second = await self.opened()
        self.assertEqual(A, (await second.snapshot("default")).servers[0].order.address)

    async def test_closed(self) -> None:
        """A closed store leaves no process, and calls fail at once."""
        store = await self.opened()
        pid = store.pid or 0
        await store.close()
        self.assertFalse(lives(pid))
        self.assertIsNone(store.pid)
        await self.assertFailure(store.snapshot("default"), StoreUnavailable)

    async def test_private(self) -> None:
        """Nobody else can enter the server's directory."""
        await self.opened()
        inside = os.path.join(self.directory, "store")
        self.assertEqual(0o700, stat.S_IMODE(os.stat(inside).st_mode))
        self.assertTrue(stat.S_ISSOCK(os.stat(os.path.join(inside, "server.sock")).st_mode))

    async def test_own_session(self) -> None:
        """The server does not hear what a terminal tells the daemon's processes."""
        store = await self.opened()
        self.assertNotEqual(os.getsid(0), os.getsid(store.pid or 0))
        self.assertEqual(store.pid, os.getpgid(store.pid or 0))

    async def test_no_port(self) -> None:
        """The server listens on its socket alone, and writes every change down."""
        await self.opened()
        client = Client(os.path.join(self.directory, "store", "server.sock"))
        self.addCleanup(client.close)
        settings = {}
        for name in ("port", "appendonly", "appendfsync", "save"):
            settings |= client.pairs("CONFIG", "GET", name)
        self.assertEqual(
            {"port": "0", "appendonly": "yes", "appendfsync": "everysec", "save": ""}, settings
        )

    async def test_killed_server(self) -> None:
        """A server that dies is started again with its data."""
        store = await self.opened()
        await store.add("default", order(), "ops")
        pid = store.pid or 0
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not store.available)
        await self.assertFailure(store.snapshot("default"), StoreUnavailable)
        await until(lambda: store.available)
        self.assertNotEqual(pid, store.pid)
        self.assertEqual(1, len((await store.snapshot("default")).servers))
        self.flushLoggedErrors()

    async def test_stopped_server(self) -> None:
        """A server that does not end when it is asked to is made to."""
        self.patch(sys.modules["dynbalance.store.child"], "PATIENCE", 0.1)
        store = await self.opened()
        pid = store.pid or 0
        os.kill(pid, signal.SIGSTOP)
        await store.close()
        self.assertFalse(lives(pid))

    async def test_two_daemons(self) -> None:
        """A second daemon on the same state directory is refused, and changes nothing."""
        first = await self.opened()
        second = embedded(self.directory)
        error = await self.assertFailure(second.open(), StoreUnusable)
        self.assertIn(f"used by another dynbalance, process {os.getpid()}", str(error))
        await second.close()
        self.assertEqual(0, (await first.snapshot("default")).revision)
        await first.close()
        await self.opened()

    async def test_taken_back(self) -> None:
        """What was let go is had back with its data, as soon as nobody else keeps it."""
        first = await self.opened()
        await first.add("default", order(), "ops")
        await first.let_go()
        second = embedded(self.directory)
        second.claim()
        back = first.take_back()
        await deferLater(clock, 2 * AGAIN)
        self.assertNoResult(back)
        await second.close()
        await back
        await until(lambda: first.available)
        self.assertEqual(A, (await first.snapshot("default")).servers[0].order.address)

    async def test_closed_while_taken_back(self) -> None:
        """A store that is closed meanwhile has no server any more."""
        first = await self.opened()
        await first.let_go()
        second = embedded(self.directory)
        second.claim()
        back = first.take_back()
        await first.close()
        await second.close()
        await back
        self.assertIsNone(first.pid)

    async def test_long_path(self) -> None:
        """A state directory too deep for a socket is fine; the socket is elsewhere."""
        deep = os.path.join(self.directory, "d" * 60, "e" * 60)
        store = await self.opened(deep)
        self.assertEqual(0, (await store.snapshot("default")).revision)
        (option,) = [word for word in store._command("x") if word.endswith(".sock")]
        self.assertEqual(0o700, stat.S_IMODE(os.stat(os.path.dirname(option)).st_mode))
        await store.close()
        self.assertFalse(os.path.exists(os.path.dirname(option)))

    async def test_unusable_directory(self) -> None:
        """A state directory that cannot be made is refused with its name."""
        blocker = os.path.join(self.directory, "file")
        Path(blocker).write_text("")
        error = await self.assertFailure(embedded(blocker).open(), StoreUnusable)
        self.assertIn(blocker, str(error))

    async def test_killed_daemon(self) -> None:
        """The server dies with a daemon that is killed, and the next one finds its data."""
        script = (
            "import sys\n"
            "from twisted.internet import reactor\n"
            "from tests.store.contract_suite import order\n"
            "from tests.store.test_embedded import embedded\n"
            "store = embedded(sys.argv[1])\n"
            "def opened(_):\n"
            "    return store.add('default', order(), 'ops')\n"
            "def added(_):\n"
            "    print(store.pid, flush=True)\n"
            "store.open().addCallback(opened).addCallback(added)\n"
            "reactor.run()\n"
        )
        daemon = subprocess.Popen(
            [sys.executable, "-c", script, self.directory],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        self.assertTrue(lives(pid))
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        end = time.monotonic() + DEADLINE
        while lives(pid):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        store = await self.opened()
        self.assertEqual(1, len((await store.snapshot("default")).servers))

    async def test_closed_while_opening(self) -> None:
        """A store that is closed before its server is ready leaves nothing."""
        store = embedded(self.directory)
        opening = store.open()
        await store.close()
        await opening
        self.assertIsNone(store.pid)
