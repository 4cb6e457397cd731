"""
Listening sockets whose connections are served by the hub.

They accept in a tight loop, and they pause when the process has no descriptor
left instead of being called again at once for ever.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from dynbalance.net.transport import ServerTransport, UNIXServerTransport

if TYPE_CHECKING:
    from twisted.internet.protocol import Factory

    from dynbalance.net.hub import Hub

_ACCEPTS = 64
BACKLOG = 4096
"""Connections the kernel may keep for us at least; it cuts this to its own limit."""

_PAUSE = 0.25
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class _TightAccept:
    """
    Mixed in before a L{tcp.Port}.

    A factory may have C{accept_socket(skt, peer, port)}: it is then given the
    bare non-blocking socket, and no transport is made.
    """

    _log = Logger()
    reactor: Hub
    socket: socket.socket
    factory: Any
    connected: bool
    sessionno: int
    transport: Any
    _resume: IDelayedCall | None = None

    def doRead(self) -> None:
        accept_socket = getattr(self.factory, "accept_socket", None)
        for _ in range(_ACCEPTS):
            try:
                skt, peer = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as failed:
                if failed.errno in _EXHAUSTED:
                    self._pause(failed)
                    return
                # The client is gone already, or a packet filter refused it.
                continue
            skt.setblocking(False)
            try:
                if accept_socket is not None:
                    accept_socket(skt, peer, self)
                else:
                    self._serve(skt, peer)
            except Exception:
                self._log.failure("accepting {peer} failed", peer=peer)
                skt.close()

    def _serve(self, skt: socket.socket, peer: Any) -> None:
        protocol = self.factory.buildProtocol(self._buildAddr(peer))  # type: ignore[attr-defined]
        if protocol is None:
            skt.close()
            return
        self.sessionno += 1
        transport = self.transport(skt, protocol, peer, self, self.sessionno, self.reactor)
        protocol.makeConnection(transport)

    def _pause(self, failed: OSError) -> None:
        self._log.error("accepting pauses: {failed}", failed=failed)
        self.reactor.removeReader(self)
        self._resume = self.reactor.callLater(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self.reactor.addReader(self)

    def loseConnection(self, *args: Any) -> Any:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        return super().loseConnection(*args)  # type: ignore[misc]

    stopListening = loseConnection


class HubPort(_TightAccept, tcp.Port):
    """A TCP port."""

    transport = ServerTransport

    def __init__(
        self, port: Any, factory: Factory, backlog: int, interface: str, hub: Hub
    ) -> None:
        tcp.Port.__init__(self, port, factory, max(backlog, BACKLOG), interface, hub)

    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = super().createInternetSocket()
        # Accepted connections inherit it: answers must not wait for the
        # client's acknowledgement of what came before.
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return skt


class HubUNIXPort(_TightAccept, unix.Port):
    """A unix socket that listens."""

    transport = UNIXServerTransport

    def __init__(
        self, name: Any, factory: Factory, backlog: int, mode: int, hub: Hub, lock: bool
    ) -> None:
        unix.Port.__init__(self, name, factory, max(backlog, BACKLOG), mode, hub, lock)
