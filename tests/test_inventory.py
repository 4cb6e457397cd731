"""Tests of what is counted of the reactor, the hub and all objects."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.inventory import OTHERS, Inventory
from dynbalance.lag import Lag


class InventoryTests(SynchronousTestCase):
    """One reactor, and a hub in it."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.hub: Any = MemoryReactorClock()
        self.inventory = Inventory(self.reactor, self.hub)

    def test_timers(self) -> None:
        """Calls are counted until they are made or cancelled."""
        self.reactor.callLater(1, int)
        call = self.reactor.callLater(2, int)
        self.assertEqual(2, self.inventory.timers)
        self.reactor.advance(1)
        self.assertEqual(1, self.inventory.timers)
        call.cancel()
        self.assertEqual(0, self.inventory.timers)

    def test_descriptors(self) -> None:
        """Whoever waits for both, or is registered twice, is one."""
        one, other = object(), object()
        self.reactor.addReader(one)
        self.hub.addReader(other)
        self.hub.addWriter(other)
        self.reactor.addWriter(other)
        self.assertEqual(2, self.inventory.descriptors)
        self.assertEqual("<Inventory 0 timers, 2 descriptors>", repr(self.inventory))

    def test_objects(self) -> None:
        """Ours and Twisted's have their names, garbage has gone, and the others are one number."""
        self.inventory.detailed = True
        before = self.inventory.objects()
        self.assertGreater(before[OTHERS], 1000)
        kept = [Lag(self.reactor) for _ in range(3)]
        later = self.reactor.callLater(1, int)
        garbage: list[object] = [Lag(self.reactor)]
        garbage.append(garbage)
        del garbage
        after = self.inventory.objects()
        self.assertEqual(len(kept), after["lag.Lag"] - before["lag.Lag"])
        name = "twisted.internet.base.DelayedCall"
        self.assertEqual(1, after[name] - before[name])
        later.cancel()

    def test_no_module(self) -> None:
        """A type that says of no module to be its own is one of the others."""

        class Nowhere(type):
            @property
            def __module__(cls) -> str:
                raise AttributeError("__module__")

        thing: Any = Nowhere("Thing", (), {"kept": []})()
        self.assertRaises(AttributeError, getattr, type(thing), "__module__")
        self.inventory.detailed = True
        self.assertGreater(self.inventory.objects()[OTHERS], 0)

    def test_not_detailed(self) -> None:
        """Objects are not counted unless somebody wants that."""
        self.assertEqual({}, self.inventory.objects())
