"""
Tests for L{dynbalance.store.memory}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.store.memory import MemoryStore
from tests.store.contract_suite import StoreContract
from tests.store.history_suite import HistoryContract


class MemoryStoreTests(StoreContract, HistoryContract, TestCase):
    """The store in one process keeps the contract."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)
        self.store = MemoryStore(self.clock)

    async def elapse(self, seconds: float) -> None:
        self.clock.advance(seconds)
