"""
What C{max_conns} is worth over several nodes, exactly and at its worst: real
nodes, a memory store at a distance, and a virtual clock.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from tests.store.nodes import INTERVAL, LEASE, Client, Node, Nodes

STRICT = UpstreamOptions(strict=True, queue=50)


def crowd(nodes: Nodes, chance: Random, seconds: float) -> None:
    """Clients come, leave before they have anything, and end."""
    clients: list[Client] = []
    for _ in range(round(seconds / 0.01)):
        clients += [chance.choice(nodes.all).come() for _ in range(chance.randrange(4))]
        if clients and chance.random() < 0.2:
            clients.pop(chance.randrange(len(clients))).leave()
        for _ in range(chance.randrange(4)):
            chance.choice(nodes.all).go(chance.randrange(100))
        nodes.clock.advance(0.01)


class StrictTests(SynchronousTestCase):
    """C{counting = "strict"}."""

    def begin(self, chance: Random, count: int = 3, **servers: int) -> Nodes:
        return Nodes(
            count,
            STRICT,
            chance.random,
            lambda: chance.choice((0.0, 0.001, 0.02, 0.2)),
            **(servers or {"p9001": 5, "p9002": 3}),
        )

    def assert_clean(self, nodes: Nodes) -> None:
        """All connections end, and nothing is counted any more, anywhere."""
        for node in nodes.all:
            while node.leases:
                node.go(0)
        for _ in range(100):
            nodes.run(0.2)
            for node in nodes.all:
                while node.leases:
                    node.go(0)
        self.assertEqual(dict.fromkeys(nodes.limits, 0), nodes.published())
        for node in nodes.all:
            for server in node.upstream.servers:
                self.assertEqual((0, 0, 0), (server.held, server.asked, server.others), server)

    def test_never_exceeded(self) -> None:
        """
        However calls are delayed and overtake each other, whoever leaves and
        ends: never more than C{max_conns}, often as many, and nothing is lost.
        """
        for seed in range(12):
            chance = Random(seed)
            nodes = self.begin(chance)
            crowd(nodes, chance, 6.0)
            self.assertEqual(nodes.limits, nodes.most, seed)
            self.assert_clean(nodes)

    def test_node_dies(self) -> None:
        """A node that is gone has its places counted until its lease ends, no longer."""
        chance = Random(1)
        nodes = self.begin(chance)
        crowd(nodes, chance, 2.0)
        dead = nodes.all.pop()
        dead.store.cut = True
        dead.membership._loop.stop()
        dead.leases.clear()
        crowd(nodes, chance, LEASE + 2.0)
        self.assertEqual(nodes.limits, nodes.most)
        self.assert_clean(nodes)

    def test_broken_connections(self) -> None:
        """Answers that are lost, and calls that arrive late, leave nothing behind."""
        for seed in range(6):
            chance = Random(seed)
            nodes = self.begin(chance)
            with capturedLogs():
                for _ in range(10):
                    crowd(nodes, chance, 0.3)
                    chance.choice(nodes.all).store.lose()
                self.assert_clean(nodes)
            nodes.most = dict.fromkeys(nodes.limits, 0)
            crowd(nodes, chance, 3.0)
            self.assertEqual(nodes.limits, nodes.most, seed)

    def test_store_away(self) -> None:
        """While the store is away clients are served, and it is said once; then it is exact."""
        nodes = Nodes(2, STRICT, Random(1).random, lambda: 0.001, p9001=4)
        for node in nodes.all:
            node.store.cut = True
        with capturedLogs() as logs:
            clients = [node.come() for node in nodes.all for _ in range(2)]
            nodes.run(1.0)
            self.assertTrue(all(client.lease is not None for client in clients))
            # Without a wait from now on.
            nodes.all[0].come()
            nodes.clock.advance(0)
            self.assertEqual(3, len(nodes.all[0].leases))
            nodes.run(3.0)
        told = [event for event in logs if "cannot be asked" in event["log_format"]]
        self.assertEqual(2, len(told))
        for node in nodes.all:
            node.store.cut = False
        nodes.run(2.0)
        self.assertEqual({"127.0.0.1:9001": 5}, nodes.published())
        late = nodes.all[1].come()
        nodes.run(1.0)
        self.assertFalse(late.answered)
        nodes.all[0].go(0)
        nodes.all[0].go(0)
        nodes.run(0.5)
        self.assertIsNotNone(late.lease)

    def test_sleeper(self) -> None:
        """
        A node that slept for longer than its lease gives nobody a place of
        which it knows from before, until the store counts it again.
        """
        nodes = Nodes(2, STRICT, Random(1).random, lambda: 0.001, p9001=2)
        sleeper, other = nodes.all
        sleeper.come()
        sleeper.come()
        nodes.run(1.0)
        self.assertEqual(2, len(sleeper.leases))
        # Its timers stand still, and its clock does not.
        sleeper.membership._loop.stop()
        nodes.run(LEASE + 1.0)
        waiting = [other.come(), other.come()]
        nodes.run(0.5)
        self.assertTrue(all(client.lease for client in waiting))
        sleeper.go(0)
        woken = sleeper.come()
        nodes.run(0.05)
        self.assertFalse(woken.answered)
        sleeper.membership._loop.start(INTERVAL)
        nodes.run(1.0)
        self.assertEqual({"127.0.0.1:9001": 3}, nodes.published())
        self.assertFalse(woken.answered)

    def test_own_places_again(self) -> None:
        """A place that ran empty is used again by its node without asking."""
        nodes = Nodes(2, STRICT, Random(1).random, lambda: 5e-4, p9001=1)
        node = nodes.all[0]
        node.come()
        nodes.run(0.02, 0.001)
        calls = node.store._there
        for _ in range(20):
            node.go(0)
            client = node.come()
            nodes.clock.advance(0)
            self.assertIsNotNone(client.lease)
        self.assertEqual(calls, node.store._there)

    def test_broken_client(self) -> None:
        """Who breaks when it gets a place has no place, and holds nobody up."""
        nodes = Nodes(1, STRICT, Random(1).random, lambda: 0.001, p9001=2, p9002=0)
        [node] = nodes.all
        node.upstream.set_checked("127.0.0.1:9001", True, "not now")
        broken = Client(node)

        def granted(lease: Lease) -> None:
            raise ZeroDivisionError

        self.patch(broken, "granted", granted)
        server = node.upstream.server("127.0.0.1:9001")
        with capturedLogs():
            node.upstream.ask(broken)
            other = node.come(only=server)
            nodes.run(0.5)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(server, other.lease and other.lease.server)
        self.assertEqual(1, sum(server.held for server in node.upstream.servers))

    def test_unlimited(self) -> None:
        """Where there is no limit nobody has to be asked."""
        nodes = Nodes(2, STRICT, Random(1).random, lambda: 0.5, p9001=0)
        nodes.run(3.0)
        client = nodes.all[0].come()
        nodes.clock.advance(0)
        self.assertIsNotNone(client.lease)
        nodes.run(2.0)
        self.assertEqual({"127.0.0.1:9001": 1}, nodes.published())

    def test_no_other_will_do(self) -> None:
        """Who wants one server alone gets it in any state, and is refused when it is full."""
        nodes = Nodes(2, STRICT, Random(1).random, lambda: 0.001, p9001=1, p9002=1)
        server = nodes.all[0].upstream.server("127.0.0.1:9001")
        first, second = (nodes.all[0].come(only=server) for _ in range(2))
        nodes.run(0.1)
        self.assertIsNotNone(first.lease)
        self.assertEqual((True, None), (second.answered, second.lease))

    def test_shared_out(self) -> None:
        """
        Where clients wait on all nodes each has its part, also where there is
        less than one place for each; what a node does not want the others have.
        """
        cases = ((9, 20, 0.6, 0.8), (2, 20, 0.15, 0.6), (8, 1, 0.6, 0.8))
        for limit, wanted, fair, used in cases:
            chance = Random(limit)
            nodes = Nodes(3, STRICT, chance.random, lambda: 0.001, p9001=limit)
            served: Counter[Node] = Counter()
            first, second, last = nodes.all

            def opened(node: Node, lease: Lease) -> None:
                served[node] += 1  # noqa: B023
                nodes.clock.callLater(0.05, end, node, lease)  # noqa: B023

            def end(node: Node, lease: Lease) -> None:
                node.leases.remove(lease)
                lease.release()
                node.come()

            self.patch(nodes, "opened", opened)
            for node, count in ((first, 20), (second, 20), (last, wanted)):
                # The first one has it all before the others come.
                for _ in range(count):
                    node.come()
                nodes.run(0.3)
            nodes.run(2.0)
            served.clear()
            full = 0
            for _ in range(300):
                nodes.run(0.05)
                full += sum(len(node.leases) for node in nodes.all)
            self.assertGreater(full, 300 * limit * used)
            part = min(wanted / 0.05 * 15, sum(served.values()) / 3)
            self.assertGreater(min(served[node] for node in nodes.all), fair * part, served)

    def test_one_call_for_many(self) -> None:
        """What is chosen at once, or while a call is under way, shares a call."""
        nodes = Nodes(1, STRICT, Random(1).random, lambda: 0.01, p9001=100)
        [node] = nodes.all
        asked: list[int] = []
        grant = node.store.grant
        self.patch(
            node.store,
            "grant",
            lambda *args: (asked.append(args[4][0].count), grant(*args))[1],
        )
        for count in (7, 5, 4):
            for _ in range(count):
                node.come()
            nodes.clock.advance(0.001)
        nodes.run(0.08)
        self.assertEqual(16, len(node.leases))
        self.assertEqual([7, 9], asked)


class FastTests(SynchronousTestCase):
    """
    C{counting = "fast"}: what is beyond C{max_conns} was opened by other nodes
    in the last two intervals and one round trip, and no node goes beyond it alone.
    """

    WAY = 0.02
    WINDOW = 2 * (INTERVAL + WAY)

    def begin(self, count: int, limit: int, chance: Random) -> Nodes:
        return Nodes(count, UpstreamOptions(), chance.random, lambda: self.WAY, p9001=limit)

    def test_bound(self) -> None:
        """However clients come, at each choice: at most the limit and what is too new."""
        for seed in range(10):
            chance = Random(seed)
            nodes = self.begin(4, 10, chance)
            worst = 0

            def opened(node: object, lease: object) -> None:
                now = nodes.clock.seconds()  # noqa: B023
                nodes.history.append((now, node))  # type: ignore[arg-type]  # noqa: B023
                unseen = sum(
                    1
                    for at, who in nodes.history  # noqa: B023
                    if who is not node and now - at <= self.WINDOW + 1e-9
                )
                total = sum(len(each.leases) for each in nodes.all)  # noqa: B023
                nonlocal worst
                worst = max(worst, total - 10)
                self.assertLessEqual(total, 10 + unseen, seed)  # noqa: B023
                self.assertLessEqual(total, 4 * 10)

            self.patch(nodes, "opened", opened)
            for _ in range(400):
                if chance.random() < 0.1:
                    # All at once, each at the worst moment.
                    for node in nodes.all:
                        for _ in range(chance.randrange(12)):
                            node.come()
                if chance.random() < 0.05:
                    for node in nodes.all:
                        while node.leases:
                            node.go(0)
                nodes.clock.advance(0.01)
            self.assertGreater(worst, 5)

    def test_as_far_as_that(self) -> None:
        """N nodes that are stormed at one moment take N times the limit."""
        nodes = self.begin(4, 10, Random(1))
        for node in nodes.all:
            for _ in range(15):
                node.come()
        self.assertEqual({"127.0.0.1:9001": 40}, nodes.most)
        nodes.run(self.WINDOW)
        for node in nodes.all:
            self.assertEqual(40, node.upstream.server("127.0.0.1:9001").load)

    def test_as_long_as_that(self) -> None:
        """What a node opened just after it told is unknown elsewhere for nearly so long."""
        longest = 0.0
        for seed in range(40):
            chance = Random(seed)
            nodes = self.begin(2, 1, chance)
            one, two = nodes.all
            # Any phase of the one to the other.
            two.membership._loop.stop()
            nodes.run(chance.random() * 0.1, 0.001)
            two.membership._loop.start(INTERVAL)
            nodes.run(1.0 + chance.random() * 0.1, 0.001)
            one.come()
            since = nodes.clock.seconds()
            server = two.upstream.server("127.0.0.1:9001")
            for _ in range(1000):
                if server.others:
                    break
                nodes.clock.advance(0.001)
            longest = max(longest, nodes.clock.seconds() - since)
        self.assertLessEqual(longest, self.WINDOW + 0.002)
        self.assertGreater(longest, 0.85 * self.WINDOW)
