"""Tests of reading the store's answers about all servers, piece by piece."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from dynbalance.store.contract import Intent, ServerRecord
from dynbalance.store.reading import Reading

A, B, C = b"10.0.0.1:80", b"10.0.0.2:80", b"10.0.0.3:80"


class ReadingTests(TestCase):
    """Answers one after the other, each read with what the one before had."""

    def setUp(self) -> None:
        self.metas = {B: b'{"weight":2}', A: b"{}"}
        self.beats = {A: b"100.5", B: b"101"}
        self.counts = {A: b"3"}
        self.found: dict[bytes, bytes] = {}
        self.reading = Reading()

    def read(self) -> dict[str, ServerRecord]:
        self.reading = Reading(self.reading)
        parts = (self.metas, self.beats, self.counts, self.found)
        flat = [[word for pair in part.items() for word in pair] for part in parts]
        for _ in self.reading.pieces([b"7", b"102.25", *flat, b"era"]):
            pass
        return {record.order.address: record for record in self.reading.snapshot.servers}

    def test_all(self) -> None:
        """Servers come in the order of their addresses, with all that is known of them."""
        self.found = {A: b'{"cause":"refused"}'}
        servers = self.read()
        self.assertEqual(list(servers), [A.decode(), B.decode()])
        first, second = servers.values()
        self.assertEqual((first.connections, first.last_heartbeat), (3, 100.5))
        self.assertEqual((second.connections, second.order.weight), (0, 2))
        snapshot = self.reading.snapshot
        self.assertEqual((snapshot.revision, snapshot.now, snapshot.era), (7, 102.25, "era"))
        self.assertEqual(snapshot.unhealthy, {A.decode(): "refused"})

    def test_same(self) -> None:
        """What is as it was is the same object; other JSON is another server."""
        before = self.read()
        self.metas[B] = b'{"intent":"drain","enabled":false}'
        after = self.read()
        self.assertIs(after[A.decode()], before[A.decode()])
        self.assertIs(after[B.decode()].intent, Intent.DRAIN)
        self.assertEqual(after[B.decode()].order.weight, 1)

    def test_beat(self) -> None:
        """A heartbeat and a count are news, and change nothing else."""
        self.metas[A] = b'{"created_at":5,"disabled_at":6,"disabled_reason":"x","updated_at":7}'
        before = self.read()[A.decode()]
        self.beats[A], self.counts[A] = b"200", b"4"
        after = self.read()[A.decode()]
        self.assertEqual((after.last_heartbeat, after.connections), (200, 4))
        self.assertIs(after.order, before.order)
        self.beats[A] = b"201"
        self.assertEqual(self.read()[A.decode()].last_heartbeat, 201)
        self.counts[A] = b"5"
        self.assertEqual(self.read()[A.decode()].connections, 5)
        self.counts[A], self.beats[A] = b"3", b"100.5"
        self.assertEqual(self.read()[A.decode()], before)
        del self.beats[A], self.counts[A]
        bare = self.read()[A.decode()]
        self.assertEqual((bare.last_heartbeat, bare.connections), (None, 0))

    def test_come_and_go(self) -> None:
        """Servers that come get their place; those that go are forgotten."""
        self.read()
        self.metas = {C: b"{}", A: b"{}"}
        self.assertEqual(list(self.read()), [A.decode(), C.decode()])
        self.metas = {C: b"{}", B: b"{}", A: b"{}"}
        servers = self.read()
        self.assertEqual(list(servers), [A.decode(), B.decode(), C.decode()])
        self.assertEqual(servers[B.decode()].order.weight, 1)

    def test_broken(self) -> None:
        """What is no server hides no other, as long as it is none."""
        self.read()
        self.metas[A] = b"[]"
        self.assertEqual(list(self.read()), [B.decode()])
        self.assertEqual(self.reading.broken, {A.decode(): "list in place of a JSON object"})
        self.metas[A] = b"{}"
        self.assertEqual(len(self.read()), 2)
        self.assertEqual(self.reading.broken, {})

    def test_senseless(self) -> None:
        """What has another shape is no answer."""
        for reply in ([], [b"7"] * 7, [b"7", b"1", [A], [], [], [], b""]):
            with self.assertRaises((ValueError, TypeError)):
                list(Reading().pieces(reply))
