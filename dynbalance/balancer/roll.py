"""
Which servers an upstream has, and how a snapshot of the store changes that.

Servers have an identity: what the store says is compared with what is here,
and only the difference is applied, so that counts, statistics and failures
outlive every change.  A server that was removed while it carries connections
is remembered until they have ended and the store has heard so; when it is
added again before that, it is the same one.

The file may list an address several times, and each time is a server: the
first is called by the address, the further ones C{ADDRESS#2}, C{ADDRESS#3} in
the file's order, which is the same on every node that has the same file.

Knows who is here; refuses to know tiers and policies, and who may be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from attrs import evolve, frozen

from dynbalance.balancer.address import Address
from dynbalance.balancer.server import Server
from dynbalance.errors import BadAddress
from dynbalance.store.contract import ServerOrder, Snapshot


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


class Roll:
    """
    The servers of one upstream.

    @ivar here: by key, in the order of the file, then of the addresses.
    @ivar leaving: those that were removed and not forgotten yet.
    """

    __slots__ = ("_dismissed", "_make", "_routes", "_upstream", "here", "leaving")

    def __init__(
        self,
        upstream: str,
        make: Callable[[Address, ServerOrder, str], Server],
        dismissed: Callable[[Server], None],
    ) -> None:
        """
        @param make: a server with an address, an order and a route.
        @param dismissed: hears of each server that was removed.
        """
        self.here: dict[str, Server] = {}
        self.leaving: dict[str, Server] = {}
        self._upstream = upstream
        self._make = make
        self._dismissed = dismissed
        self._routes: dict[str, str] = {}

    def known(self) -> Iterator[Server]:
        """Also those that are leaving."""
        yield from self.here.values()
        yield from self.leaving.values()

    def find(self, key: str) -> Server | None:
        """Likewise."""
        return self.here.get(key) or self.leaving.get(key)

    def by_route(self, route: str) -> Server | None:
        """The server that is here and has this route."""
        return self.here.get(self._routes.get(route, ""))

    def list_file(self, files: Iterable[FileServer]) -> list[Server]:
        """
        Bring the servers in line with a file, instead of the one before.  Those
        that it names no more wait for L{apply}, which tells whether the store
        knows them.

        @return: the servers that have to be settled.
        @raise BadAddress: a server has none that is one.
        """
        unsettled = {server: None for server in self.here.values() if server.from_file}
        for server in unsettled:
            server.from_file = server.down = False
            server.record = None
        listed: dict[str, Server] = {}
        for plain in files:
            order = plain.order
            address = Address.parse(order.address)
            key, nth = order.address, 1
            while key in listed:
                nth += 1
                key = f"{order.address}#{nth}"
            if nth > 1:
                order = evolve(order, address=key)
            server = self.here.get(key) or self._admit(order, address)
            unsettled[server] = None
            if server.usable:
                server.policy.leave(server)
            server.obey(order, plain.down)
            listed[key] = server
        self.here = {**listed, **self.here}
        return list(unsettled)

    def apply(self, snapshot: Snapshot, now: float) -> tuple[Applied, list[Server]]:
        """
        Bring the servers in line with the store.  Those of the file stay as
        they are, whatever the store says of their addresses.

        @return: what that changed, and the servers that have to be settled.
        """
        added: list[str] = []
        changed: list[str] = []
        refused: list[str] = []
        ordered = [server for server in self.here.values() if server.from_file]
        unsettled: list[Server] = []
        missing = {key: s for key, s in self.here.items() if not s.from_file}
        for record in snapshot.servers:
            key = record.order.address
            server = self.here.get(key)
            if server is not None and server.record is record:
                # Most of thousands are as they were.
                missing.pop(key, None)
                ordered.append(server)
                continue
            if record.order.weight < 1:
                refused.append(f"{key}: weight {record.order.weight} is not positive")
                continue
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
                if server.differs(record):
                    changed.append(key)
                elif server.record is not None:
                    server.record = record
                    ordered.append(server)
                    continue
            if server.usable:
                server.policy.leave(server)
            out_for = max(0.0, snapshot.now - (record.disabled_at or snapshot.now))
            server.hear(record, now - out_for)
            ordered.append(server)
            unsettled.append(server)
        for server in missing.values():
            self._dismiss(server)
        self.here = {server.key: server for server in ordered}
        applied = Applied(
            added=tuple(added),
            removed=tuple(missing),
            changed=tuple(changed),
            refused=tuple(refused),
        )
        return applied, unsettled

    def forget_idle(self) -> list[Server]:
        """
        Forget those whose connections have ended, and of whom the store knows it.

        @return: them.
        """
        gone = [server for server in self.leaving.values() if not (server.held or server.reported)]
        for server in gone:
            del self.leaving[server.key]
        return gone

    def _admit(self, order: ServerOrder, address: Address) -> Server:
        """The server of an order: the one that is leaving, or a new one."""
        server = self.leaving.pop(order.address, None)
        if server is None:
            server = self._make(address, order, _route_of(self._upstream, order.address))
        self.here[server.key] = server
        self._routes[server.route] = server.key
        return server

    def _dismiss(self, server: Server) -> None:
        server.removed = True
        # When it comes again it begins anew, but for its connections.
        server.checked_down = False
        server.check_cause = ""
        del self._routes[server.route]
        # Even one without a connection may be in a report that is under way.
        self.leaving[server.key] = server
        self._dismissed(server)


def _address_of(order: ServerOrder) -> Address:
    # A unix socket has no port; all else is made of its two parts, since the
    # key of a record that others wrote need not be in our form.
    if order.address.startswith("unix:"):
        return Address.parse(order.address)
    return Address.of(order.host, order.port)


def _route_of(upstream: str, key: str) -> str:
    # Not a secret; it tells nobody the address who does not guess it.
    return blake2b(f"{upstream}\0{key}".encode(), digest_size=8, person=b"route").hexdigest()
