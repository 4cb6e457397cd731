"""
A client of a listener with C{sni_routes}, until it is known which server it
asks for.

Knows that every byte stays in the kernel for whoever comes next; refuses to
know what the name leads to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynbalance.net.hellopeek import HelloPeek

if TYPE_CHECKING:
    import socket

    from dynbalance.stream.listener import StreamListener


class Asking:
    """
    One of them.

    @param peer: as C{accept} says it.
    @param port: where it came in.
    """

    __slots__ = ("_listener", "_peek", "_peer", "_port", "_skt")

    def __init__(
        self, listener: StreamListener, skt: socket.socket, peer: Any, port: Any
    ) -> None:
        self._listener = listener
        self._skt = skt
        self._peer = peer
        self._port = port
        self._peek = HelloPeek(listener.hub, listener.deadlines, skt, self)
        listener.sessions.add(self)

    def start(self) -> None:
        self._peek.start()

    def asked_for(self, server_name: str) -> None:
        listener = self._listener
        # The session takes its place in the same breath.
        listener.sessions.discard(self)
        way = listener.way_of(server_name)
        listener.begin(self._skt, self._peer, self._port, way)

    def said_nothing(self) -> None:
        self._close("no ClientHello in time")

    def abort(self) -> None:
        """Close at once."""
        self._peek.cancel()
        self._close("aborted")

    def _close(self, why: str) -> None:
        self._skt.close()
        self._listener.turned_away(self._peer, 400, why)
        self._listener.ended(self, 0, 0)
