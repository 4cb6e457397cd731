"""The example hooks of the documentation, each doing what its text says."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.attempts import Cause
from dynbalance.balancer.hookload import load_hook
from dynbalance.balancer.hookoutcome import Exit, Fallback, PeerChosen, Timeouts
from tests.balancer.building import upstream
from tests.balancer.hooked import decided, numbered, peer, request, run
from tests.store.real import Client, Server

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class ExampleCase(TestCase):
    """Finds the examples as a configuration does."""

    def example(self, name: str) -> Any:
        """The module of an example."""
        if str(EXAMPLES) not in sys.path:
            sys.path.insert(0, str(EXAMPLES))
            self.addCleanup(sys.path.remove, str(EXAMPLES))
        load_hook(f"{name}:choose")
        return sys.modules[name]


class StickyByHeaderTests(ExampleCase):
    """C{sticky_by_header.py}"""

    def test_one_user_one_server(self) -> None:
        """A user's requests go to one server, and users are spread over the servers."""
        choose = self.example("sticky_by_header").choose
        to = upstream(*numbered(1, 2, 3))
        homes = {}
        for number in range(60):
            user = request((b"x-user", b"%d" % number))
            found = {peer(run(choose, to, seen=user).attempt(3)) for _ in range(3)}
            self.assertEqual(len(found), 1)
            homes[number] = found.pop()
        self.assertEqual(len(set(homes.values())), 3)
        # One server less moves its own users only.
        fewer = upstream(*numbered(1, 2))
        for number, home in homes.items():
            user = request((b"x-user", b"%d" % number))
            moved = peer(run(choose, fewer, seen=user).attempt(2))
            self.assertTrue(home == moved or home == "127.0.0.1:3")

    def test_left_to_the_policy(self) -> None:
        """Without a user, after a failure, and without servers."""
        choose = self.example("sticky_by_header").choose
        self.assertEqual(decided(run(choose).attempt(1)), Fallback())
        user = request((b"x-user", b"7"))
        self.assertEqual(decided(run(choose, upstream(), seen=user).attempt(1)), Fallback())
        made = run(choose, seen=user)
        peer(made.attempt(2))
        made.attempt_failed(Cause.ERROR)
        self.assertEqual(decided(made.attempt(1)), Fallback())


class CanaryTests(ExampleCase):
    """C{canary.py}"""

    def test_share(self) -> None:
        """The share of requests, and those that ask for it, go there."""
        draws = iter([0.0, 0.049, 0.05, 0.9])
        choose = self.example("canary").Canary("127.0.0.1:9100", 0.05, lambda: next(draws))
        outcomes = [decided(run(choose).attempt(1)) for _ in range(4)]
        self.assertEqual([isinstance(o, PeerChosen) for o in outcomes], [True, True, False, False])
        asked = request((b"x-canary", b"1"))
        self.assertEqual(peer(run(choose, seen=asked).attempt(1)), "127.0.0.1:9100")

    def test_failure(self) -> None:
        """A request that failed there goes on with the upstream's own servers."""
        made = run(self.example("canary").Canary("127.0.0.1:9100", 1, lambda: 0.0))
        first = decided(made.attempt(1))
        assert isinstance(first, PeerChosen)
        self.assertEqual(first.more_tries, 1)
        made.attempt_failed(Cause.ERROR)
        self.assertEqual(decided(made.attempt(1)), Fallback())


class RedisLookupTests(ExampleCase):
    """C{redis_lookup.py}"""

    tenant = request((b"x-tenant", b"acme"))

    def lookup(self, answer: Deferred[Any], clock: Clock) -> Any:
        """The hook beside a Redis that gives one answer."""

        class Redis:
            def hget(self, key: str, field: str) -> Deferred[Any]:
                return answer

        return self.example("redis_lookup").TenantLookup(Redis, clock)

    @inlineCallbacks
    def test_real_redis(self) -> Generator[Any, Any, None]:
        """The peer of a tenant is looked up in a Redis, and the hook waits for it."""
        server = Server()
        self.addCleanup(server.end)
        client = Client(server.path)
        client("HSET", "tenants", "acme", "127.0.0.1:9301")
        client.close()
        redis = yield txredisapi.UnixConnection(server.path, reconnect=False)
        self.addCleanup(redis.disconnect)
        from twisted.internet import reactor

        choose = self.example("redis_lookup").TenantLookup(lambda: redis, reactor, 5)
        waiting = run(choose, seen=self.tenant).attempt(1)
        assert isinstance(waiting, Deferred)
        outcome = yield waiting
        self.assertEqual(peer(outcome), "127.0.0.1:9301")
        outcome = yield run(choose, seen=request((b"x-tenant", b"nobody"))).attempt(1)
        self.assertEqual(outcome, Exit(404))

    def test_no_answer(self) -> None:
        """When Redis is too slow, the policy chooses."""
        clock = Clock()
        never: Deferred[Any] = Deferred()
        waiting = run(self.lookup(never, clock), seen=self.tenant).attempt(1)
        assert isinstance(waiting, Deferred)
        clock.advance(0.19)
        self.assertNoResult(waiting)
        clock.advance(0.02)
        self.assertEqual(self.successResultOf(waiting), Fallback())
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_redis_away(self) -> None:
        """When Redis is away, too."""
        for error in (ConnectionDone(), txredisapi.ConnectionError("Not connected")):
            made = run(self.lookup(fail(error), Clock()), seen=self.tenant)
            self.assertEqual(decided(made.attempt(1)), Fallback())

    def test_client_gone(self) -> None:
        """When the client leaves, the question is given up."""
        clock = Clock()
        waiting = run(self.lookup(Deferred(), clock), seen=self.tenant).attempt(1)
        assert isinstance(waiting, Deferred)
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """An answer that is there already is used without a wait."""
        made = run(self.lookup(succeed("127.0.0.1:9302"), Clock()), seen=self.tenant)
        self.assertEqual(peer(made.attempt(1)), "127.0.0.1:9302")


class FailoverTests(ExampleCase):
    """C{failover.py}"""

    def test_first(self) -> None:
        """The first site is asked first, with timeouts of its own and tries for the others."""
        made = run(self.example("failover").choose)
        outcome = decided(made.attempt(1))
        assert isinstance(outcome, PeerChosen)
        self.assertEqual(str(outcome.server.address), "127.0.0.1:9201")
        self.assertEqual(outcome.more_tries, 3)
        self.assertEqual(made.timeouts, Timeouts(0.5, None, 5))

    def after(self, *causes: Cause) -> list[Any]:
        """Where the attempts go, each after a failure of the one before."""
        made = run(self.example("failover").choose)
        ways: list[Any] = []
        for cause in (*causes, None):
            outcome = decided(made.attempt(9))
            if isinstance(outcome, PeerChosen):
                ways.append(outcome.server.address.port)
            else:
                ways.append(outcome)
            if cause is not None:
                made.attempt_failed(cause)
        return ways

    def test_one_after_the_other(self) -> None:
        """Sites that fail are followed by the next one, and in the end by the archive."""
        self.assertEqual(
            self.after(Cause.ERROR, Cause.HTTP_503, Cause.ERROR, Cause.ERROR),
            [9201, 9202, 9203, 9209, Exit(502)],
        )

    def test_not_found(self) -> None:
        """After 404 the archive is asked, once."""
        self.assertEqual(self.after(Cause.HTTP_404, Cause.HTTP_404), [9201, 9209, Exit(404)])

    def test_timeout(self) -> None:
        """After a timeout nobody is."""
        self.assertEqual(self.after(Cause.TIMEOUT), [9201, Exit(504)])
