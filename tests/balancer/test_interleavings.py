"""
Whatever happens in whatever order, the counts are true and the choice is right.

A machine does random things to one upstream and keeps a naive account beside
it: the open leases, what a store would have heard, and a look through all the
servers for each choice.
"""

from __future__ import annotations

from fractions import Fraction
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.leastconn import LeastConn
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.policies import POLICIES
from dynbalance.balancer.server import Server, State
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent, ServerRecord, Snapshot
from tests.balancer.building import order

LETTERS = "abcdef"

records = st.builds(
    ServerRecord,
    order=st.builds(
        order,
        st.sampled_from(LETTERS + "f"),
        weight=st.sampled_from((1, 2, 3, 4, 7, 60)),
        max_conns=st.sampled_from((0, 1, 2, 5)),
        backup=st.booleans(),
        max_fails=st.sampled_from((0, 1, 2)),
        fail_timeout=st.sampled_from((1.0, 10.0)),
    ),
    intent=st.sampled_from((*4 * (Intent.ENABLE,), Intent.DISABLE, Intent.DRAIN)),
    expired=st.sampled_from((False, False, False, True)),
)

memberships = st.lists(records, max_size=6, unique_by=lambda record: record.order.address)


letters = st.sampled_from(LETTERS)

keys = st.sampled_from((b"", b"", b"10.0.0.1", b"key"))


class Waiting:
    """
    Waits for a slot; may give it back at once.

    @ivar tried: the servers that it does not want.
    """

    def __init__(self, leases: list[Lease], tried: list[Server], fickle: bool) -> None:
        self.leases = leases
        self.tried = tried
        self.fickle = fickle
        self.served = False

    def granted(self, lease: Lease) -> None:
        """Never twice, never a server that it has tried."""
        assert not self.served
        assert lease.server not in self.tried
        self.served = True
        if self.fickle:
            lease.release()
        else:
            self.leases.append(lease)


class Interleaving(RuleBasedStateMachine):
    """One upstream under everything that can happen to it."""

    @initialize(
        policy=st.sampled_from((*POLICIES, "least_conn", "least_conn")),
        seed=st.integers(0, 1000),
        servers=memberships,
        options=st.builds(
            UpstreamOptions,
            hash_consistent=st.booleans(),
            slow_start=st.sampled_from((0.0, 0.0, 20.0)),
            queue=st.sampled_from((0, 3)),
            last_good=st.booleans(),
        ),
    )
    def begin(
        self, policy: str, seed: int, servers: list[ServerRecord], options: UpstreamOptions
    ) -> None:
        """An upstream with a server of the file and some of the store."""
        self.clock = Clock()
        self.upstream = Upstream(
            "api",
            policy,
            (FileServer(order=order("f", 2, max_conns=3)),),
            self.clock.seconds,
            Random(seed).random,
            options,
        )
        self.options = options
        self.waiters: list[Waiting] = []
        self.leases: list[Lease] = []
        self.said: dict[str, int] = {}
        self.full = True
        self.elsewhere: dict[str, int] = {}
        self.change(servers)

    @rule(servers=memberships)
    def change(self, servers: list[ServerRecord]) -> None:
        """The store says something else."""
        self.upstream.apply(Snapshot(revision=1, now=0.0, servers=tuple(servers)))

    @rule(data=st.data(), key=keys, wait=st.booleans(), fickle=st.booleans())
    def choose(self, data: st.DataObject, key: bytes, wait: bool, fickle: bool) -> None:
        """A request looks for a server, after having tried some; or waits for one."""
        everyone = list(self.upstream.servers)
        tried = data.draw(st.lists(st.sampled_from(everyone), max_size=3, unique=True))
        candidates = [
            server for server in everyone if server not in tried and server.state is State.UP
        ]
        candidates = [server for server in candidates if not server.backup] or candidates
        loads = {s: Fraction(s.load) / Fraction(s.pull) for s in candidates}
        lease = self.upstream.choose(tried, key)
        if lease is None:
            assert not candidates
            if wait:
                self.join(Waiting(self.leases, tried, fickle), key)
            return
        self.leases.append(lease)
        if not candidates:
            assert self.options.last_good
            assert lease.server not in tried
            assert lease.server.state in (State.EXPIRED, State.UNHEALTHY, State.FAILED)
            assert not any(server.ready for server in everyone)
            return
        assert lease.server in candidates
        if self.upstream.policy == "least_conn":
            assert loads[lease.server] == min(loads.values())

    def join(self, waiter: Waiting, key: bytes) -> None:
        """Somebody waits if there is a place and a full server."""
        waiting = self.upstream.waiting
        full = any(
            s.state is State.FULL and s not in waiter.tried for s in self.upstream.servers
        )
        joined = self.upstream.wait(waiter, waiter.tried, key)
        assert joined == (full and waiting < self.options.queue)
        if joined:
            self.waiters.append(waiter)

    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        """A waiter's time is over."""
        if self.waiters:
            waiter = data.draw(st.sampled_from(self.waiters))
            self.upstream.leave_queue(waiter)
            self.waiters.remove(waiter)

    @rule(letter=letters)
    def choose_this(self, letter: str) -> None:
        """A sticky client wants its server."""
        server = self.upstream.server(f"{letter}:80")
        if server is not None:
            list(self.upstream.servers)
            could = server.state is State.UP
            lease = self.upstream.choose_this(server)
            assert (lease is not None) == could
            if lease is not None:
                assert lease.server is server
                self.leases.append(lease)

    @rule(letter=letters, down=st.booleans())
    def check(self, letter: str, down: bool) -> None:
        """A health check has found something."""
        self.upstream.set_checked(f"{letter}:80", down, "checked")
        server = self.upstream.server(f"{letter}:80")
        assert server is None or server.checked_down == down

    @rule()
    def tick(self) -> None:
        """The sync loop comes by."""
        self.upstream.tick()

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """An attempt took some time."""
        if self.leases:
            server = data.draw(st.sampled_from(self.leases)).server
            self.upstream.answered(server, data.draw(st.floats(0, 10)), data.draw(st.booleans()))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A connection ends."""
        if self.leases:
            index = data.draw(st.integers(0, len(self.leases) - 1))
            self.leases.pop(index).release()

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        """An attempt is judged while its lease is still held."""
        if self.leases:
            server = data.draw(st.sampled_from(self.leases)).server
            if data.draw(st.booleans()):
                self.upstream.failed(server)
            else:
                self.upstream.succeeded(server)

    @rule(seconds=st.sampled_from((0.5, 1.5, 11.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule(
        address=st.sampled_from([f"{letter}:80" for letter in LETTERS]),
        count=st.sampled_from((0, 1, 2, 4)),
    )
    def others(self, address: str, count: int) -> None:
        """Another node holds another number; heard of with the next exchange."""
        self.elsewhere[address] = count

    @rule(
        outcome=st.sampled_from(("good", "good", "good", "lost", "answer lost", "lapsed")),
        data=st.data(),
    )
    def exchange(self, outcome: str, data: st.DataObject) -> None:
        """
        A report goes out; things happen; the store answers, or it does not,
        or it says that it has forgotten this node.
        """
        if self.full:
            self.upstream.lapsed()
        report = self.upstream.report(self.full)
        full, self.full = self.full, outcome != "good"
        self.release(data)
        if outcome == "lost":
            return
        if outcome == "lapsed":
            self.said = {}
            self.upstream.lapsed()
        else:
            self.said = dict(report) if full else {**self.said, **report}
            if outcome == "answer lost":
                return
            self.upstream.acknowledge(report)
        totals = {
            address: self.elsewhere.get(address, 0) + self.said.get(address, 0)
            for address in {*self.elsewhere, *self.said}
        }
        self.upstream.apply_totals(totals, complete=True)
        for server in self.upstream.servers:
            assert server.others == self.elsewhere.get(server.key, 0)

    @invariant()
    def counts_are_true(self) -> None:
        """A server holds as many connections as there are open leases on it."""
        held: dict[Server, int] = dict.fromkeys(self.upstream.servers, 0)
        for lease in self.leases:
            held[lease.server] = held.get(lease.server, 0) + 1
        for server, count in held.items():
            assert server.held == count, server

    @invariant()
    def usable_is_true(self) -> None:
        """A server is with its policy exactly when it may be chosen."""
        for server in self.upstream.servers:
            assert server.usable == (server.state is State.UP), server

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Where somebody waits, no server is free that would do."""
        self.waiters = [waiter for waiter in self.waiters if not waiter.served]
        assert self.upstream.waiting == len(self.waiters)
        for waiter in self.waiters:
            assert all(s in waiter.tried for s in self.upstream.servers if s.usable)

    @invariant()
    def weights_are_true(self) -> None:
        """A server has the part of its weight that it shows, and all of it when it is out."""
        for server in self.upstream.servers:
            assert server.pull == server.weight * server.slow
            assert 0 <= server.effective <= server.pull
            assert server.slow == 1 or (server.ready and self.options.slow_start)

    @invariant()
    def tries_are_true(self) -> None:
        """A request has as many tries as servers are not ordered, expired or checked out."""
        assert self.upstream.tries == sum(
            server.intent is Intent.ENABLE and not server.expired and not server.checked_down
            for server in self.upstream.servers
        )

    @invariant()
    def places_are_true(self) -> None:
        """The structure of least_conn holds the usable servers, each where it belongs."""
        for policy, backup in ((self.upstream._primaries, False), (self.upstream._backups, True)):
            if isinstance(policy, LeastConn):
                placed = []
                for lane in policy._lanes.values():
                    assert sorted(lane.loads) == sorted(lane.groups)
                    for load, group in lane.groups.items():
                        for slot, server in enumerate(group):
                            assert server.group is group
                            assert server.slot == slot
                            assert server.lane is lane
                            assert policy._lanes[lane.rank] is lane
                            assert server.load / server.pull == load
                            assert lane.cap / 4 < server.steps <= lane.cap
                            placed.append(server)
                usable = [s for s in self.upstream.servers if s.usable and s.backup == backup]
                assert sorted(placed, key=str) == sorted(usable, key=str)

    def teardown(self) -> None:
        """All connections end: nothing is held, and the store hears it."""
        if not hasattr(self, "upstream"):
            return
        for waiter in self.waiters:
            self.upstream.leave_queue(waiter)
        touched = {lease.server for lease in self.leases}
        for lease in self.leases:
            lease.release()
        self.leases = []
        self.counts_are_true()
        assert all(server.held == 0 for server in touched)
        if self.full:
            self.upstream.lapsed()
            self.said = {}
        self.said.update(self.upstream.report(self.full))
        assert not any(self.said.values()), self.said


InterleavingTests = Interleaving.TestCase
InterleavingTests.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
