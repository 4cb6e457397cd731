"""
The built-in policies, written as balancer hooks: what C{servers} tells is enough
to choose as they do.

C{ewma} is not among them: the times that it goes by are not told to hooks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from random import Random
from typing import Any
from zlib import crc32

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.hashing import POINTS, numbers_of_address, numbers_of_key
from dynbalance.balancer.hook import Candidate
from dynbalance.balancer.hookoutcome import PeerChosen
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import ServerOrder
from tests.balancer.hooked import decided, request, run

WEIGHTS = (1, 3, 2, 5, 1, 1)
STEPS = 600
USERS = [f"10.{n}.0.7" for n in range(40)]


def tier(b: Any) -> list[Candidate]:
    """The primaries, or the backups when no primary can take more."""
    servers = list(b.servers)
    primaries = [server for server in servers if not server.backup]
    if any(not server.full for server in primaries):
        return primaries
    return [server for server in servers if server.backup] or primaries


class RoundRobinHook:
    """Smooth weighted round robin."""

    def __init__(self) -> None:
        self._current: dict[str, float] = {}

    def __call__(self, b: Any) -> None:
        self.take(b, tier(b))

    def take(self, b: Any, servers: list[Candidate]) -> None:
        current = self._current
        usable = [server for server in servers if not server.full]
        for server in usable:
            gained = server.weight * server.slow_start
            current[server.key] = current.get(server.key, 0) + gained
        if usable:
            best = max(usable, key=lambda server: current[server.key])
            current[best.key] -= sum(server.weight * server.slow_start for server in usable)
            b.set_current_peer(best)


class RandomTwoHook(RoundRobinHook):
    """Of two that are drawn the one with fewer connections for its weight."""

    def __init__(self, random: Callable[[], float]) -> None:
        super().__init__()
        self._random = random

    def __call__(self, b: Any) -> None:
        servers = tier(b)
        if len(servers) < 2:
            self.take(b, servers)
            return
        bounds = list(accumulate(server.weight for server in servers))
        drawn: list[Candidate] = []
        for _ in range(22):
            at = bisect_right(bounds, self._random() * bounds[-1], 0, len(servers) - 1)
            if not servers[at].full and servers[at] not in drawn:
                drawn.append(servers[at])
            if len(drawn) == 2:
                break
        if drawn:
            b.set_current_peer(min(reversed(drawn), key=_load))
        else:
            self.take(b, servers)


class WeightHashHook(RoundRobinHook):
    """A key's numbers, by the sum of the weights."""

    def __init__(self, numbers: Callable[[bytes], Iterator[int]]) -> None:
        super().__init__()
        self._numbers = numbers

    def __call__(self, b: Any) -> None:
        servers = tier(b)
        bounds = list(accumulate(server.weight for server in servers))
        numbers = self._numbers(b.request.client.encode())
        for _ in range(21 if len(servers) > 1 else 0):
            server = servers[bisect_right(bounds, next(numbers) % bounds[-1])]
            if not server.full:
                b.set_current_peer(server)
                return
        self.take(b, servers)


class ConsistentHashHook(RoundRobinHook):
    """The ketama ring."""

    def __call__(self, b: Any) -> None:
        servers = tier(b)
        owners: dict[int, Candidate] = {}
        for server in servers:
            base = crc32(f"{server.host}\0{server.port}".encode())
            point = 0
            for _ in range(server.weight * POINTS):
                point = crc32(point.to_bytes(4, "little"), base)
                owners.setdefault(point, server)
        points = sorted(owners)
        at = bisect_right(points, crc32(b.request.client.encode()) - 1)
        for step in range(21 if len(servers) > 1 else 0):
            server = owners[points[(at + step) % len(points)]]
            if not server.full:
                b.set_current_peer(server)
                return
        self.take(b, servers)


def _load(server: Candidate) -> float:
    return server.connections / server.weight


def least_loaded(b: Any) -> None:
    """Leaves to chance, as the policy does, which of equals it is."""
    usable = [server for server in tier(b) if not server.full]
    if usable:
        least = min(map(_load, usable))
        b.ctx["equals"] = {server.key for server in usable if _load(server) == least}
        b.set_current_peer(next(server for server in usable if _load(server) == least))


class SameChoiceTests(TestCase):
    """
    Two upstreams with the same servers, one under the policy and one under the
    hook, have the same requests, which end at random.
    """

    def made(self, policy: str, consistent: bool = True) -> Upstream:
        servers = [
            FileServer(
                order=ServerOrder(
                    address=f"127.0.0.1:{n + 1}",
                    host="127.0.0.1",
                    port=n + 1,
                    weight=weight,
                    max_conns=4,
                    backup=n >= len(WEIGHTS) - self.backups,
                )
            )
            for n, weight in enumerate(WEIGHTS)
        ]
        options = UpstreamOptions(hash_consistent=consistent, slow_start=self.slow_start)
        return Upstream("u", policy, servers, self.clock.seconds, Random(7).random, options)

    def setUp(self) -> None:
        self.clock = Clock()
        self.slow_start = 0.0
        self.backups = 2

    def story(
        self, call: Callable[[Any], None], policy: str, consistent: bool = True, change: int = 0
    ) -> None:
        """@param change: after how many steps some server goes or comes; 0 for never."""
        by_policy, by_hook = self.made(policy, consistent), self.made("round_robin")
        chance = Random(3)
        held: list[tuple[Lease, Lease]] = []
        full = 0
        for step in range(1, STEPS):
            self.clock.advance(0.1)
            by_policy.tick()
            by_hook.tick()
            if change and step % change == 0:
                key = f"127.0.0.1:{chance.randrange(len(WEIGHTS)) + 1}"
                down = chance.random() < 0.5
                by_policy.set_checked(key, down, "")
                by_hook.set_checked(key, down, "")
            client = chance.choice(USERS)
            lease = by_policy.choose((), client.encode() if by_policy.wants_key else b"")
            seen = request()
            seen.client = client
            outcome = decided(run(call, by_hook, seen=seen).attempt(1))
            chosen = outcome.server.key if isinstance(outcome, PeerChosen) else None
            self.assertEqual(None if lease is None else lease.server.key, chosen, step)
            if lease is None:
                full += 1
            else:
                assert isinstance(outcome, PeerChosen)
                held.append((lease, outcome.hold()))
            # The tides: until nobody has a place, and out again.
            for _ in range(min(len(held), 2 if step % 60 > 40 else 0)):
                for each in held.pop(chance.randrange(len(held))):
                    each.release()
        self.assertGreater(full, 0)

    def test_round_robin(self) -> None:
        """round_robin, also while servers go and come, and start slowly."""
        self.story(RoundRobinHook(), "round_robin")
        self.story(RoundRobinHook(), "round_robin", change=7)
        self.slow_start = 5.0
        self.story(RoundRobinHook(), "round_robin", change=7)

    def test_random_two(self) -> None:
        """random_two, with the same random numbers (draws among full primaries cost some)."""
        self.backups = 0
        self.story(RandomTwoHook(Random(7).random), "random_two")

    def test_hash(self) -> None:
        """hash, both ways, and ip_hash."""
        self.story(WeightHashHook(numbers_of_key), "hash", consistent=False)
        self.story(WeightHashHook(numbers_of_address), "ip_hash")
        self.story(ConsistentHashHook(), "hash")

    def test_least_conn(self) -> None:
        """least_conn: the policy's choice is always one of the hook's equals."""
        made = self.made("least_conn")
        chance = Random(3)
        held: list[Lease] = []
        for step in range(1, STEPS):
            if step % 7 == 0:
                key = f"127.0.0.1:{chance.randrange(len(WEIGHTS)) + 1}"
                made.set_checked(key, chance.random() < 0.5, "")
            asked = run(least_loaded, made)
            decided(asked.attempt(1))
            lease = made.choose()
            if lease is None:
                self.assertNotIn("equals", asked.ctx)
            else:
                self.assertIn(lease.server.key, asked.ctx["equals"])
                held.append(lease)
            for _ in range(min(len(held), 2 if step % 60 > 40 else 0)):
                held.pop(chance.randrange(len(held))).release()
