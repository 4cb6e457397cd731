"""
How a stream's server is found when it is more than the next one.
"""

from __future__ import annotations

from dynbalance.balancer.attempts import RetryPolicy
from dynbalance.net.deadlines import TICK
from dynbalance.stream.leaving import LOOK
from tests.net.pump import unused_port
from tests.stream.building import StreamCase


class ChoosingTests(StreamCase):
    """Keys, the waiting line and the retry budget."""

    def test_key_is_the_client(self) -> None:
        """By a policy with a key one client address always gets the same server."""
        for policy in ("ip_hash", "hash"):
            backends = [self.backend() for _ in range(3)]
            self.listen(*(f"127.0.0.1:{each.port}" for each in backends), policy=policy)
            for _ in range(6):
                self.client()
                self.pump.settle()
            held = sorted(server.held for server in self.upstream.servers)
            self.assertEqual([0, 0, 6], held, policy)
            self.listener.abort_all()
            self.pump.settle()

    def test_times_are_told(self) -> None:
        """A policy that goes by times hears how long connecting took."""
        backend = self.backend()
        self.listen(
            f"127.0.0.1:{backend.port}", f"127.0.0.1:{unused_port()}", policy="ewma"
        )
        for _ in range(4):
            self.client()
            self.accept(backend)
        good, bad = self.upstream.servers
        self.assertIsNotNone(good.timed_at)
        self.assertIsNotNone(bad.timed_at)

    def wait_in_line(self, timeout: float = 10.0) -> None:
        """One server with one place, which is taken."""
        self.server = self.backend()
        address = f"127.0.0.1:{self.server.port}"
        self.listen(address, max_conns=1, queue=1, queue_timeout=timeout)
        self.first = self.client()
        self.busy = self.accept(self.server)

    def test_waits_for_a_place(self) -> None:
        """A client waits while all servers are full, and is served when one is free."""
        self.wait_in_line()
        second = self.client()
        second.send(b"I waited")
        self.pump.settle()
        self.assertEqual(1, self.upstream.waiting)
        self.first.close()
        self.busy.close()
        self.accept(self.server).expect(b"I waited")
        self.assertEqual(0, self.upstream.waiting)

    def test_line_is_full(self) -> None:
        """Whoever finds no place in the line is turned away at once."""
        self.wait_in_line()
        self.client()
        self.pump.settle()
        self.client().expect_end()
        self.assertEqual(1, self.upstream.waiting)

    def test_waits_no_longer(self) -> None:
        """After C{queue_timeout} the client is turned away."""
        self.wait_in_line(timeout=2.0)
        second = self.client()
        self.pump.settle()
        self.pump.advance(2.0 + 2 * TICK)
        second.expect_end()
        self.assertEqual((0, 1), (self.upstream.waiting, self.listener.refused))

    def test_leaves_the_line(self) -> None:
        """Who leaves meanwhile gives up the place."""
        self.wait_in_line()
        second = self.client()
        self.pump.settle()
        self.pump.advance(3 * LOOK)
        self.assertEqual(1, self.upstream.waiting)
        second.close()
        self.pump.settle()
        self.pump.advance(LOOK + 2 * TICK)
        self.assertEqual((0, 1), (self.upstream.waiting, self.listener.active))

    def test_cut_while_waiting(self) -> None:
        """The listener's end is the end of the wait, too: nobody keeps a place."""
        self.wait_in_line()
        second = self.client()
        self.pump.settle()
        [waiting] = [each for each in self.listener.sessions if each.lease is None]
        waiting.abort()
        self.assertEqual(0, self.upstream.waiting)
        second.expect_end()
        self.listener.abort_all()
        self.first.expect_end()

    def test_retry_budget(self) -> None:
        """When many servers refuse, retries end with the budget."""
        backend = self.backend()
        dead = unused_port()
        addresses = [f"127.0.1.{n}:{dead}" for n in range(1, 9)]
        self.listen(*addresses, f"127.0.0.1:{backend.port}", retry_budget=0.2)
        self.client().expect_end()
        self.assertEqual(4, sum(server.failures for server in self.upstream.servers))

    def test_tries(self) -> None:
        """C{next_upstream_tries} holds for connecting, too."""
        dead = unused_port()
        addresses = [f"127.0.1.{n}:{dead}" for n in range(1, 9)]
        self.listen(*addresses, retry=RetryPolicy(tries=2))
        self.client().expect_end()
        self.assertEqual(2, sum(server.failures for server in self.upstream.servers))


class ChoosingTransportTests(ChoosingTests):
    """The same for clients that come by Twisted's transports."""

    transports = True
