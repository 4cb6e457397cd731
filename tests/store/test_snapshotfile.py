"""
Tests for L{dynbalance.store.snapshotfile}.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.store import snapshotfile
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord, Snapshot, Then
from dynbalance.store.snapshotfile import SnapshotRefused
from tests.store.contract_suite import UNIX, A, B, order
from tests.temporary import Temporary

STORE = "redis://127.0.0.1:6379/0 upstream"

SNAPSHOTS = {
    "default": Snapshot(
        revision=7,
        era="1700000000.000001 one",
        now=1700000100.25,
        unhealthy={B: "status 500"},
        servers=(
            ServerRecord(
                order=order(A, weight=3, max_conns=0, backup=True, fail_timeout=2.5),
                intent=Intent.DRAIN,
                created_at=1700000000.123,
                updated_at=1700000001.0,
                disabled_at=1700000001.0,
                disabled_reason="draining",
                last_heartbeat=1700000002.5,
                drain_deadline=1700000061.0,
                drain_then=Then.REMOVE,
            ),
            ServerRecord(order=order(B, heartbeat=False), expired=True),
        ),
    ),
    'pool "ü"': Snapshot(revision=0, era="", now=1.0),
}


class SnapshotFileTests(Temporary, SynchronousTestCase):
    """One file, written and read."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.path = os.path.join(self.directory, "servers.snapshot")

    def write(self) -> bytes:
        snapshotfile.write(self.path, STORE, SNAPSHOTS, 1700000200.0)
        with open(self.path, "rb") as file:
            return file.read()

    def put(self, content: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(content)

    def assert_refused(self, content: bytes, why: str) -> None:
        self.put(content)
        with self.assertRaisesRegex(SnapshotRefused, why):
            snapshotfile.read(self.path, STORE)

    def test_there_and_back(self) -> None:
        """What is read is what was written, but for counts, which are nobody's any more."""
        self.write()
        kept = snapshotfile.read(self.path, STORE)
        assert kept is not None
        self.assertEqual((1700000200.0, SNAPSHOTS), (kept.written, dict(kept.snapshots)))

    def test_any_address(self) -> None:
        """Whatever text an address is."""
        odd = ServerRecord(order=ServerOrder(address=f'{UNIX}"ü', host=UNIX, port=0))
        snapshots = {"default": Snapshot(revision=1, now=1.0, servers=(odd,))}
        snapshotfile.write(self.path, STORE, snapshots, 1.0)
        kept = snapshotfile.read(self.path, STORE)
        assert kept is not None
        self.assertEqual(odd.order.address, kept.snapshots["default"].servers[0].order.address)

    def test_none(self) -> None:
        """No file is no mistake."""
        self.assertIsNone(snapshotfile.read(self.path, STORE))

    def test_private(self) -> None:
        """Nobody else may read it, and nothing else is left."""
        self.write()
        self.write()
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertEqual(0o700, stat.S_IMODE(os.stat(self.directory).st_mode))
        self.assertEqual(["servers.snapshot"], os.listdir(self.directory))

    def test_damaged(self) -> None:
        """A file of which anything was changed or is missing is refused."""
        whole = self.write()
        self.assert_refused(whole.replace(b'"weight":3', b'"weight":4'), "damaged")
        self.assert_refused(whole[:-30], "damaged")
        self.assert_refused(whole + whole, "damaged")
        self.assert_refused(b"\n".join(whole.split(b"\n")[:-2]) + b"\n", "damaged")
        for cut in range(0, len(whole) - 1, 7):
            self.put(whole[:cut])
            self.assertRaises(SnapshotRefused, snapshotfile.read, self.path, STORE)

    def test_foreign(self) -> None:
        """So is one of another program, another version or another store."""
        whole = self.write()
        self.assert_refused(b"", "no snapshot of dynbalance")
        self.assert_refused(b"[]\n\xff", "no snapshot of dynbalance")
        self.assert_refused(b"[" * 5000, "no snapshot of dynbalance")
        self.assert_refused(whole.replace(b'"version":1', b'"version":2'), "version is 2")
        self.put(whole)
        with self.assertRaisesRegex(SnapshotRefused, "of the store 'redis.*and not of 'other'"):
            snapshotfile.read(self.path, "other")
        self.assertIsNotNone(snapshotfile.read(self.path, None))

    def test_senseless(self) -> None:
        """So is one that is whole but says what cannot be."""
        snapshotfile.write(self.path, STORE, {"default": SNAPSHOTS["default"]}, 1.0)
        with open(self.path, "rb") as file:
            lines = file.read().split(b"\n")
        upstream = b'{"upstream":"a","era":"","revision":%b,"now":1,"unhealthy":%b,"servers":1}'
        for wrong in (
            lines[:2] + lines[3:],
            [lines[0], b"[]", *lines[2:]],
            [lines[0], b"[" * 5000, *lines[2:]],
            [lines[0], upstream % (b"1e999", b"{}"), *lines[2:]],
            [lines[0], upstream % (b"1", b"[]"), *lines[2:]],
            [lines[0], upstream % (b"1", b"{}"), b"[5,null,{}]", *lines[3:]],
            [lines[0], upstream % (b"1", b"{}"), b'["a:1",%b,{}]' % (b"9" * 400), *lines[3:]],
        ):
            body = b"\n".join(wrong[:-2]) + b"\n"
            digest = snapshotfile.hashlib.sha256(body).hexdigest()
            self.assert_refused(body + b'{"sha256":"%s"}\n' % digest.encode(), "no sense")

    def test_disk_full(self) -> None:
        """A write that fails leaves what was there, and nothing of its own."""
        before = self.write()

        def full(descriptor: int, chunk: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(snapshotfile.os, "write", full)
        self.assertRaises(OSError, self.write)
        with open(self.path, "rb") as file:
            self.assertEqual(before, file.read())
        self.assertEqual(["servers.snapshot"], os.listdir(self.directory))

    def test_short_writes(self) -> None:
        """The system may take less at once than it is given."""
        write = os.write
        self.patch(snapshotfile.os, "write", lambda to, chunk: write(to, chunk[:10]))
        self.write()
        self.assertIsNotNone(snapshotfile.read(self.path, STORE))

    def test_sweep(self) -> None:
        """What killed processes left is taken away; what others write is not."""
        snapshotfile.sweep(self.path)
        self.write()
        with subprocess.Popen([sys.executable, "-c", ""]) as gone:
            gone.wait(30)
        for name in (f"{self.path}.{gone.pid}", f"{self.path}.{os.getppid()}"):
            with open(name, "w"):
                pass
        snapshotfile.sweep(self.path)
        left = {"servers.snapshot", f"servers.snapshot.{os.getppid()}"}
        self.assertEqual(left, set(os.listdir(self.directory)))
