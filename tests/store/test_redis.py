"""
Tests for L{dynbalance.store.redis} against a real server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from dynbalance.store.endpoints import unix_endpoint
from dynbalance.store.redis import RedisStore
from tests.store.contract_suite import StoreContract
from tests.store.history_suite import HistoryContract
from tests.store.real import Client, Server, age

clock: Any = reactor


class RedisStoreTests(StoreContract, HistoryContract, TestCase):
    """The store in Redis keeps the contract."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.end()

    def setUp(self) -> Any:
        self.client = Client(self.server.path)
        self.client("FLUSHALL")
        self.store = RedisStore(unix_endpoint(reactor, self.server.path), clock)
        self.addCleanup(self.client.close)
        return self.store.open()

    def tearDown(self) -> Any:
        return self.store.close()

    async def elapse(self, seconds: float) -> None:
        age(self.client, seconds)
