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
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import main, unix
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IReadDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from dynbalance.log import Logger
from dynbalance.net.port import AdoptedUNIXPort, HubPort, HubUNIXPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory

# The numbers of Linux; elsewhere select has neither an epoll nor these.
_IN = 0x001
_OUT = 0x004
_TROUBLE = 0x008 | 0x010
"""A hang-up or an error.  The read or the write that waited learns which."""

_DONE = Failure(main.CONNECTION_DONE)
_REASONS: dict[type, Failure] = {
    main.CONNECTION_DONE.__class__: _DONE,
    main.CONNECTION_LOST.__class__: Failure(main.CONNECTION_LOST),
}
_BATCH = 512
_BUSY = 8
_ROUNDS = 4


@implementer(IReadDescriptor, IReactorFDSet, IReactorTime, IReactorTCP, IReactorUNIX)
class Hub:
    """
    Dispatches readiness to descriptors, in batches.

    A descriptor has C{fileno}, C{doRead}, C{doWrite} and C{connectionLost}, as
    Twisted's have; if its C{doRead} may return L{main.CONNECTION_DONE}, it has
    C{readConnectionLost} too, and stops reading there by itself.

    @ivar reactor: the real one.
    @ivar seconds: the reactor's clock.
    @ivar now: what it said when the batch that is dispatched began.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.now = self.seconds()
        self._readers: dict[int, Any] = {}
        self._writers: dict[int, Any] = {}
        self._gone: set[int] = set()
        self._closing: list[Any] = []
        self._close_call: IDelayedCall | None = None
        self._dispatching = False
        self._closed = False
        self._enter()

    def _enter(self) -> None:
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self.reactor.addReader(self)

    def _leave(self) -> None:
        self.reactor.removeReader(self)
        self._epoll.close()

    def __repr__(self) -> str:
        return f"<Hub {len(self._readers.keys() | self._writers.keys())} descriptors>"

    def close(self) -> None:
        """Leave the reactor; whatever is still registered loses its connection."""
        if self._closed:
            return
        self._closed = True
        if self._close_call is not None:
            self._close_call.cancel()
            self._close_call = None
        self._close()
        lost = _REASONS[main.CONNECTION_LOST.__class__]
        for descriptor in self.removeAll():
            self._lose(descriptor, lost)
        self._close()
        self._leave()

    # What the real reactor sees.

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "hub"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor removes all its descriptors at its very end."""
        self.close()

    def doRead(self) -> None:
        """Dispatch what is ready, and again while it comes in crowds."""
        self._dispatching = True
        try:
            for _ in range(_ROUNDS):
                events = self._poll(0, _BATCH)
                self.now = self.seconds()
                self._dispatch(events)
                while self._closing:
                    self._close()
                if len(events) < _BUSY or self._closed:
                    break
        finally:
            self._dispatching = False

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        readers = self._readers
        gone = self._gone
        gone.clear()
        for fd, event in events:
            if gone and fd in gone:
                # An earlier event of the batch closed it; the number may be
                # in use again, but what happened did not happen to its heir.
                continue
            if event == 1:
                # _IN, written out: nearly every event is this one.
                reader = readers.get(fd)
                if reader is not None:
                    try:
                        why = reader.doRead()
                    except Exception as failed:  # noqa: BLE001 - the hub outlives every protocol
                        self._log.failure("{descriptor} failed", descriptor=reader)
                        self._disconnect(fd, reader, failed, reading=False)
                    else:
                        if why is not None:
                            self._disconnect(fd, reader, why, reading=True)
            else:
                self._dispatch_other(fd, event)

    def _dispatch_other(self, fd: int, event: int) -> None:
        descriptor: Any = None
        reading = True
        try:
            why = None
            if event & (_IN | _TROUBLE):
                descriptor = self._readers.get(fd)
                if descriptor is not None:
                    why = descriptor.doRead()
            if why is None and event & (_OUT | _TROUBLE) and fd not in self._gone:
                writer = self._writers.get(fd)
                if writer is not None:
                    descriptor = writer
                    reading = False
                    why = descriptor.doWrite()
        except Exception as failed:  # noqa: BLE001 - as above
            self._log.failure("{descriptor} failed", descriptor=descriptor)
            reading = False
            why = failed
        if why is not None:
            self._disconnect(fd, descriptor, why, reading)

    def _disconnect(self, fd: int, descriptor: Any, why: BaseException, reading: bool) -> None:
        # The descriptor may have been closed already, while its own event was
        # handled; then its number may even belong to another.
        reason = _REASONS.get(why.__class__) or Failure(why)
        if reading and reason is _DONE:
            if fd in self._readers and self._readers[fd] is descriptor:
                try:
                    descriptor.readConnectionLost(reason)
                except Exception:  # noqa: BLE001 - as above
                    self._log.failure("the end of {descriptor} failed", descriptor=descriptor)
        else:
            if self._readers.get(fd) is descriptor:
                self.removeReader(descriptor)
            if self._writers.get(fd) is descriptor:
                self.removeWriter(descriptor)
            self._lose(descriptor, reason)

    def _lose(self, descriptor: Any, reason: Failure) -> None:
        try:
            descriptor.connectionLost(reason)
        except Exception:  # noqa: BLE001 - the hub outlives every protocol
            self._log.failure("the end of {descriptor} failed", descriptor=descriptor)

    # What the transports see.

    def addReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if fd not in self._readers:
            if fd in self._writers:
                self._epoll.modify(fd, _IN | _OUT)
            else:
                self._epoll.register(fd, _IN)
            self._readers[fd] = reader

    def addWriter(self, writer: Any) -> None:
        fd = writer.fileno()
        if fd not in self._writers:
            if fd in self._readers:
                self._epoll.modify(fd, _IN | _OUT)
            else:
                self._epoll.register(fd, _OUT)
            self._writers[fd] = writer

    def removeReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if self._readers.get(fd) is reader:
            del self._readers[fd]
            if fd in self._writers:
                self._epoll.modify(fd, _OUT)
            else:
                self._epoll.unregister(fd)

    def removeWriter(self, writer: Any) -> None:
        fd = writer.fileno()
        if self._writers.get(fd) is writer:
            del self._writers[fd]
            if fd in self._readers:
                self._epoll.modify(fd, _IN)
            else:
                self._epoll.unregister(fd)

    def wait_to_write_only(self, descriptor: Any) -> None:
        """Replace whatever C{descriptor} waits for, in one system call."""
        fd = descriptor.fileno()
        if self._readers.pop(fd, None) is None and fd not in self._writers:
            self._epoll.register(fd, _OUT)
        else:
            self._epoll.modify(fd, _OUT)
        self._writers[fd] = descriptor

    def wait_to_read_only(self, descriptor: Any) -> None:
        """Replace whatever C{descriptor} waits for, in one system call."""
        fd = descriptor.fileno()
        if self._writers.pop(fd, None) is None and fd not in self._readers:
            self._epoll.register(fd, _IN)
        else:
            self._epoll.modify(fd, _IN)
        self._readers[fd] = descriptor

    def forget(self, fd: int) -> None:
        """
        C{fd} is about to be closed, which takes it out of the epoll without
        a system call of its own.
        """
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        if self._dispatching:
            self._gone.add(fd)

    def hand_over(self, fd: int) -> None:
        """
        The open descriptor changes its owner, who registers it anew.
        """
        if fd in self._readers or fd in self._writers:
            self.forget(fd)
            self._epoll.unregister(fd)

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
            except Exception:  # noqa: BLE001 - the next ones have to be closed too
                self._log.failure("closing {transport} failed", transport=transport)

    def removeAll(self) -> list[Any]:
        everything = {**self._readers, **self._writers}
        for fd in everything:
            self.hand_over(fd)
        return list(everything.values())

    def getReaders(self) -> list[Any]:
        return list(self._readers.values())

    def getWriters(self) -> list[Any]:
        return list(self._writers.values())

    # What endpoints and timers see.

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        later: IDelayedCall = self.reactor.callLater(delay, callable, *args, **kwargs)
        return later

    def getDelayedCalls(self) -> Any:
        return self.reactor.getDelayedCalls()

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> HubPort:
        listening = HubPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> HubUNIXPort:
        listening = HubUNIXPort(address, factory, backlog, mode, self, wantPID)
        unix.Port.startListening(listening)
        return listening

    def adoptStreamPort(
        self, fd: int, family: int, factory: IProtocolFactory
    ) -> HubPort | AdoptedUNIXPort:
        """Listen on a socket that somebody else opened, such as systemd."""
        listening: HubPort | AdoptedUNIXPort
        if family == socket.AF_UNIX:
            listening = AdoptedUNIXPort._fromListeningDescriptor(self, fd, factory)
        else:
            listening = HubPort._fromListeningDescriptor(self, fd, family, factory)
        listening.startListening()
        return listening

    def connectTCP(self, *args: Any, **kwargs: Any) -> Any:
        """As the real reactor does; servers are reached by L{dynbalance.net.dial}."""
        return self.reactor.connectTCP(*args, **kwargs)

    def connectUNIX(self, *args: Any, **kwargs: Any) -> Any:
        """As the real reactor does; servers are reached by L{dynbalance.net.dial}."""
        return self.reactor.connectUNIX(*args, **kwargs)
