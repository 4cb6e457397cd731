"""
Tests for L{dynbalance.workers.orders}.
"""

from __future__ import annotations

import json

from attrs import evolve
from twisted.trial.unittest import TestCase

from dynbalance.config import Config, StoreUrl
from dynbalance.configfile import parse
from dynbalance.workers.orders import Orders, config_of, daemon_dir
from dynbalance.workers.sockets import Inherited

STORE = StoreUrl.parse("unix:///run/x.sock")


def config(text: str) -> Config:
    return evolve(parse(text), state_dir="/var/lib/x", demo=True)


class OrdersTests(TestCase):
    """What the parent says is what a worker gets."""

    def test_round(self) -> None:
        """The configuration and the sockets arrive as they were sent."""
        sent = Orders(
            evolve(config("[upstreams.a]\nqueue = 7"), demo=False),
            {
                "http[0]": (Inherited(4, 2, False), Inherited(6, 2, True)),
                "stream[0]": (Inherited(5, 1, True),),
            },
        )
        self.assertEqual([4, 6, 5], sent.descriptors)
        said = json.loads(json.dumps(sent.to_json()))
        self.assertEqual(sent, Orders.from_json(said, [4, 6, 5]))

    def test_below_the_daemon(self) -> None:
        """From a worker's directory its daemon's is known."""
        of_worker = config_of(config("workers = 3"), "n", 2, 3, STORE)
        self.assertEqual("/var/lib/x", daemon_dir(of_worker.state_dir))

    def test_each_its_own(self) -> None:
        """A worker is a node of its own with a directory of its own, and has no workers."""
        ours = config_of(config("workers = 3"), "n", 2, 3, STORE)
        self.assertEqual(
            ("n-w2", 1, "/var/lib/x/workers/2", False, STORE),
            (ours.node, ours.workers, ours.state_dir, ours.demo, ours.store.url),
        )

    def test_max_connections(self) -> None:
        """A listener's limit holds over all workers; none is left without any."""
        text = "[[http]]\nmax_connections = {0}\n[[stream]]\nmax_connections = {0}"
        cases = {0: [0, 0, 0], 2: [1, 1, 1], 3: [1, 1, 1], 10: [4, 3, 3]}
        for limit, parts in cases.items():
            whole = config(text.format(limit))
            ours = [config_of(whole, "n", number, 3, STORE) for number in (1, 2, 3)]
            self.assertEqual(parts, [each.http[0].max_connections for each in ours])
            self.assertEqual(parts, [each.stream[0].max_connections for each in ours])
