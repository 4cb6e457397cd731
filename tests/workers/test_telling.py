"""
What a worker tells of many servers.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from dynbalance.admin.crew import Live
from dynbalance.admin.metrics import BalancerCollector, Metrics
from dynbalance.workers.lives import lives_from_json
from dynbalance.workers.sums import families_of, from_json
from dynbalance.workers.telling import lives_text, metrics_text
from tests.admin.test_metrics import MetricsCase


class TellingTests(MetricsCase):
    """In pieces it is the same as in one go."""

    def told(self) -> Any:
        metrics = Metrics(self.measured)
        traffic = Deferred.fromCoroutine(metrics.traffic())
        pieces = list(metrics_text(*self.successResultOf(traffic)))
        self.assertLess(max(map(len, pieces)), 30_000)
        return from_json(json.loads("".join(pieces)))

    def test_metrics(self) -> None:
        """Every sample of every metric, of more servers than there are in a piece."""
        for port in range(8001, 8061):
            self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=%d" % port)
        for number, server in enumerate(self.upstream.servers):
            server.responses[number % 6] = number
            server.times.note(number / 7)
        once = families_of(BalancerCollector(self.measured).collect())
        told = {family.name: family for family in self.told()}
        self.assertEqual({family.name: family for family in once}, told)
        self.assertGreater(len(told["dynbalance_server_response_seconds"].samples), 600)

    def test_no_servers(self) -> None:
        """Where there are none, nothing is told of any."""
        once = families_of(BalancerCollector(self.measured).collect())
        self.assertEqual([family.name for family in once], [each.name for each in self.told()])

    def test_nothing(self) -> None:
        """Of nothing comes an empty list."""
        self.assertEqual("[]", "".join(metrics_text((), ())))
        self.assertEqual("{}", "".join(lives_text(())))

    def test_lives(self) -> None:
        """Each server has its line."""
        for port in (8001, 8002):
            self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=%d" % port)
        servers = tuple(self.upstream.servers)
        self.assertEqual(
            {server.key: Live.of(server) for server in servers},
            lives_from_json(json.loads("".join(lives_text(servers)))),
        )
