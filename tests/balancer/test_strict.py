"""
Tests for L{dynbalance.balancer.strict}: choices that the store has to grant.
The store is the test; many nodes with a real one are in
C{tests/store/test_strict_nodes.py}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.strict import StrictUpstream
from dynbalance.balancer.upstream import FileServer
from dynbalance.store.contract import ServerOrder
from dynbalance.store.reports import Granted, Wish

A, B = "10.0.0.1:80", "10.0.0.2:80"


class Waiter:
    """Who asks."""

    def __init__(self, error: Exception | None = None) -> None:
        self.lease: Lease | None = None
        self.vain = False
        self._error = error

    def granted(self, lease: Lease) -> None:
        if self._error is not None:
            raise self._error
        self.lease = lease

    def refused(self) -> None:
        self.vain = True

    @property
    def server(self) -> str | None:
        return None if self.lease is None else self.lease.server.key


class StrictUpstreamTests(SynchronousTestCase):
    """A node's side of C{counting = "strict"}."""

    def begin(self, *, policy: str = "round_robin", queue: int = 0, **limits: int) -> None:
        self.woken = 0
        servers = [
            FileServer(order=ServerOrder(address=address, host=host, port=80, max_conns=limit))
            for address, host, limit in (
                (A, "10.0.0.1", limits.get("a", 2)),
                (B, "10.0.0.2", limits.get("b", 2)),
            )
        ]
        self.upstream = StrictUpstream(
            "u", policy, servers, lambda: 0.0, lambda: 0.5, UpstreamOptions(queue=queue)
        )

        def wake() -> None:
            self.woken += 1

        self.upstream.when_asked(wake)
        self.upstream.near()

    def ask(self, count: int = 1, **more: object) -> list[Waiter]:
        waiters = [Waiter() for _ in range(count)]
        for waiter in waiters:
            self.upstream.ask(waiter, **more)  # type: ignore[arg-type]
        return waiters

    def held(self) -> list[tuple[int, int]]:
        return [(server.held, server.asked) for server in self.upstream.servers]

    def test_wishes(self) -> None:
        """A turn says how many places on which servers, and nobody has one yet."""
        self.begin()
        waiters = self.ask(3)
        self.assertEqual(3, self.woken)
        self.assertEqual(
            (Wish(address=A, count=2, limit=2), Wish(address=B, count=1, limit=2)),
            self.upstream.turn(),
        )
        self.assertEqual([None] * 3, [each.lease for each in waiters])
        self.assertEqual([(2, 2), (1, 1)], self.held())
        self.assertEqual({}, self.upstream.report())
        self.upstream.granted(Granted(counts=(2, 1)))
        self.assertEqual([A, B, A], [each.server for each in waiters])
        self.assertEqual([(2, 0), (1, 0)], self.held())

    def test_refused(self) -> None:
        """Who is refused hears how it is, and gets another server."""
        self.begin()
        [first] = self.ask()
        self.upstream.turn()
        self.upstream.granted(Granted(counts=(0,), totals={A: 2}))
        self.assertEqual((Wish(address=B, limit=2),), self.upstream.turn())
        self.upstream.granted(Granted(counts=(1,)))
        self.assertEqual(B, first.server)
        self.assertEqual([(0, 0), (1, 0)], self.held())
        self.assertEqual([0, 1], [server.picks for server in self.upstream.servers])

    def test_none(self) -> None:
        """When all are full, who asks is refused, or waits where there is a place."""
        self.begin(queue=1)
        self.upstream.apply_totals({A: 2, B: 2}, True)
        first, second = self.ask(2)
        self.assertEqual((), self.upstream.turn())
        self.assertEqual((False, True, 1), (first.vain, second.vain, self.upstream.waiting))
        woken = self.woken
        self.upstream.apply_totals({B: 1})
        self.assertGreater(self.woken, woken)
        self.assertEqual((Wish(address=B, limit=2),), self.upstream.turn())
        self.upstream.granted(Granted(counts=(1,)))
        self.assertEqual((B, 0), (first.server, self.upstream.waiting))

    def test_left(self) -> None:
        """A place for somebody who left while it was asked for is given back."""
        self.begin()
        [waiter] = self.ask()
        self.upstream.turn()
        self.upstream.leave_queue(waiter)
        self.upstream.granted(Granted(counts=(1,)))
        self.assertIsNone(waiter.lease)
        self.assertEqual([(0, 0), (0, 0)], self.held())
        # The store counts it until it is told, so it needs no second call.
        [other] = self.ask(first=self.upstream.server(A))
        self.assertEqual((), self.upstream.turn())
        self.assertEqual(A, other.server)

    def test_told_is_lost(self) -> None:
        """A place that was reported as empty has to be asked for again."""
        self.begin()
        [waiter] = self.ask()
        self.upstream.turn()
        self.upstream.granted(Granted(counts=(1,)))
        assert waiter.lease is not None
        waiter.lease.release()
        self.assertEqual({A: 0}, self.upstream.report())
        self.ask(first=self.upstream.server(A))
        self.assertEqual((Wish(address=A, limit=2),), self.upstream.turn())

    def test_wanted(self) -> None:
        """The server of a cookie is asked for first; what a key leads to likewise."""
        self.begin()
        self.ask(first=self.upstream.server(B))
        self.assertEqual((Wish(address=B, limit=2),), self.upstream.turn())
        self.begin(policy="hash")
        self.ask(2, key=b"the same")
        [wish] = self.upstream.turn()
        self.assertEqual(2, wish.count)

    def test_only(self) -> None:
        """Who wants one server alone asks for it in any state, and does not wait."""
        self.begin(queue=9)
        server = self.upstream.server(A)
        self.upstream.set_checked(A, True, "down")
        [waiter] = self.ask(only=server)
        self.assertEqual((Wish(address=A, limit=2, anyhow=True),), self.upstream.turn())
        self.upstream.granted(Granted(counts=(0,)))
        self.upstream.turn()
        self.assertTrue(waiter.vain)
        self.assertEqual([(0, 0), (0, 0)], self.held())

    def test_lapsed(self) -> None:
        """While the store does not count this node nobody gets anything; then all do."""
        self.begin()
        [waiter] = self.ask()
        self.upstream.turn()
        self.upstream.lapse()
        self.upstream.granted(Granted(lapsed=True))
        self.assertEqual((), self.upstream.turn())
        self.assertEqual([(0, 0), (0, 0)], self.held())
        self.assertFalse(waiter.vain)
        self.upstream.near()
        self.assertEqual((Wish(address=B, limit=2),), self.upstream.turn())

    def test_away(self) -> None:
        """Without the store what was chosen stands, and choosing is as with C{fast}."""
        self.begin()
        [waiter] = self.ask()
        self.upstream.turn()
        self.upstream.away()
        self.assertEqual(A, waiter.server)
        self.assertEqual([(1, 0), (0, 0)], self.held())
        lease = self.upstream.choose()
        assert lease is not None
        self.assertEqual(B, lease.server.key)
        self.upstream.near()
        self.assertIsNone(self.upstream.choose())
        self.assertIsNone(self.upstream.choose_this(lease.server))

    def test_broken_waiter(self) -> None:
        """Who cannot take what it is given does not have it; the others do."""
        self.begin()
        broken, other = Waiter(ValueError("no")), Waiter()
        self.upstream.ask(broken)
        self.upstream.ask(other)
        self.upstream.turn()
        with self.assertRaises(ValueError):
            self.upstream.granted(Granted(counts=(1, 1)))
        self.assertEqual(B, other.server)
        self.assertEqual([(0, 0), (1, 0)], self.held())
