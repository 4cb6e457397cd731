"""
A session between two bare sockets, which is how plain TCP goes.

Knows the relay; how a server is found is the L{Session}'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynbalance.net.clienthost import host_of
from dynbalance.net.dial import Target, place_of
from dynbalance.net.relay import Ending, Relay
from dynbalance.stream.hooked import HookedSession
from dynbalance.stream.leaving import has_left
from dynbalance.stream.session import Session

if TYPE_CHECKING:
    import socket

    from dynbalance.stream.listener import StreamListener
    from dynbalance.stream.options import Destination


class SocketSession(Session):
    """
    A session between two bare sockets.

    @param skt: the client's; it is not read before a server is connected, so
        that each server that is tried gets the client's first bytes.
    """

    __slots__ = ("_client", "_peer", "_relay")

    def __init__(
        self, listener: StreamListener, skt: socket.socket, peer: Any, way: Destination
    ) -> None:
        """@param peer: whom to take for the client, as C{accept} says it."""
        super().__init__(listener, host_of(peer), way)
        self._client = skt
        self._peer = peer
        self._relay: Relay | None = None

    def connected(self, skt: socket.socket, target: Target) -> None:
        listener = self.listener
        self._relay = Relay(
            listener.hub,
            listener.pipes,
            self._client,
            skt,
            self._relayed,
            self.options.half_close,
        )
        self._relay.start()

    def _relayed(self, ending: Ending) -> None:
        assert self._relay is not None
        self.over(200, ending.value, self._relay.client.moved, self._relay.server.moved)

    def ends(self) -> tuple[Any, Any]:
        here = Target(self._client.family, self._client.getsockname())
        return place_of(self._peer), here.as_twisted()

    def has_left(self) -> bool:
        return has_left(self._client, self.options.half_close)

    def refuse(self) -> None:
        self._client.close()

    def silence(self) -> float:
        assert self._relay is not None
        return self.listener.deadlines.now() - self._relay.last

    def close(self, ending: Ending) -> None:
        assert self._relay is not None
        self._relay.finish(ending)


class HookedSocketSession(HookedSession, SocketSession):
    """A session between two bare sockets, under a hook."""
