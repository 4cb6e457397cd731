"""
A server as this node sees it: what was ordered, what was observed, what it
carries.

Knows one server; refuses to know how one is chosen among many, the store and
the clock.  Every attribute is plain, because the way of each request reads and
writes them; what keeps them in step with each other is L{Server.settle}.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from dynbalance.balancer.address import Address
from dynbalance.balancer.latency import Times
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord

if TYPE_CHECKING:
    from dynbalance.balancer.leastconn import Lane
    from dynbalance.balancer.policies import Policy


class State(Enum):
    """The one word for a server; the first that is true, in this order."""

    REMOVED = "removed"
    DOWN = "down"
    DISABLED = "disabled"
    DRAINING = "draining"
    EXPIRED = "expired"
    UNHEALTHY = "unhealthy"
    FAILED = "failed"
    FULL = "full"
    UP = "up"


_WHY = {
    State.REMOVED: "it was removed",
    State.DOWN: "the configuration file says down",
    State.DISABLED: "an operator disabled it",
    State.DRAINING: "an operator drains it",
    State.EXPIRED: "its heartbeats stopped",
    State.UNHEALTHY: "its health check fails",
    State.FAILED: "it failed max_fails times and fail_timeout has not passed",
    State.FULL: "it holds max_conns connections",
}

STEPS = 64
"""
Steps in which a server starts slowly.  A power of two, so that sums of parts of
weights are exact and no rounding remains in anybody's turn.
"""


class Server:
    """
    One server of one upstream, alive on this node.

    @ivar key: what the store, logs and people call it; C{str(address)} but
        for addresses that others wrote into the store in another form, and
        for those that the file lists again (C{ADDRESS#2}).
    @ivar max_conns: connections over all nodes at most; 0 for no limit.
    @ivar limit: the same, but very large for no limit.
    @ivar from_file: known from the configuration file, not from the store.
    @ivar down: the configuration file says so.
    @ivar record: what the store said last; C{None} for a server of the file.
    @ivar route: names the server in a cookie without telling its address; the
        same on every node.

    @ivar held: connections that this node holds.
    @ivar others: connections that the other nodes were last known to hold.
    @ivar reported: of C{held}, what the store has acknowledged.
    @ivar asked: of C{held}, choices that the store has not granted yet; 0
        where it is not asked.
    @ivar granted: connections that the store counts for this node whatever
        is on its way; of use only where it is asked.

    @ivar fails: failures since the last successful probe.
    @ivar accessed: when it failed last, in seconds of the upstream's clock.
    @ivar checked: when it failed or was probed last.
    @ivar failed: out because of C{fails}, until C{checked + fail_timeout}.

    @ivar expired: missing heartbeats took it out.
    @ivar expired_at: when they did, in seconds of the upstream's clock.
    @ivar checked_down: its health check took it out.
    @ivar checked_down_at: when it did.
    @ivar check_cause: what the health check found last; empty before the first.

    @ivar ready: neither ordered nor observed out.
    @ivar usable: ready and not full; exactly then the policy may choose it.
    @ivar policy: of the tier that the server belongs to.
    @ivar flipped: is called when C{ready} has changed, before the server
        gets its place with the policy; C{None} where nobody cares.

    @ivar slow_start: seconds in which the server reaches its weight; 0 for
        what the upstream says.
    @ivar slow: the part of its weight that it has reached: 1, or less while
        it starts slowly.
    @ivar pull: the weight that the policy goes by: C{weight * slow}.
    @ivar steps: the same in L{STEPS}, a whole number.

    @ivar lane, group, slot: where L{LeastConn
        <dynbalance.balancer.leastconn.LeastConn>} keeps a usable server.
    @ivar current, effective: the weights of L{RoundRobin
        <dynbalance.balancer.roundrobin.RoundRobin>}.
    @ivar time, timed_at: what L{Ewma <dynbalance.balancer.twodraws.Ewma>} has
        observed in seconds, and when; C{timed_at} is C{None} before the first
        answer.

    @ivar picks: how often it was chosen.
    @ivar failures: attempts that were judged failed.
    @ivar responses: answers by class: C{responses[2]} counts 200-299; index 0
        counts what has no class.
    @ivar bytes_in: bytes from clients to the server.
    @ivar bytes_out: bytes from the server to clients.
    @ivar times: from the choice to the head of each answer of HTTP.
    @ivar flips: how often it became ready (C{UP}), or ceased to be for a reason.
    @ivar connects: from the choice to each new connection.
    """

    __slots__ = (
        "accessed",
        "address",
        "asked",
        "backup",
        "bytes_in",
        "bytes_out",
        "check_cause",
        "checked",
        "checked_down",
        "checked_down_at",
        "connects",
        "current",
        "disabled_reason",
        "down",
        "effective",
        "expired",
        "expired_at",
        "fail_timeout",
        "failed",
        "fails",
        "failures",
        "flipped",
        "flips",
        "from_file",
        "granted",
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
        "pull",
        "ready",
        "record",
        "removed",
        "reported",
        "responses",
        "route",
        "slot",
        "slow",
        "slow_start",
        "steps",
        "time",
        "timed_at",
        "times",
        "usable",
        "weight",
    )

    lane: Lane
    group: list[Server]

    def __init__(
        self,
        address: Address,
        order: ServerOrder,
        policy: Policy,
        route: str = "",
        flipped: Callable[[Server], None] | None = None,
    ) -> None:
        self.address = address
        self.key = order.address
        self.policy = policy
        self.route = route
        self.flipped = flipped
        self.from_file = False
        self.down = False
        self.intent = Intent.ENABLE
        self.expired = False
        self.expired_at = 0.0
        self.checked_down = False
        self.checked_down_at = 0.0
        self.check_cause = ""
        self.disabled_reason: str | None = None
        self.record: ServerRecord | None = None
        self.removed = False
        self.held = 0
        self.others = 0
        self.reported = 0
        self.asked = 0
        self.granted = 0
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
        self.times = Times()
        self.connects = Times()
        self.flips: Counter[State] = Counter()
        self.slot = 0
        self.slow = 1.0
        self.current: float = 0
        self.weight = order.weight
        self.pull: float = order.weight
        self.effective: float = order.weight
        self.time = 0.0
        self.timed_at: float | None = None
        self.follow(order)

    def follow(self, order: ServerOrder) -> None:
        """
        Take over what is ordered.  The caller has taken the server from its
        policy, and settles it afterwards.
        """
        self.weight = order.weight
        self.weigh(self.slow)
        self.max_conns = order.max_conns
        self.limit = order.max_conns or sys.maxsize
        self.backup = order.backup
        self.max_fails = order.max_fails
        self.fail_timeout = order.fail_timeout
        self.slow_start = order.slow_start

    def obey(self, order: ServerOrder, down: bool) -> None:
        """Take over what the file says, and nothing else; likewise."""
        self.follow(order)
        self.from_file = True
        self.down = down
        self.removed = self.expired = False
        self.intent = Intent.ENABLE
        self.disabled_reason = self.record = None

    def hear(self, record: ServerRecord, since: float) -> None:
        """
        Take over what the store says; likewise.

        @param since: when it was taken out, if it is out.
        """
        self.follow(record.order)
        if record.expired and not self.expired:
            self.expired_at = since
        self.removed = False
        self.intent = record.intent
        self.expired = record.expired
        self.disabled_reason = record.disabled_reason
        self.record = record

    def differs(self, record: ServerRecord) -> bool:
        """Whether the store says anything new but times and counts."""
        order = record.order
        return (
            self.weight != order.weight
            or self.max_conns != order.max_conns
            or self.backup != order.backup
            or self.max_fails != order.max_fails
            or self.fail_timeout != order.fail_timeout
            or self.slow_start != order.slow_start
            or self.intent is not record.intent
            or self.expired != record.expired
            or self.disabled_reason != record.disabled_reason
        )

    def weigh(self, slow: float) -> None:
        """Set the part of its weight that the server has; likewise."""
        pull = self.weight if slow == 1 else self.weight * slow
        # What failures took from the weight stays taken.
        self.effective = max(0, pull - self.pull + self.effective)
        self.slow = slow
        self.pull = pull
        self.steps = int(pull * STEPS)

    @property
    def load(self) -> int:
        """Connections over all nodes, as far as this one knows."""
        return self.held + self.others

    @property
    def ordered(self) -> bool:
        """Whether neither the file nor an operator keeps it out."""
        return not (self.removed or self.down or self.intent is not Intent.ENABLE)

    @property
    def eligible(self) -> bool:
        """Whether it is ordered, and neither heartbeats nor the health check keep it out."""
        return self.ordered and not (self.expired or self.checked_down)

    @property
    def lost_at(self) -> float:
        """Since when heartbeats or the health check keep it out; one of them does."""
        if self.expired and self.checked_down:
            return min(self.expired_at, self.checked_down_at)
        return self.expired_at if self.expired else self.checked_down_at

    @property
    def state(self) -> State:
        if self.removed:
            return State.REMOVED
        if self.down:
            return State.DOWN
        if self.intent is not Intent.ENABLE:
            return State.DRAINING if self.intent is Intent.DRAIN else State.DISABLED
        return self._observed

    @property
    def _observed(self) -> State:
        if self.expired:
            return State.EXPIRED
        if self.checked_down:
            return State.UNHEALTHY
        if self.failed:
            return State.FAILED
        if self.held + self.others >= self.limit:
            return State.FULL
        return State.UP

    @property
    def why_not(self) -> str | None:
        """Why it gets no connection now; C{None} when it may get one."""
        state = self.state
        why = _WHY.get(state)
        if state is State.UNHEALTHY and self.check_cause:
            return f"{why}: {self.check_cause}"
        return why

    def settle(self) -> None:
        """Give the server its place with the policy, or take it away."""
        if self.usable:
            self.policy.leave(self)
        ready = self.eligible and not self.failed
        if ready is not self.ready:
            self.ready = ready
            self.flips[State.UP if ready else self.state] += 1
            if self.flipped is not None:
                self.flipped(self)
        if ready and self.held + self.others < self.limit:
            self.policy.enter(self)

    def __repr__(self) -> str:
        limit = self.max_conns or "-"
        return (
            f"<Server {self.key} {self.state.value} weight={self.weight}"
            f" held={self.held} others={self.others} max_conns={limit} fails={self.fails}>"
        )
