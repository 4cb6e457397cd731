"""
Tests for L{dynbalance.store.contact}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.errors import StoreUnavailable
from dynbalance.store.contact import Contact, Finding


class ContactTests(SynchronousTestCase):
    """What became of the exchanges, one second apart."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.contact = Contact(self.clock)

    def times(self) -> tuple[float, float, float]:
        contact = self.contact
        return contact.available_for, contact.stale_for, contact.synced_ago

    def found(self) -> float | None:
        self.clock.advance(1.0)
        return self.contact.found()

    def lost(self, finding: Finding = Finding.AWAY, why: str = "silence") -> bool:
        self.clock.advance(1.0)
        return self.contact.lost(finding, why)

    def test_untried(self) -> None:
        """Before the first exchange nothing is available; time counts from the start."""
        self.clock.advance(5.0)
        self.contact.begin()
        self.clock.advance(2.0)
        self.assertFalse(self.contact.available)
        self.assertEqual((0.0, 2.0, 2.0), self.times())
        refused = self.assertRaises(StoreUnavailable, self.contact.require)
        self.assertEqual("the store was not reached yet", str(refused))

    def test_found(self) -> None:
        """The first good exchange is no return; those that follow are no news."""
        self.assertIsNone(self.found())
        self.assertIsNone(self.found())
        self.contact.require()
        self.clock.advance(0.5)
        self.assertEqual((1.5, 0.0, 0.5), self.times())

    def test_lost(self) -> None:
        """Only another finding is news; all are counted, and the last says why."""
        self.found()
        self.assertTrue(self.lost())
        self.assertFalse(self.lost())
        self.assertTrue(self.lost(Finding.BROKEN, "nonsense"))
        self.assertEqual({Finding.AWAY: 2, Finding.BROKEN: 1}, dict(self.contact.failures))
        self.assertEqual((0.0, 3.0, 3.0), self.times())
        refused = self.assertRaises(StoreUnavailable, self.contact.require)
        self.assertEqual("nonsense", str(refused))

    def test_found_again(self) -> None:
        """After a loss the return tells for how long there was no good exchange."""
        self.found()
        self.lost()
        self.lost()
        self.assertEqual(3.0, self.found())
        self.assertEqual((0.0, 0.0, 0.0), self.times())
        self.assertIsNone(self.found())
        self.assertEqual(1.0, self.contact.available_for)

    def test_never_found(self) -> None:
        """What was lost before it was ever found returns like any other."""
        self.lost()
        self.assertEqual(2.0, self.found())
