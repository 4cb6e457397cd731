"""
Tests for L{dynbalance.store.keeper}.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.store import snapshotfile
from dynbalance.store.contract import Snapshot
from dynbalance.store.keeper import AGAIN, FAREWELL, PAUSE, Keeper
from dynbalance.store.membership import Membership
from dynbalance.store.snapshotfile import Kept
from tests.health.stores import DoorStore, order
from tests.temporary import Temporary


class _Pool:
    """Threads that do at once what they are asked to, or when they are told to."""

    def __init__(self) -> None:
        self.held: list[Any] | None = None

    def callInThreadWithCallback(self, done: Any, what: Any, *args: Any) -> None:
        def work() -> None:
            try:
                result = what(*args)
            except OSError:
                from twisted.python.failure import Failure

                done(False, Failure())
            else:
                done(True, result)

        if self.held is None:
            work()
        else:
            self.held.append(work)


class _Reactor(Clock):
    """A clock with threads."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = _Pool()

    def getThreadPool(self) -> _Pool:
        return self.pool

    def callFromThread(self, what: Any, *args: Any) -> None:
        what(*args)


class KeeperTests(Temporary, TestCase):
    """A keeper of a membership on a memory store."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.reactor.advance(1000)
        self.directory = self.mktemp()
        self.store = DoorStore(self.reactor)
        self.writes: list[float] = []
        write = snapshotfile.write

        def counted(*args: Any) -> None:
            self.writes.append(self.reactor.seconds())
            write(*args)

        self.patch(snapshotfile, "write", counted)
        self.keeper, self.membership = self.node()

    def node(self, **more: Any) -> tuple[Keeper, Membership]:
        keeper = Keeper(self.directory, "here", self.reactor, self.reactor.seconds, **more)
        balancer = Balancer([UpstreamOrder(name="default")], self.reactor.seconds, lambda: 0.0)
        membership = Membership(
            balancer, self.store, "one", 10.0, 0.1, self.reactor, noted=keeper.note
        )
        self.upstream = balancer.upstream("default")
        return keeper, membership

    def add(self, port: int) -> None:
        self.successResultOf(self.store.inner.add("default", order(port), "test"))

    def begin(self) -> None:
        self.keeper.begin(self.membership)
        self.successResultOf(self.membership.start())

    def end(self) -> None:
        self.successResultOf(self.membership.stop())
        self.successResultOf(self.keeper.stop())
        self.assertEqual([], self.reactor.getDelayedCalls())

    def kept(self) -> Kept:
        kept = snapshotfile.read(self.keeper.path, "here")
        assert kept is not None
        return kept

    def servers(self) -> list[int]:
        return [server.order.port for server in self.kept().snapshots["default"].servers]

    def fail_writes(self) -> list[None]:
        """@return: gets an element with each write."""
        tried: list[None] = []

        def full(*args: Any) -> None:
            tried.append(None)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(snapshotfile, "write", full)
        return tried

    def test_writes_what_changed(self) -> None:
        """Each change of membership is written, and nothing without one."""
        self.add(9001)
        self.begin()
        self.reactor.advance(0)
        self.assertEqual([9001], self.servers())
        self.reactor.pump([0.1] * 50)
        self.assertEqual(1, len(self.writes))
        self.add(9002)
        self.reactor.pump([0.1] * 2)
        self.assertEqual([9001, 9002], self.servers())
        self.end()

    def test_not_too_often(self) -> None:
        """However often it changes, it is written once a second, and the last state at last."""
        self.begin()
        for port in range(9001, 9031):
            self.add(port)
            self.reactor.advance(0.1)
        self.reactor.advance(PAUSE)
        gaps = [b - a for a, b in zip(self.writes, self.writes[1:], strict=False)]
        self.assertGreaterEqual(min(gaps), PAUSE - 1e-6)
        self.assertLessEqual(len(self.writes), 5)
        self.assertEqual(30, len(self.servers()))
        self.end()

    def test_long_writes(self) -> None:
        """A write that takes long is followed by a long pause."""
        self.add(9001)
        self.reactor.pool.held = held = []
        self.begin()
        self.reactor.advance(0)
        (work,) = held
        self.add(9002)
        self.reactor.pump([0.1] * 5)
        work()
        self.add(9003)
        self.reactor.pump([0.1] * 90)
        self.assertEqual(1, len(held))
        self.reactor.pump([0.1] * 15)
        self.assertEqual(2, len(held))
        held[1]()
        self.assertEqual([9001, 9002, 9003], self.servers())
        self.end()

    def test_end(self) -> None:
        """What is new at the end is written before it ends."""
        self.begin()
        self.reactor.advance(0)
        self.add(9001)
        self.reactor.advance(0.1)
        self.end()
        self.assertEqual([9001], self.servers())

    def test_end_is_bounded(self) -> None:
        """A disk that hangs holds up the end for a limited time."""
        self.reactor.pool.held = []
        self.add(9001)
        self.begin()
        self.reactor.advance(0)
        self.successResultOf(self.membership.stop())
        ended = self.keeper.stop()
        self.assertNoResult(ended)
        self.reactor.advance(FAREWELL)
        self.successResultOf(ended)

    def test_disk_full(self) -> None:
        """A disk that takes nothing is logged once, tried again, and no reason not to end."""
        tried = self.fail_writes()
        self.add(9001)
        with capturedLogs() as events:
            self.begin()
            self.reactor.pump([AGAIN / 10] * 31)
        self.assertEqual(4, len(tried))
        self.assertEqual([LogLevel.error], [event["log_level"] for event in events])
        self.end()

    def test_disk_free_again(self) -> None:
        """When it takes something again, that is written and logged."""
        write = snapshotfile.write
        self.fail_writes()
        self.add(9001)
        self.begin()
        self.reactor.advance(0)
        self.patch(snapshotfile, "write", write)
        with capturedLogs() as events:
            self.reactor.advance(AGAIN)
        self.assertEqual([LogLevel.info], [event["log_level"] for event in events])
        self.assertEqual([9001], self.servers())
        self.end()

    def test_used(self) -> None:
        """The next process knows what this one knew, when the store is away."""
        self.add(9001)
        self.begin()
        self.reactor.advance(0)
        self.end()
        self.store.lose()
        self.keeper, self.membership = self.node()
        self.reactor.advance(60)
        with capturedLogs() as events:
            self.begin()
        self.assertEqual(["127.0.0.1:9001"], [server.key for server in self.upstream.servers])
        origins = [event["origin"] for event in events if "origin" in event]
        (origin,) = origins
        self.assertIn("written 60 s ago", origin)
        self.assertIn(self.keeper.path, origin)

    def test_kept_while_the_store_is_away(self) -> None:
        """What an earlier process knew is not written over by a process that knows nothing."""
        self.add(9001)
        self.begin()
        self.reactor.advance(0)
        self.end()
        self.store.lose()
        self.keeper, self.membership = self.node()
        self.begin()
        self.keeper.note()
        self.reactor.advance(PAUSE)
        self.assertEqual([9001], self.servers())

    def refused(self, content: bytes) -> str:
        os.makedirs(self.directory, exist_ok=True)
        with open(self.keeper.path, "wb") as file:
            file.write(content)
        with capturedLogs() as events:
            self.keeper.begin(self.membership)
        (event,) = events
        self.assertEqual(LogLevel.error, event["log_level"])
        self.assertEqual({}, self.membership.all_known())
        return str(event["why"])

    def test_refused(self) -> None:
        """A file that is damaged or foreign is named, kept aside and not used."""
        self.assertIn("no snapshot", self.refused(b"rubbish\n"))
        with open(f"{self.keeper.path}.refused", "rb") as file:
            self.assertEqual(b"rubbish\n", file.read())
        self.assertFalse(os.path.exists(self.keeper.path))
        snapshotfile.write(self.keeper.path, "there", {}, 1.0)
        with open(self.keeper.path, "rb") as file:
            self.assertIn("of the store 'there'", self.refused(file.read()))

    def test_unreadable(self) -> None:
        """So is one that cannot be read or moved."""
        self.keeper, _ = self.node()
        self.keeper.path = f"{self.directory}/nothing/servers.snapshot"
        with open(self.directory, "wb"), capturedLogs() as events:
            self.keeper.begin(self.membership)
        self.assertIn("nowhere", events[0]["aside"])

    def test_reads_only(self) -> None:
        """Of several processes of one daemon one writes and judges; the others read."""
        snapshot = Snapshot(revision=1, era="e", now=1.0)
        snapshotfile.write(self.keeper.path, "elsewhere", {"default": snapshot}, 1.0)
        self.keeper, self.membership = self.node(reads_only=True)
        self.keeper.begin(self.membership)
        self.assertEqual({"default": snapshot}, self.membership.all_known())
        self.keeper.note()
        self.reactor.advance(PAUSE)
        self.assertEqual(1, len(self.writes))
        self.successResultOf(self.keeper.stop())
        with open(self.keeper.path, "wb") as file:
            file.write(b"rubbish")
        self.keeper.begin(self.membership)
        self.assertTrue(os.path.exists(self.keeper.path))
