"""
The hub: an epoll of our own, itself one descriptor in Twisted's reactor.

The reactor wraps each event in a log context, which costs as much as parsing a
request.  Transports that are given the hub as their reactor register here
instead; each time the hub's epoll becomes readable the reactor calls
L{Hub.doRead} once, and a whole batch of events is dispatched with nothing in
between.  Everything else of Twisted (timers, TLS, signals, processes) stays
with the real reactor, whichever it is.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet import error, main, tcp, unix
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IReadDescriptor,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dynbalance.net.port import HubPort, HubUNIXPort

_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
# A hang-up or an error is learnt by reading: the read tells which it was, and
# takes the bytes that came before it.
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_DONE = Failure(main.CONNECTION_DONE)
_REASONS = {error.ConnectionDone: _DONE, error.ConnectionLost: Failure(main.CONNECTION_LOST)}
_BATCH = 512
_BUSY = 8
_ROUNDS = 4


@implementer(IReadDescriptor, IReactorFDSet, IReactorTime, IReactorTCP, IReactorUNIX)
class Hub:
    """
    Dispatches readiness to descriptors, in batches.

    @ivar reactor: the real one.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.seconds = reactor.seconds
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._descriptors: dict[int, Any] = {}
        self._masks: dict[int, int] = {}
        self._closing: list[Any] = []
        self._close_call: IDelayedCall | None = None
        self._dispatching = False
        reactor.addReader(self)

    def __repr__(self) -> str:
        return f"<Hub {len(self._descriptors)} descriptors>"

    def close(self) -> None:
        """Leave the reactor; descriptors still registered are dropped."""
        self.reactor.removeReader(self)
        if self._close_call is not None:
            self._close_call.cancel()
            self._close_call = None
        self._descriptors.clear()
        self._masks.clear()
        self._epoll.close()

    # What the real reactor sees.

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "hub"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor removes all its descriptors at its very end."""

    def doRead(self) -> None:
        """Dispatch what is ready, and again while it comes in crowds."""
        descriptors = self._descriptors
        self._dispatching = True
        for _ in range(_ROUNDS):
            events = self._poll(0, _BATCH)
            for fd, event in events:
                # One event of the batch may have closed the descriptor of a
                # later one.  If the number is in use again already, the new
                # descriptor merely finds nothing to read.
                descriptor = descriptors.get(fd)
                if descriptor is None:
                    continue
                try:
                    why = None
                    if event & _READABLE:
                        why = descriptor.doRead()
                    if why is None and event & _OUT and descriptors.get(fd) is descriptor:
                        why = descriptor.doWrite()
                except Exception as failed:
                    self._log.failure("{descriptor} failed", descriptor=descriptor)
                    why = failed
                if why is not None:
                    self._disconnect(fd, descriptor, why)
            if self._closing:
                self._close()
            if len(events) < _BUSY:
                break
        self._dispatching = False

    def _disconnect(self, fd: int, descriptor: Any, why: BaseException) -> None:
        if self._descriptors.get(fd) is not descriptor:
            # It was closed while its own event was handled.
            return
        reason = _REASONS.get(why.__class__) or Failure(why)
        try:
            if reason is _DONE and self._masks[fd] & _IN:
                self.removeReader(descriptor)
                descriptor.readConnectionLost(reason)
            else:
                self._remove(descriptor, _IN | _OUT)
                descriptor.connectionLost(reason)
        except Exception:
            self._log.failure("the end of {descriptor} failed", descriptor=descriptor)

    # What the transports see.

    def addReader(self, reader: Any) -> None:
        self._add(reader, _IN)

    def addWriter(self, writer: Any) -> None:
        self._add(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        self._remove(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        self._remove(writer, _OUT)

    def _add(self, descriptor: Any, wanted: int) -> None:
        fd = descriptor.fileno()
        mask = self._masks.get(fd, 0)
        if not mask:
            self._epoll.register(fd, wanted)
            self._descriptors[fd] = descriptor
            self._masks[fd] = wanted
        elif not mask & wanted:
            self._masks[fd] = mask | wanted
            self._epoll.modify(fd, mask | wanted)

    def _remove(self, descriptor: Any, unwanted: int) -> None:
        fd = descriptor.fileno()
        mask = self._masks.get(fd, 0)
        if mask & unwanted and self._descriptors[fd] is descriptor:
            mask &= ~unwanted
            if mask:
                self._masks[fd] = mask
                self._epoll.modify(fd, mask)
            else:
                self.forget(fd)
                self._epoll.unregister(fd)

    def wait_to_write_only(self, descriptor: Any) -> None:
        """Replace whatever C{descriptor} waits for, in one system call."""
        self._set(descriptor, _OUT)

    def wait_to_read_only(self, descriptor: Any) -> None:
        """Replace whatever C{descriptor} waits for, in one system call."""
        self._set(descriptor, _IN)

    def _set(self, descriptor: Any, mask: int) -> None:
        fd = descriptor.fileno()
        if fd in self._masks:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
            self._descriptors[fd] = descriptor
        self._masks[fd] = mask

    def forget(self, fd: int) -> None:
        """
        C{fd} is about to be closed, which takes it out of the epoll without
        a system call of its own.
        """
        self._descriptors.pop(fd, None)
        self._masks.pop(fd, None)

    def close_soon(self, transport: Any) -> None:
        """
        Call C{transport.close_now()} when the running batch is through, or on
        the reactor's next turn.
        """
        self._closing.append(transport)
        if not self._dispatching and self._close_call is None:
            self._close_call = self.reactor.callLater(0, self._close_later)

    def _close_later(self) -> None:
        self._close_call = None
        self._close()

    def _close(self) -> None:
        closing, self._closing = self._closing, []
        for transport in closing:
            try:
                transport.close_now()
            except Exception:
                self._log.failure("closing {transport} failed", transport=transport)

    def hand_over(self, fd: int) -> None:
        """
        The open descriptor changes its owner, who registers it anew.
        """
        self.forget(fd)
        self._epoll.unregister(fd)

    def removeAll(self) -> list[Any]:
        everything = list(self._descriptors.values())
        for fd in list(self._descriptors):
            self.forget(fd)
            self._epoll.unregister(fd)
        return everything

    def getReaders(self) -> list[Any]:
        return [self._descriptors[fd] for fd, mask in self._masks.items() if mask & _IN]

    def getWriters(self) -> list[Any]:
        return [self._descriptors[fd] for fd, mask in self._masks.items() if mask & _OUT]

    # What endpoints and timers see.

    def callLater(self, delay: float, call: Any, *args: Any, **kwargs: Any) -> IDelayedCall:
        later: IDelayedCall = self.reactor.callLater(delay, call, *args, **kwargs)
        return later

    def getDelayedCalls(self) -> Any:
        return self.reactor.getDelayedCalls()

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> tcp.Port:
        listening = HubPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> unix.Port:
        listening = HubUNIXPort(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    def connectTCP(self, *args: Any, **kwargs: Any) -> Any:
        """As the real reactor does; servers are reached by L{dynbalance.net.dial}."""
        return self.reactor.connectTCP(*args, **kwargs)

    def connectUNIX(self, *args: Any, **kwargs: Any) -> Any:
        """As the real reactor does; servers are reached by L{dynbalance.net.dial}."""
        return self.reactor.connectUNIX(*args, **kwargs)

