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
    intent=st.sampled_from((Intent.ENABLE, Intent.ENABLE, Intent.ENABLE, Intent.DISABLE)),
    expired=st.sampled_from((False, False, False, True)),
)

memberships = st.lists(records, max_size=6, unique_by=lambda record: record.order.address)


class Interleaving(RuleBasedStateMachine):
    """One upstream under everything that can happen to it."""

    @initialize(
        policy=st.sampled_from(("least_conn", "round_robin")),
        seed=st.integers(0, 1000),
        servers=memberships,
    )
    def begin(self, policy: str, seed: int, servers: list[ServerRecord]) -> None:
        """An upstream with a server of the file and some of the store."""
        self.clock = Clock()
        self.upstream = Upstream(
            "api",
            policy,
            (FileServer(order=order("f", 2, max_conns=3)),),
            self.clock.seconds,
            Random(seed).random,
        )
        self.leases: list[Lease] = []
        self.said: dict[str, int] = {}
        self.full = True
        self.elsewhere: dict[str, int] = {}
        self.change(servers)

    @rule(servers=memberships)
    def change(self, servers: list[ServerRecord]) -> None:
        """The store says something else."""
        self.upstream.apply(Snapshot(revision=1, now=0.0, servers=tuple(servers)))

    @rule(data=st.data())
    def choose(self, data: st.DataObject) -> None:
        """A request looks for a server, after having tried some."""
        everyone = list(self.upstream.servers)
        tried = data.draw(st.lists(st.sampled_from(everyone), max_size=3, unique=True))
        candidates = [
            server for server in everyone if server not in tried and server.state is State.UP
        ]
        candidates = [server for server in candidates if not server.backup] or candidates
        loads = {server: Fraction(server.load, server.weight) for server in candidates}
        lease = self.upstream.choose(tried)
        if lease is None:
            assert not candidates
            return
        self.leases.append(lease)
        assert lease.server in candidates
        if self.upstream.policy == "least_conn":
            assert loads[lease.server] == min(loads.values())

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
                            assert server.load / server.pull == load
                            assert server.steps <= lane.cap
                            placed.append(server)
                usable = [s for s in self.upstream.servers if s.usable and s.backup == backup]
                assert sorted(placed, key=str) == sorted(usable, key=str)

    def teardown(self) -> None:
        """All connections end: nothing is held, and the store hears it."""
        if not hasattr(self, "upstream"):
            return
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
