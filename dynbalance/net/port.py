"""
Listening sockets whose connections are served by the hub.

They accept in a tight loop, and they pause when the process has hardly a descriptor
left instead of being called again at once for ever; whoever comes meanwhile waits
in the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.python.failure import Failure

from dynbalance.errors import EXHAUSTED
from dynbalance.log import Logger
from dynbalance.net.descriptors import below_for_clients
from dynbalance.net.transport import ServerTransport, UNIXServerTransport

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory

    from dynbalance.net.hub import Hub

ACCEPTS = 64
"""Connections that are accepted in one turn."""

BACKLOG = 4096
"""Connections the kernel may keep for us at least; it cuts this to its own limit."""

_PAUSE = 0.25
_DONE = Failure(main.CONNECTION_DONE)


class _TightAccept(tcp.Port):
    """
    A factory may have C{accept_socket(skt, peer, port)}: it is then given the
    bare non-blocking socket, and no transport is made.

    @ivar accepts: connections that are accepted in one turn; fewer where other
        processes accept from the same socket.
    """

    _log = Logger()
    reactor: Hub
    factory: Any
    accepts = ACCEPTS
    _resume: IDelayedCall | None = None

    def doRead(self) -> None:
        accept_socket = getattr(self.factory, "accept_socket", None)
        below = below_for_clients()
        for _ in range(self.accepts):
            try:
                skt, peer = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as failed:
                if failed.errno in EXHAUSTED:
                    self._pause(str(failed))
                    return
                if failed.errno == errno.EINVAL:
                    # Another process that has the socket too has shut it.
                    self.stopReading()
                    return
                # The client is gone already, or a packet filter refused it.
                continue
            descriptor = skt.fileno()
            skt.setblocking(False)
            try:
                if accept_socket is not None:
                    accept_socket(skt, peer, self)
                else:
                    self.serve(skt, peer, self._peer_address(peer))
            except Exception:  # noqa: BLE001 - the next client is to be accepted
                self._log.failure("accepting {peer} failed", peer=peer)
                skt.close()
                continue
            if descriptor >= below:
                self._pause("hardly a descriptor is left")
                return

    def serve(self, skt: socket.socket, peer: Any, address: Any) -> None:
        """
        Give an accepted socket a transport and a protocol.

        @param peer: as C{accept} says it.
        @param address: whom the factory is to take for the client.
        """
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            skt.close()
            return
        self.sessionno += 1
        transport = self.transport(skt, protocol, peer, self, self.sessionno, self.reactor)
        try:
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 - as above
            failure = Failure()
            self._log.failure("{protocol} refused {peer}", failure, protocol=protocol, peer=peer)
            transport.connectionLost(failure)

    def _peer_address(self, peer: Any) -> Any:
        return self._addressType("TCP", *peer)

    def _pause(self, why: str) -> None:
        self._log.error("accepting on {port} pauses: {why}", port=self._where, why=why)
        self.reactor.removeReader(self)
        self._resume = self.reactor.callLater(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        if not self._has_room():
            self._resume = self.reactor.callLater(_PAUSE, self._go_on)
            return
        self._resume = None
        self._log.info("accepting on {port} goes on", port=self._where)
        self.reactor.addReader(self)

    def _has_room(self) -> bool:
        # To accept is no way to find out: that client could not wait any more.
        try:
            next_one = os.dup(self.socket.fileno())
        except OSError:
            return False
        os.close(next_one)
        return next_one < below_for_clients()

    @property
    def _where(self) -> object:
        return self.socket.getsockname()

    def loseConnection(self, connDone: Failure = _DONE) -> Any:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        return tcp.Port.loseConnection(self, connDone)

    stopListening = loseConnection


class HubPort(_TightAccept):
    """A TCP port."""

    transport = ServerTransport  # type: ignore[assignment]  # made by serve alone

    def __init__(
        self, port: Any, factory: IProtocolFactory, backlog: int | None, interface: str, hub: Hub
    ) -> None:
        tcp.Port.__init__(self, port, factory, max(backlog or 0, BACKLOG), interface, hub)

    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = tcp.Port.createInternetSocket(self)
        # Accepted connections inherit it: answers must not wait for the
        # client's acknowledgement of what came before.
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return skt


class HubUNIXPort(_TightAccept, unix.Port):
    """A unix socket that listens."""

    transport = UNIXServerTransport

    def __init__(
        self,
        name: Any,
        factory: IProtocolFactory,
        backlog: int = 0,
        mode: int = 0o666,
        reactor: Any = None,
        lock: bool = False,
    ) -> None:
        unix.Port.__init__(self, name, factory, max(backlog, BACKLOG), mode, reactor, lock)

    def _peer_address(self, peer: Any) -> Any:
        return UNIXAddress(peer)


class AdoptedUNIXPort(HubUNIXPort):
    """A unix socket that somebody else opened: its mode and its path stay as they are."""

    _preexistingSocket: socket.socket
    # Whoever else has the socket goes on listening.
    _shouldShutdown = False

    def startListening(self) -> None:
        self.factory.doStart()
        self.connected = True
        self.socket = self._preexistingSocket
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)
