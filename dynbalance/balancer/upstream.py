"""
A named set of servers: who may be chosen now, and how that changes.

Knows the tiers, and how the live servers are brought in line with the store;
refuses to know the store itself, transports and the policies' inner workings.

Servers have an identity: what the store says is compared with what is here,
and only the difference is applied, so that counts, statistics and failures
outlive every change.  A server that was removed while it carries connections
is remembered until they have ended and the store has heard so; when it is
added again before that, it is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from attrs import frozen

from dynbalance.balancer.address import Address
from dynbalance.balancer.judgement import Judgement
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.policies import POLICIES
from dynbalance.balancer.server import Server, State
from dynbalance.errors import BadAddress
from dynbalance.store.contract import ServerOrder, ServerRecord, Snapshot


@frozen(slots=True, kw_only=True)
class FileServer:
    """
    A server that the configuration file names.

    @ivar down: never to be chosen.
    """

    order: ServerOrder
    down: bool = False


@frozen(slots=True, kw_only=True)
class Applied:
    """
    What a snapshot changed, by the servers' keys.

    @ivar refused: a line for each record that cannot be a server, beginning
        with its key.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Upstream:
    """
    The live servers under one name, and the choice among them.

    @ivar name: as in the configuration.
    @ivar policy: the policy's name.
    @ivar revision: of the snapshot that was applied last.
    @ivar tries: servers, backups included, that are not ordered or expired
        out: the attempts that a request has at first.
    """

    def __init__(
        self,
        name: str,
        policy: str,
        servers: Iterable[FileServer],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """
        @param policy: one of L{POLICIES}.
        @param servers: those of the configuration file.
        @param now: seconds that never run backwards.
        @param random: a number in [0, 1).
        @raise BadAddress: of one of C{servers}.
        """
        self.name = name
        self.policy = policy
        self.revision = 0
        self.tries = 0
        self._primaries = POLICIES[policy](random)
        self._backups = POLICIES[policy](random)
        self._servers: dict[str, Server] = {}
        self._leaving: dict[str, Server] = {}
        self._totals: dict[str, int] = {}
        self._acknowledged: list[Server] = []
        self._judgement = Judgement(now)
        self._out = self._judgement.out
        for plain in servers:
            server = self._admit(plain.order, Address.parse(plain.order.address))
            server.from_file = True
            server.down = plain.down
        self._arrange(self._servers.values())

    # Choosing

    def choose(self, tried: Collection[Server] = ()) -> Lease | None:
        """
        Choose a server and count a connection on it.

        @param tried: never to be chosen again for this request.
        @return: C{None} when no server can take the connection.
        """
        if self._out:
            self._judgement.let_probe()
        if tried:
            return self._choose_another(tried)
        server = self._primaries.take() or self._backups.take()
        if server is None:
            return None
        if server.fails:
            self._judgement.picked(server)
        return Lease(server)

    def _choose_another(self, tried: Collection[Server]) -> Lease | None:
        hidden = [server for server in tried if server.usable]
        for server in hidden:
            server.policy.leave(server)
        chosen = self._primaries.take() or self._backups.take()
        for server in hidden:
            server.policy.enter(server)
        if chosen is None:
            return None
        if chosen.fails:
            self._judgement.picked(chosen)
        return Lease(chosen)

    def why_none(self, tried: Collection[Server] = ()) -> str:
        """Why L{choose} gave C{None}, for the log."""
        if not self._servers:
            return "no live upstreams: there are no servers"
        reasons: dict[str, int] = {}
        for server in self._servers.values():
            reason = "tried" if server in tried else server.state.value
            reasons[reason] = reasons.get(reason, 0) + 1
        counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        return f"no live upstreams: of {len(self._servers)} servers {counted}"

    def failed(self, server: Server) -> bool:
        """
        An attempt on the server failed in a way that counts.

        @return: whether that took the server out.
        """
        return self._judgement.failed(server)

    def succeeded(self, server: Server) -> bool:
        """
        An attempt on the server succeeded.  Needs to be told only while
        C{server.fails} is not 0.

        @return: whether that brought the server back.
        """
        return self._judgement.succeeded(server)

    # Membership

    def apply(self, snapshot: Snapshot) -> Applied:
        """
        Bring the servers in line with the store.  Those of the file stay as
        they are, whatever the store says of their addresses.

        @return: what that changed.
        """
        added: list[str] = []
        changed: list[str] = []
        refused: list[str] = []
        ordered = [server for server in self._servers.values() if server.from_file]
        unsettled: list[Server] = []
        missing = {key: s for key, s in self._servers.items() if not s.from_file}
        for record in snapshot.servers:
            key = record.order.address
            if record.order.weight < 1:
                refused.append(f"{key}: weight {record.order.weight} is not positive")
                continue
            server = self._servers.get(key)
            if server is None:
                try:
                    server = self._admit(record.order, _address_of(record.order))
                except BadAddress as error:
                    refused.append(f"{key}: {error}")
                    continue
                added.append(key)
            elif server.from_file:
                continue
            else:
                missing.pop(key, None)
                if _differs(server, record):
                    changed.append(key)
                elif server.record is not None:
                    server.record = record
                    ordered.append(server)
                    continue
            _follow(server, record)
            ordered.append(server)
            unsettled.append(server)
        for server in missing.values():
            self._dismiss(server)
        self._servers = {server.key: server for server in ordered}
        self._arrange(unsettled)
        self.revision = snapshot.revision
        return Applied(
            added=tuple(added),
            removed=tuple(missing),
            changed=tuple(changed),
            refused=tuple(refused),
        )

    def _admit(self, order: ServerOrder, address: Address) -> Server:
        """The server of an order: the one that is leaving, or a new one."""
        policy = self._backups if order.backup else self._primaries
        server = self._leaving.pop(order.address, None)
        if server is None:
            server = Server(address, order, policy)
            server.others = self._totals.get(order.address, 0)
        self._servers[server.key] = server
        return server

    def _dismiss(self, server: Server) -> None:
        server.removed = True
        self._judgement.forget(server)
        # Even one without a connection may be in a report that is under way.
        self._leaving[server.key] = server

    def _arrange(self, unsettled: Iterable[Server]) -> None:
        """Give every server its place after a change of membership."""
        everyone = self._servers.values()
        for server in unsettled:
            server.policy = self._backups if server.backup else self._primaries
        self._primaries.arrange([server for server in everyone if not server.backup])
        self._backups.arrange([server for server in everyone if server.backup])
        for server in unsettled:
            server.settle()
        self._judgement.arrange(everyone)
        self.tries = sum(server.eligible for server in everyone)

    # Counts over all nodes

    def report(self, full: bool = False) -> Mapping[str, int]:
        """
        What this node holds, absolute, for the store.

        @param full: every server with a number, here or acknowledged, instead
            of those where the two differ.
        """
        # Compared here and not noted at each change: this is done a few times
        # a second, and counting many thousand times.
        if full:
            return {s.key: s.held for s in self._known() if s.held or s.reported}
        return {s.key: s.held for s in self._known() if s.held != s.reported}

    def acknowledge(self, report: Mapping[str, int]) -> None:
        """
        The store has taken a report.  L{apply_totals} with the same answer
        follows.
        """
        for key, held in report.items():
            server = self._servers.get(key) or self._leaving.get(key)
            if server is not None:
                server.reported = held
                self._acknowledged.append(server)
        if self._leaving:
            self._leaving = {k: s for k, s in self._leaving.items() if s.held or s.reported}

    def lapsed(self) -> None:
        """
        The store has forgotten, or is about to, all that this node reported.
        """
        for server in self._known():
            if server.reported:
                server.reported = 0
                self._acknowledged.append(server)

    def apply_totals(self, totals: Mapping[str, int], complete: bool = False) -> None:
        """
        Hear connections over all nodes, as of the report acknowledged last.

        @param totals: for the addresses whose total has changed.
        @param complete: for all addresses; what is missing has none.
        """
        touched = self._acknowledged
        self._acknowledged = []
        if complete:
            totals = dict.fromkeys(self._totals, 0) | dict(totals)
        for key, total in totals.items():
            # Kept for unknown addresses too: the store may know a server
            # sooner than this node has heard of it.
            if total:
                self._totals[key] = total
            else:
                self._totals.pop(key, None)
            server = self._servers.get(key) or self._leaving.get(key)
            if server is not None:
                touched.append(server)
        for server in touched:
            # A total below our own share is older than our share, or of a
            # removed server; it tells nothing of other nodes.
            others = max(0, self._totals.get(server.key, 0) - server.reported)
            if others != server.others:
                server.others = others
                server.settle()

    def _known(self) -> Iterator[Server]:
        yield from self._servers.values()
        yield from self._leaving.values()

    # Looking

    @property
    def servers(self) -> Collection[Server]:
        """In the order of the file, then of the addresses."""
        if self._out:
            self._judgement.let_probe()
        return self._servers.values()

    def server(self, key: str) -> Server | None:
        """@param key: C{str(address)}."""
        return self._servers.get(key)

    @property
    def usable(self) -> int:
        """How many servers, backups included, could take a connection now."""
        return sum(server.state is State.UP for server in self.servers)

    def __repr__(self) -> str:
        return (
            f"<Upstream {self.name} {self.policy} servers={len(self._servers)}"
            f" leaving={len(self._leaving)} revision={self.revision}>"
        )


def _address_of(order: ServerOrder) -> Address:
    # A unix socket has no port; all else is made of its two parts, since the
    # key of a record that others wrote need not be in our form.
    if order.address.startswith("unix:"):
        return Address.parse(order.address)
    return Address.of(order.host, order.port)


def _differs(server: Server, record: ServerRecord) -> bool:
    order = record.order
    return (
        server.weight != order.weight
        or server.max_conns != order.max_conns
        or server.backup != order.backup
        or server.max_fails != order.max_fails
        or server.fail_timeout != order.fail_timeout
        or server.intent is not record.intent
        or server.expired != record.expired
        or server.disabled_reason != record.disabled_reason
    )


def _follow(server: Server, record: ServerRecord) -> None:
    """Take over what the store says; the server is settled later."""
    if server.usable:
        server.policy.leave(server)
    server.follow(record.order)
    server.removed = False
    server.intent = record.intent
    server.expired = record.expired
    server.disabled_reason = record.disabled_reason
    server.record = record
