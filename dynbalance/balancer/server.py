"""
A server as this node sees it: what was ordered, what was observed, what it
carries.

Knows one server; refuses to know how one is chosen among many, the store and
the clock.  Every attribute is plain, because the way of each request reads and
writes them; what keeps them in step with each other is L{Server.settle}.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import TYPE_CHECKING

from dynbalance.balancer.address import Address
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord

if TYPE_CHECKING:
    from dynbalance.balancer.policies import Lane, Policy


class State(Enum):
    """The one word for a server; the first that is true, in this order."""

    REMOVED = "removed"
    DOWN = "down"
    DISABLED = "disabled"
    EXPIRED = "expired"
    FAILED = "failed"
    FULL = "full"
    UP = "up"


_WHY = {
    State.REMOVED: "it was removed",
    State.DOWN: "the configuration file says down",
    State.DISABLED: "an operator disabled it",
    State.EXPIRED: "its heartbeats stopped",
    State.FAILED: "it failed max_fails times and fail_timeout has not passed",
    State.FULL: "it holds max_conns connections",
}


class Server:
    """
    One server of one upstream, alive on this node.

    @ivar key: what the store calls it; C{str(address)} but for addresses
        that others wrote into the store in another form.
    @ivar max_conns: connections over all nodes at most; 0 for no limit.
    @ivar limit: the same, but very large for no limit.
    @ivar from_file: known from the configuration file, not from the store.
    @ivar down: the configuration file says so.
    @ivar record: what the store said last; C{None} for a server of the file.

    @ivar held: connections that this node holds.
    @ivar others: connections that the other nodes were last known to hold.
    @ivar reported: of C{held}, what the store has acknowledged.

    @ivar fails: failures since the last successful probe.
    @ivar accessed: when it failed last, in seconds of the upstream's clock.
    @ivar checked: when it failed or was probed last.
    @ivar failed: out because of C{fails}, until C{checked + fail_timeout}.

    @ivar ready: neither ordered nor observed out.
    @ivar usable: ready and not full; exactly then the policy may choose it.
    @ivar policy: of the tier that the server belongs to.

    @ivar lane, group, slot: where L{LeastConn
        <dynbalance.balancer.policies.LeastConn>} keeps a usable server.
    @ivar current, effective: the weights of L{RoundRobin
        <dynbalance.balancer.policies.RoundRobin>}.

    @ivar picks: how often it was chosen.
    @ivar failures: attempts that were judged failed.
    @ivar responses: answers by class: C{responses[2]} counts 200-299; index 0
        counts what has no class.
    @ivar bytes_in: bytes from clients to the server.
    @ivar bytes_out: bytes from the server to clients.
    """

    __slots__ = (
        "accessed",
        "address",
        "backup",
        "bytes_in",
        "bytes_out",
        "checked",
        "current",
        "disabled_reason",
        "down",
        "effective",
        "expired",
        "fail_timeout",
        "failed",
        "fails",
        "failures",
        "from_file",
        "group",
        "held",
        "intent",
        "key",
        "lane",
        "limit",
        "max_conns",
        "max_fails",
        "others",
        "picks",
        "policy",
        "ready",
        "record",
        "removed",
        "reported",
        "responses",
        "slot",
        "usable",
        "weight",
    )

    lane: Lane
    group: list[Server]

    def __init__(self, address: Address, order: ServerOrder, policy: Policy) -> None:
        self.address = address
        self.key = order.address
        self.policy = policy
        self.from_file = False
        self.down = False
        self.intent = Intent.ENABLE
        self.expired = False
        self.disabled_reason: str | None = None
        self.record: ServerRecord | None = None
        self.removed = False
        self.held = 0
        self.others = 0
        self.reported = 0
        self.fails = 0
        self.accessed = 0.0
        self.checked = 0.0
        self.failed = False
        self.ready = False
        self.usable = False
        self.picks = 0
        self.failures = 0
        self.responses = [0, 0, 0, 0, 0, 0]
        self.bytes_in = 0
        self.bytes_out = 0
        self.slot = 0
        self.current = 0
        self.weight = self.effective = order.weight
        self.follow(order)

    def follow(self, order: ServerOrder) -> None:
        """
        Take over what is ordered.  The caller has taken the server from its
        policy, and settles it afterwards.
        """
        # What failures took from the weight stays taken.
        self.effective = max(0, order.weight - self.weight + self.effective)
        self.weight = order.weight
        self.max_conns = order.max_conns
        self.limit = order.max_conns or sys.maxsize
        self.backup = order.backup
        self.max_fails = order.max_fails
        self.fail_timeout = order.fail_timeout

    @property
    def load(self) -> int:
        """Connections over all nodes, as far as this one knows."""
        return self.held + self.others

    @property
    def eligible(self) -> bool:
        """Whether neither the file, an operator nor a missing heartbeat keeps it out."""
        return not (
            self.removed or self.down or self.expired or self.intent is not Intent.ENABLE
        )

    @property
    def state(self) -> State:
        if self.removed:
            return State.REMOVED
        if self.down:
            return State.DOWN
        if self.intent is not Intent.ENABLE:
            return State.DISABLED
        if self.expired:
            return State.EXPIRED
        if self.failed:
            return State.FAILED
        if self.held + self.others >= self.limit:
            return State.FULL
        return State.UP

    @property
    def why_not(self) -> str | None:
        """Why it gets no connection now; C{None} when it may get one."""
        return _WHY.get(self.state)

    def settle(self) -> None:
        """Give the server its place with the policy, or take it away."""
        if self.usable:
            self.policy.leave(self)
        self.ready = self.eligible and not self.failed
        if self.ready and self.held + self.others < self.limit:
            self.policy.enter(self)

    def __repr__(self) -> str:
        limit = self.max_conns or "-"
        return (
            f"<Server {self.key} {self.state.value} weight={self.weight}"
            f" held={self.held} others={self.others} max_conns={limit} fails={self.fails}>"
        )
