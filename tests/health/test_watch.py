"""Tests of who checks which server when, and of what becomes of the findings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.server import Server, State
from dynbalance.balancer.upstream import FileServer
from dynbalance.config import HealthCheckConfig
from dynbalance.errors import StoreUnavailable
from dynbalance.health.judge import Finding
from dynbalance.health.watch import AT_ONCE, HealthChecks
from dynbalance.store.contract import Intent, ServerOrder
from dynbalance.store.membership import Membership
from tests.health.stores import DoorStore, order

INTERVAL = 4.0
TIMEOUT = 1.0
KEY = "127.0.0.1:9001"
FILE = "127.0.0.1:9100"


class World:
    """
    What the nodes share.

    @ivar answers: address -> what a check of it finds; empty for all well.
    @ivar slow: whether checks wait until L{let_go}.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = DoorStore(self.clock)
        self.answers: dict[str, str] = {}
        self.slow = False
        self.under_way: list[FakeCheck] = []

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.05] * int(seconds * 20))

    def let_go(self) -> None:
        for check in list(self.under_way):
            check.finish()


class FakeCheck:
    """A check whose answer the test knows."""

    def __init__(self, world: World, key: str, found: Callable[[Finding], None]) -> None:
        self._world = world
        self._key = key
        self._found = found

    def start(self) -> None:
        self._world.under_way.append(self)
        if not self._world.slow:
            self.finish()

    def finish(self) -> None:
        self.cancel()
        self._found(Finding(self._world.answers.get(self._key, "")))

    def cancel(self) -> None:
        self._world.under_way.remove(self)


class Node:
    """
    One node, with its own door to the store.

    @ivar asked: the addresses that it has checked, and when.
    """

    def __init__(
        self, world: World, name: str, random: float = 0.5, plain: bool = False, **settings: object
    ) -> None:
        """@param plain: whether it has no health checks configured."""
        self.world = world
        self.store = DoorStore(world.clock)
        self.store.inner = world.store.inner
        self.asked: list[tuple[str, float]] = []
        fixed = ServerOrder(address=FILE, host="127.0.0.1", port=9100)
        down = ServerOrder(address="127.0.0.1:9101", host="127.0.0.1", port=9101)
        balancer = Balancer(
            [
                UpstreamOrder(
                    name="default",
                    servers=(FileServer(order=fixed), FileServer(order=down, down=True)),
                )
            ],
            world.clock.seconds,
            lambda: random,
        )
        self.upstream = balancer.upstream("default")
        self.membership = Membership(
            balancer, self.store, name, 10.0, 0.1, world.clock, () if plain else ("default",)
        )
        self.checks = HealthChecks(
            self.upstream,
            HealthCheckConfig(
                **{"interval": INTERVAL, "timeout": TIMEOUT, "jitter": 0.0, **settings}  # type: ignore[arg-type]
            ),
            self.store,
            self.membership,
            self.ask,
            world.clock,
            lambda: random,
        )
        self.membership.start()
        if not plain:
            self.checks.start()

    def ask(self, server: Server, found: Callable[[Finding], None]) -> FakeCheck:
        self.asked.append((server.key, self.world.clock.seconds()))
        return FakeCheck(self.world, server.key, found)

    def times(self, key: str = KEY) -> list[float]:
        """When a server was checked."""
        return [at for asked, at in self.asked if asked == key]

    def server(self, key: str = KEY) -> Server:
        server = self.upstream.server(key)
        assert server is not None
        return server

    def state(self, key: str = KEY) -> State:
        return self.server(key).state

    def kill(self) -> None:
        """Nothing is heard of it any more."""
        self.store.lose()
        if self.checks._loop.running:
            self.checks.stop()
        self.membership._loop.stop()


class HealthChecksTests(TestCase):
    """Nodes with one server of the store and one of the file."""

    def setUp(self) -> None:
        self.world = World()
        self.successResultOf(self.world.store.inner.add("default", order(9001), "test"))

    def node(self, name: str = "one", **settings: object) -> Node:
        return Node(self.world, name, **settings)  # type: ignore[arg-type]

    def test_interval(self) -> None:
        """Each server is checked once an interval, but none that the file says is down."""
        one = self.node()
        self.world.run_for(10 * INTERVAL)
        self.assertApproximates(10, len(one.times(KEY)), 1)
        self.assertApproximates(10, len(one.times(FILE)), 1)
        self.assertEqual({KEY, FILE}, {key for key, _ in one.asked})
        self.assertEqual(State.UP, one.state())

    def test_jitter(self) -> None:
        """The wait varies by the jitter's share of the interval, to both sides."""
        for random, expected in ((0.0, 3.2), (0.5, 4.0), (1.0, 4.8)):
            world = World()
            node = Node(world, "one", random=random, jitter=0.2)
            world.run_for(30)
            times = node.times(FILE)
            waits = [after - before for before, after in pairwise(times)]
            for wait in waits:
                self.assertApproximates(expected, wait, 0.06)

    def test_starts_well(self) -> None:
        """A server that was not checked yet may serve."""
        self.world.answers[KEY] = "status 500"
        one = self.node(random=1.0, jitter=1.0)
        self.world.run_for(INTERVAL - 0.2)
        self.assertEqual(State.UP, one.state())
        self.world.run_for(0.4)
        self.assertEqual(State.UNHEALTHY, one.state())

    def test_out_and_back(self) -> None:
        """Bad answers take a server out on all nodes, with the cause; good ones bring it back."""
        one, two = self.node("one", fails=2, passes=2), self.node("two", fails=2, passes=2)
        self.world.run_for(1)
        for key in (KEY, FILE):
            self.world.answers[key] = "status 500"
            self.world.run_for(INTERVAL)
            self.assertEqual(State.UP, one.state(key))
            self.world.run_for(INTERVAL)
            for node in (one, two):
                self.assertEqual(State.UNHEALTHY, node.state(key))
                self.assertEqual(
                    "its health check fails: status 500", node.server(key).why_not
                )
            del self.world.answers[key]
            self.world.run_for(INTERVAL)
            self.assertEqual(State.UNHEALTHY, two.state(key))
            self.world.run_for(INTERVAL)
            self.assertEqual([State.UP] * 2, [one.state(key), two.state(key)])

    def test_one_asks(self) -> None:
        """However many nodes there are, one of them checks a server."""
        nodes = [self.node(name) for name in ("one", "two", "three")]
        self.world.run_for(10 * INTERVAL)
        times = [len(node.times()) for node in nodes]
        self.assertApproximates(10, sum(times), 1)
        self.assertEqual(2, times.count(0))

    def test_takes_over(self) -> None:
        """When the node that checks is killed another one goes on, from where it was."""
        self.world.answers[KEY] = "status 500"
        one = self.node("one")
        self.world.run_for(0.5)
        two = self.node("two", passes=2, fails=3)
        self.world.run_for(INTERVAL)
        self.assertEqual([], two.asked)
        self.assertEqual(State.UNHEALTHY, two.state())
        one.kill()
        killed = self.world.clock.seconds()
        self.world.run_for(3 * INTERVAL)
        # The claim ends, and then the next round of the other finds it free.
        self.assertLess(two.times()[0] - killed, INTERVAL + TIMEOUT + INTERVAL / 2 + 0.2)
        self.assertEqual(State.UNHEALTHY, two.state())
        del self.world.answers[KEY]
        self.world.run_for(2 * INTERVAL)
        self.assertEqual(State.UP, two.state())

    def test_gives_up_in_order(self) -> None:
        """A node that ends leaves its checks to the others at once."""
        one, two = self.node("one"), self.node("two")
        self.world.run_for(0.5)
        self.successResultOf(one.checks.stop())
        self.world.run_for(INTERVAL / 2)
        self.assertEqual(2, len(two.asked))
        count = len(one.asked)
        self.world.run_for(3 * INTERVAL)
        self.assertEqual(count, len(one.asked))

    def test_store_away(self) -> None:
        """While the store is away each node checks for itself and believes itself."""
        one, two = self.node("one"), self.node("two")
        self.world.run_for(1)
        for node in (one, two):
            node.store.lose()
        self.world.answers[KEY] = "status 500"
        self.world.run_for(2 * INTERVAL)
        self.assertGreater(len(two.times()), 0)
        for node in (one, two):
            self.assertEqual(State.UNHEALTHY, node.state())
        self.assertEqual({}, self.successResultOf(one.store.inner.snapshot("default")).unhealthy)

        for node in (one, two):
            node.store.find()
        self.world.run_for(INTERVAL)
        # Now everybody knows, and one asks.
        snapshot = self.successResultOf(one.store.inner.snapshot("default"))
        self.assertEqual({KEY: "status 500"}, dict(snapshot.unhealthy))
        self.assertEqual([State.UNHEALTHY] * 2, [one.state(), two.state()])
        before = len(one.times()) + len(two.times())
        self.world.run_for(5 * INTERVAL)
        self.assertApproximates(5, len(one.times()) + len(two.times()) - before, 1)

    def test_membership_changes(self) -> None:
        """What was found outlives every change of membership but the server's own removal."""
        self.world.answers[KEY] = "status 500"
        one = self.node()
        self.world.run_for(1)
        inner = self.world.store.inner
        inner.add("default", order(9002), "test")
        inner.set_intent("default", "127.0.0.1:9002", Intent.DISABLE, "test")
        self.world.run_for(1)
        self.assertEqual(State.UNHEALTHY, one.state())
        self.assertEqual(State.DISABLED, one.state("127.0.0.1:9002"))
        inner.set_intent("default", KEY, Intent.DISABLE, "test")
        inner.set_intent("default", KEY, Intent.ENABLE, "test")
        self.world.run_for(1)
        self.assertEqual(State.UNHEALTHY, one.state())
        del self.world.answers[KEY]
        inner.remove("default", KEY, "test")
        self.world.run_for(0.2)
        inner.add("default", order(9001), "test")
        self.world.run_for(0.2)
        self.assertEqual(State.UP, one.state())
        count = len(one.times())
        self.world.run_for(4 * INTERVAL)
        self.assertApproximates(4, len(one.times()) - count, 1)
        self.assertEqual(State.UP, one.state())
        self.world.answers[KEY] = "status 500"
        self.world.run_for(INTERVAL)
        self.assertEqual(State.UNHEALTHY, one.state())
        del self.world.answers[KEY]
        self.world.run_for(INTERVAL)
        self.assertEqual(State.UP, one.state())

    def test_removed(self) -> None:
        """Nobody checks a server that is gone."""
        one = self.node()
        self.world.run_for(1)
        self.world.store.inner.remove("default", KEY, "test")
        self.world.run_for(INTERVAL)
        count = len(one.times())
        self.world.run_for(3 * INTERVAL)
        self.assertEqual(count, len(one.times()))

    def test_not_configured(self) -> None:
        """What was found once does not count where there are no health checks."""
        self.world.answers[KEY] = "status 500"
        one, plain = self.node("one"), self.node("plain", plain=True)
        self.world.run_for(1)
        self.assertEqual([State.UNHEALTHY, State.UP], [one.state(), plain.state()])

    def test_undone(self) -> None:
        """A store that has forgotten what was found hears it again."""
        self.world.answers[KEY] = "status 500"
        one = self.node()
        self.world.run_for(1)
        self.successResultOf(one.store.inner.conclude_check("default", "one", KEY, ""))
        self.world.run_for(0.5)
        self.assertEqual(State.UP, one.state())
        self.world.run_for(INTERVAL)
        self.assertEqual(State.UNHEALTHY, one.state())

    def test_said_again(self) -> None:
        """What the store did not take is believed here, and said until it does."""
        one, two = self.node("one"), self.node("two")
        self.world.run_for(1)
        with capturedLogs() as logs:
            conclude = one.store.conclude_check
            one.store.conclude_check = (  # type: ignore[method-assign]
                lambda *args: fail(StoreUnavailable("OOM command not allowed"))
            )
            self.world.answers[KEY] = "status 500"
            self.world.run_for(3 * INTERVAL)
            self.assertEqual([State.UNHEALTHY, State.UP], [one.state(), two.state()])
            one.store.conclude_check = conclude  # type: ignore[method-assign]
            self.world.run_for(INTERVAL)
            self.assertEqual([State.UNHEALTHY] * 2, [one.state(), two.state()])
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(1, sum("is out: its health check fails" in line for line in lines), lines)

    def test_bounded(self) -> None:
        """No more than so many checks are under way at once; the others have their turn."""
        for port in range(2 * AT_ONCE):
            self.world.store.inner.add("default", order(20000 + port), "test")
        self.world.slow = True
        self.node()
        self.world.run_for(1)
        self.assertEqual(AT_ONCE, len(self.world.under_way))
        seen = 0
        for _ in range(4):
            seen += len(self.world.under_way)
            self.world.let_go()
        self.assertEqual(2 * AT_ONCE + 2, seen)

    def test_never_two(self) -> None:
        """A check that takes long is not overtaken by the next."""
        self.world.slow = True
        one = self.node()
        self.world.run_for(3 * INTERVAL)
        self.assertEqual(1, len(one.times()))
        self.world.let_go()
        self.world.run_for(0.1)
        self.assertEqual(2, len(one.times()))

    def test_stop(self) -> None:
        """The end leaves no check, no timer, and no slot behind."""
        self.world.slow = True
        one = self.node()
        self.world.run_for(1)
        self.assertEqual(2, len(self.world.under_way))
        self.successResultOf(one.checks.stop())
        self.successResultOf(one.membership.stop())
        self.assertEqual([], self.world.under_way)
        self.assertEqual([], self.world.clock.getDelayedCalls())
        self.assertEqual(AT_ONCE, one.checks.slots.tokens)
