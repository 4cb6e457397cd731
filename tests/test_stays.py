"""Tests of what is kept out of the garbage collector's way."""

from __future__ import annotations

import gc

from twisted.trial.unittest import TestCase

from dynbalance.inventory import Inventory
from dynbalance.stays import LEAST, Stays


class StaysTests(TestCase):
    """Servers that become more and fewer."""

    def setUp(self) -> None:
        self.servers = 0
        self.times = 0
        self.stays = Stays(lambda: self.servers, self.freeze)

    def freeze(self) -> None:
        self.times += 1

    def after(self, *servers: int) -> int:
        for self.servers in servers:
            self.stays.look()
        return self.times

    def test_few(self) -> None:
        """A few servers are not worth it."""
        self.assertEqual(self.after(0, 1, LEAST - 1), 0)

    def test_many(self) -> None:
        """Many are, once; and again when they are half as many more."""
        self.assertEqual(self.after(LEAST, LEAST + 1, 1, LEAST), 1)
        self.assertEqual(self.after(LEAST * 3 // 2), 2)
        self.assertEqual(repr(self.stays), f"<Stays: {LEAST * 3 // 2} servers>")

    def test_counted_all_the_same(self) -> None:
        """Who counts all objects to find leaks finds those that were kept away, too."""
        inventory = Inventory(None, None)
        inventory.detailed = True
        self.addCleanup(gc.unfreeze)
        gc.freeze()
        self.assertGreaterEqual(inventory.objects()["stays.Stays"], 1)
