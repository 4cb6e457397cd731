"""
What carries traffic: the listeners that run, and those whose connections only
run to their end.

Knows how one configuration takes the place of another without a connection
lost: as in nginx, what came before goes on as it began, and what comes now goes
by the new one.  Refuses to know what may fail; by then all of that has been
had.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from dynbalance.config import Config
from dynbalance.entrance import Entrance
from dynbalance.http.listener import HttpListener
from dynbalance.http.mounted import Mount
from dynbalance.http.upstream import HttpUpstream
from dynbalance.listening import Ground, Listeners
from dynbalance.materials import ListenerTable, Materials, tables_of
from dynbalance.ports import OpenPort, Wanted
from dynbalance.stream.listener import StreamListener


@frozen(slots=True, eq=False)
class Line:
    """
    A listener that runs.

    @ivar table: of the configuration.
    """

    table: ListenerTable
    listener: HttpListener | StreamListener
    entrance: Entrance
    port: OpenPort

    @property
    def active(self) -> int:
        """Connections now."""
        return self.listener.active + self.entrance.waiting

    def retire(self) -> None:
        """Let its connections run to their end."""
        if isinstance(self.listener, HttpListener):
            self.listener.retire()

    def abort_all(self) -> None:
        self.entrance.abort_all()
        self.listener.abort_all()


class Traffic:
    """
    @ivar upstreams: how each is reached by HTTP, by name.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._lines: list[Line] = []
        self._retired: list[Line] = []
        # Opened by systemd, and not served now; they cannot be opened again.
        self._parked: list[OpenPort] = []
        self.upstreams: dict[str, HttpUpstream] = {}

    def __repr__(self) -> str:
        return f"<Traffic {len(self._lines)} listeners, {len(self._retired)} retired>"

    def wanted(self, config: Config) -> list[Wanted]:
        """The ports that a configuration asks for."""
        hub = self._ground.hub
        return [Wanted(path, t.listen, hub) for path, t in tables_of(config)]

    @property
    def ports(self) -> list[OpenPort]:
        """Those that are open."""
        return [line.port for line in self._lines] + self._parked

    def follow(
        self, config: Config, materials: Materials, ports: list[OpenPort], mount: Mount
    ) -> None:
        """
        Go on by a configuration.  A listener whose table is the same stays; one
        that has another table is another one, on the same port.

        @param ports: one for each table.
        """
        before = {line.port: line for line in self._lines}
        upstreams = self.upstreams
        listeners = Listeners.of(self._ground, config, materials, mount, upstreams)
        self.upstreams = listeners.upstreams
        self._lines = []
        for (path, table), port in zip(tables_of(config), ports, strict=True):
            line = before.get(port)
            if line is not None and line.table == table:
                del before[port]
                listeners.lead(line.listener, table)
                if path in materials.tls:
                    line.entrance.show(materials.tls[path])
            else:
                line = self._begun(listeners, table, port, materials.tls.get(path))
            self._lines.append(line)
        for line in before.values():
            self._retire(line, ports)
        self._parked = [port for port in self._parked if port not in ports] + [
            port for port in before if port.is_lent and port not in ports
        ]
        for name, upstream in upstreams.items():
            if self.upstreams.get(name) is not upstream:
                upstream.retire()

    def _begun(self, listeners: Listeners, table: ListenerTable, port: OpenPort, ours: Any) -> Line:
        listener = listeners.make(table)
        ground = self._ground
        entrance = Entrance.to(listener, table, ours, ground.hub, ground.deadlines)
        port.let_wait(table.backlog)
        port.door.lead_to(entrance.factory)
        return Line(table, listener, entrance, port)

    def _retire(self, line: Line, ports: list[OpenPort]) -> None:
        if line.port not in ports:
            if line.port.is_lent:
                line.port.pause()
            else:
                line.port.close()
        line.retire()
        self._retired = [each for each in (*self._retired, line) if each.active]

    def accept(self) -> None:
        """Let in who comes."""
        for line in self._lines:
            line.port.accept()

    @property
    def entrances(self) -> list[Entrance]:
        """Of the listeners that the configuration names."""
        return [line.entrance for line in self._lines]

    # Ending

    @property
    def active(self) -> int:
        """Connections now."""
        return sum(line.active for line in self._everything)

    @property
    def _everything(self) -> list[Line]:
        return [*self._lines, *self._retired]

    def close_ports(self) -> Deferred[Any]:
        """Let nobody in any more."""
        return DeferredList([port.close() for port in self.ports])

    def retire(self) -> None:
        """Let all connections run to their end."""
        for line in self._lines:
            line.retire()

    def leave_ports(self) -> Deferred[Any]:
        """Let another process accept alone."""
        return DeferredList([port.leave() for port in self.ports])

    def drain(self) -> None:
        """Let what is under way finish, and nothing begin."""
        for line in self._everything:
            if isinstance(line.listener, HttpListener):
                line.listener.drain()

    def when_idle(self) -> Deferred[Any]:
        """Fires when no listener has clients."""
        # Given up on, each of these fails, and nobody else would hear of it.
        waits = [line.listener.when_idle() for line in self._everything]
        return gatherResults(waits, consumeErrors=True)

    def abort_arrivals(self) -> None:
        """Close the connections that have not reached a listener."""
        for line in self._everything:
            line.entrance.abort_all()

    def abort_all(self) -> None:
        """Close every connection at once."""
        for line in self._everything:
            line.abort_all()

    def close_idle(self) -> None:
        """Close the connections to servers that wait for a request."""
        for upstream in self.upstreams.values():
            upstream.close_idle()
