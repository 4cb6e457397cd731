"""
A case with a store in a real server of its own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from dynbalance.store.endpoints import unix_endpoint
from dynbalance.store.redis import RedisStore
from tests.store.real import Client, Server


class ServedCase(TestCase):
    """
    @ivar server: the same for all tests of the class.
    """

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.end()


class StoredCase(ServedCase):
    """
    @ivar store: opened, and empty.
    @ivar client: looks behind it.
    """

    def setUp(self) -> Any:
        self.client = Client(self.server.path)
        self.addCleanup(self.client.close)
        self.client("FLUSHALL")
        clock: Any = reactor
        self.store = RedisStore(unix_endpoint(reactor, self.server.path), clock)
        self.addCleanup(self.store.close)
        return self.store.open()
