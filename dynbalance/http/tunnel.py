"""
What an exchange does once the server has switched protocols: bytes both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynbalance.http.sending import Sending

if TYPE_CHECKING:
    from dynbalance.balancer.lease import Lease
    from dynbalance.balancer.server import Server
    from dynbalance.http.front import Attempt
    from dynbalance.http.request import RequestHead
    from dynbalance.http.response import ResponseHead


class Tunnel(Sending):
    """
    The part of L{Exchange <dynbalance.http.exchange.Exchange>} after 101.

    @ivar head: the request.
    @ivar attempts: what was tried, when somebody set it to a list.
    """

    __slots__ = ("_lease", "_responding", "attempts", "head")

    attempts: list[Attempt] | None
    head: RequestHead
    _lease: Lease | None
    _responding: bool

    def _settle(self, cause: str) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _works(self, server: Server) -> None:
        """A server that had failed has answered."""
        self._to.upstream.succeeded(server)

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        self._responding = True
        connection, lease = self._connection, self._lease
        assert connection is not None and lease is not None
        server = lease.server
        server.responses[1] += 1
        if server.fails:
            self._works(server)
        if self.attempts:
            self.attempts[-1].status = head.status
        if self._to.sticky is not None:
            head = self._to.sticky.marked(self.head, head, server)
        connection.wait(self._to.settings.read_timeout)
        self._front.switch(head, rest)

    def tunnel_from_server(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.wait(self._to.settings.read_timeout)
        self._front.tunnel_data(data)

    def tunnel_from_client(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None:
            connection.wait(self._to.settings.read_timeout)
            connection.transport.write(data)

    def tunnel_lost(self) -> None:
        """The server closed the tunnel."""
        self._connection = None
        self._settle("")
        self._front.tunnel_closed()
        self._finish()

    def client_closed_tunnel(self) -> None:
        """The client closed it; what it sent before is still delivered."""
        connection, self._connection = self._connection, None
        self._settle("")
        if connection is not None:
            connection.close()
        self._finish()
