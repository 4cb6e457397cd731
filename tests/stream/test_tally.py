"""What is counted of connections that did not go well at once."""

from __future__ import annotations

from dynbalance.balancer.attempts import RetryPolicy
from tests.net.pump import unused_port
from tests.stream.building import StreamCase


class TallyTests(StreamCase):
    """Failures, retries and connections that no server took."""

    def told(self) -> list[dict[object, int]]:
        tally = self.upstream.tally
        counters = (tally.failed, tally.retries, tally.unanswered)
        return [{key: n for key, n in each.items() if n} for each in counters]

    def test_well(self) -> None:
        """A connection that goes well leaves how long it took to connect."""
        client, server = self.pair()
        client.close()
        server.expect_end()
        server.close()
        self.pump.until(lambda: not self.listener.active)
        self.assertEqual(self.told(), [{}, {}, {}])
        (known,) = self.upstream.servers
        self.assertEqual(sum(known.connects.counts), 1)
        self.assertEqual(self.upstream.budget.total, 1)

    def test_next(self) -> None:
        """A server that refuses is a failure, and the next one a retry."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{unused_port()}", f"127.0.0.1:{backend.port}")
        self.client()
        self.accept(backend)
        self.assertEqual(self.told(), [{"error": 1}, {"error": 1}, {}])

    def test_given_up(self) -> None:
        """Where none is left the connection is told as unanswered."""
        self.listen(f"127.0.0.1:{unused_port()}", retry=RetryPolicy())
        self.client().expect_end()
        self.assertEqual(self.told(), [{"error": 1}, {}, {502: 1}])
