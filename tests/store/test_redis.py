"""
Tests for L{dynbalance.store.redis} against a real server.
"""

from __future__ import annotations

from tests.store.contract_suite import StoreContract
from tests.store.history_suite import HistoryContract
from tests.store.real import age
from tests.store.stored import StoredCase


class RedisStoreTests(StoreContract, HistoryContract, StoredCase):
    """The store in Redis keeps the contract."""

    async def elapse(self, seconds: float) -> None:
        age(self.client, seconds)
