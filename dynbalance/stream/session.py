"""
One client of a TCP listener, from its arrival to its end.

Knows how a server is found: choose, connect, try the next one, give up; and
how long silence may last.  Refuses to know how bytes are moved: its two kinds
do, L{SocketSession} here between bare sockets, and
L{dynbalance.stream.proxy.TransportSession} between Twisted's transports.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, TimeoutError

from dynbalance.balancer.attempts import Cause, Sent
from dynbalance.balancer.place import Place
from dynbalance.net.dial import Dial
from dynbalance.net.relay import Ending, Relay

if TYPE_CHECKING:
    import socket

    from twisted.python.failure import Failure

    from dynbalance.balancer.lease import Lease
    from dynbalance.balancer.server import Server
    from dynbalance.net.dial import Target
    from dynbalance.stream.listener import StreamListener

# What this machine has run out of is no server's fault.
_OUR_FAULT = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
)


def host_of(peer: object) -> str:
    """
    A client's address without its port; a unix socket's is this machine's.

    @param peer: as the kernel or as Twisted has it.
    """
    host = peer[0] if isinstance(peer, tuple) else getattr(peer, "host", "")
    return str(host or "127.0.0.1").partition("%")[0].removeprefix("::ffff:")


class Session:
    """
    A client, and the server that is found for it.

    @ivar client: the client's address, without a port.
    @ivar lease: the slot on the server that is being tried or used.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar bucket: likewise.
    """

    __slots__ = (
        "_began",
        "_chosen",
        "_dial",
        "_failed",
        "_lookup",
        "_place",
        "_starting",
        "_target",
        "_tried",
        "_tries",
        "bucket",
        "client",
        "deadline",
        "lease",
        "listener",
    )

    def __init__(self, listener: StreamListener, client: str) -> None:
        self.listener = listener
        self.client = client
        self.lease: Lease | None = None
        self.deadline = inf
        self.bucket = 0
        self._dial: Dial | None = None
        self._lookup: Deferred[Target] | None = None
        self._place: Place | None = None
        self._tried: tuple[Server, ...] = ()
        self._tries = 0
        self._began = self._chosen = 0.0
        self._starting = self._failed = False
        listener.sessions.add(self)

    # What the two kinds do each in its way.

    def connected(self, skt: socket.socket, target: Target) -> None:
        """A server took the connection: move bytes, then call L{over}."""
        raise NotImplementedError

    def refuse(self) -> None:
        """No server took it: close the client, with nothing sent."""
        raise NotImplementedError

    def silence(self) -> float:
        """Seconds for which nothing moved in either direction."""
        raise NotImplementedError

    def close(self, ending: Ending) -> None:
        """Close both connections at once, then call L{over}."""
        raise NotImplementedError

    # How a server is found.

    def start(self) -> None:
        """Look for a server; the client's bytes stay where they are until then."""
        listener = self.listener
        listener.upstream.budget.note_request()
        self._tries = listener.options.retry.first_tries(listener.upstream.tries)
        self._began = listener.deadlines.now()
        self._connect()

    def _connect(self) -> None:
        # A loop, because failure may be told at once, for any number of servers.
        self._starting = True
        while self._attempt():
            pass
        self._starting = False

    def _attempt(self) -> bool:
        """
        Try one server.

        @return: whether it failed at once and another is to be tried.
        """
        listener = self.listener
        # What was waited for is here already.
        lease = self.lease
        if lease is None:
            lease = self.lease = listener.upstream.choose(self._tried, self._key)
        if lease is None:
            self._wait_in_line()
            return False
        self._failed = False
        self._chosen = listener.deadlines.now()
        listener.deadlines.set(self, listener.options.connect_timeout)
        target = listener.names.target(lease.server.address)
        if isinstance(target, Deferred):
            self._lookup = target
            target.addCallbacks(self._found, self._not_found)
        else:
            self._call(target)
        if not self._failed:
            return False
        self._failed = False
        return True

    @property
    def _key(self) -> bytes:
        # The one variable that a stream has.
        return self.client.encode() if self.listener.upstream.wants_key else b""

    def _wait_in_line(self) -> None:
        """No server can take the client now; perhaps one can later."""
        listener = self.listener
        if listener.options.queue:
            place = Place(listener.upstream, listener.deadlines, self)
            if place.take(listener.options.queue_timeout, self._tried, self._key):
                self._place = place
                return
        self.waited_in_vain()

    def slot_granted(self, lease: Lease) -> None:
        self._place = None
        self.lease = lease
        self._connect()

    def waited_in_vain(self) -> None:
        self._place = None
        self.listener.no_server(self.listener.upstream.why_none(self._tried))
        self._give_up()

    def _answered(self, server: Server, failed: bool) -> None:
        upstream = self.listener.upstream
        if upstream.wants_times:
            upstream.answered(server, self.listener.deadlines.now() - self._chosen, failed)

    def _found(self, target: Target) -> None:
        if self._lookup is not None:
            self._lookup = None
            self._call(target)

    def _not_found(self, failure: Failure) -> None:
        if self._lookup is not None:
            self._lookup = None
            self.dial_failed(ConnectError(string=failure.getErrorMessage()))

    def _call(self, target: Target) -> None:
        self._target = target
        self._dial = Dial(self.listener.hub, self)
        self._dial.start(target)

    def dialed(self, skt: socket.socket) -> None:
        """The server took the connection."""
        listener = self.listener
        lease = self.lease
        assert lease is not None
        self._dial = None
        self._tried = ()
        if lease.server.fails:
            listener.upstream.succeeded(lease.server)
        self._answered(lease.server, failed=False)
        listener.deadlines.set(self, listener.options.timeout)
        self.connected(skt, self._target)

    def dial_failed(self, reason: ConnectError) -> None:
        """The server did not take it; perhaps the next one does."""
        listener = self.listener
        lease, self.lease = self.lease, None
        assert lease is not None
        self._dial = None
        listener.deadlines.clear(self)
        listener.connect_failed(lease.server, reason)
        if reason.osError not in _OUR_FAULT:
            listener.upstream.failed(lease.server)
            self._answered(lease.server, failed=True)
        lease.release()
        timed_out = isinstance(reason, TimeoutError)
        retry = listener.options.retry
        cause = Cause.TIMEOUT if timed_out else Cause.ERROR
        self._tries = retry.tries_after(self._tries, cause, reused=False)
        if not retry.allows(
            cause,
            method=b"",
            sent=Sent.NOTHING,
            replayable=True,
            tries=self._tries,
            elapsed=listener.deadlines.now() - self._began,
        ) or not listener.upstream.budget.allow_retry():
            self._give_up()
            return
        self._tried = (*self._tried, lease.server)
        if self._starting:
            self._failed = True
        else:
            self._connect()

    def deadline_passed(self) -> None:
        """The server answers too late, or both have been silent too long."""
        listener = self.listener
        if self._stop_calling():
            self.dial_failed(TimeoutError(string="connecting took too long"))
            return
        left = listener.options.timeout - self.silence()
        if left > 0:
            listener.deadlines.set(self, left)
        else:
            self.close(Ending.IDLE)

    def _stop_calling(self) -> bool:
        """@return: whether a server was being called, or waited for."""
        if self._place is not None:
            self._place.leave()
            self._place = None
            return True
        dial, self._dial = self._dial, None
        lookup, self._lookup = self._lookup, None
        if dial is not None:
            dial.cancel()
        if lookup is not None:
            lookup.cancel()
        return dial is not None or lookup is not None

    def _give_up(self) -> None:
        self.listener.refused += 1
        self.refuse()
        self.over()

    def over(self, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """
        Everything is closed.  To be called once.

        @param bytes_in: that came from the client.
        @param bytes_out: that came from the server.
        """
        self.listener.deadlines.forget(self)
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.server.bytes_in += bytes_in
            lease.server.bytes_out += bytes_out
            lease.release()
        self.listener.ended(self, bytes_in, bytes_out)

    def abort(self) -> None:
        """Close at once, in whatever state."""
        if self._stop_calling():
            self.refuse()
            self.over()
        else:
            self.close(Ending.ABORTED)


class SocketSession(Session):
    """
    A session between two bare sockets.

    @param skt: the client's; it is not read before a server is connected, so
        that each server that is tried gets the client's first bytes.
    """

    __slots__ = ("_client", "_relay")

    def __init__(self, listener: StreamListener, skt: socket.socket, client: str) -> None:
        super().__init__(listener, client)
        self._client = skt
        self._relay: Relay | None = None

    def connected(self, skt: socket.socket, target: Target) -> None:
        listener = self.listener
        self._relay = Relay(
            listener.hub,
            listener.pipes,
            self._client,
            skt,
            self._relayed,
            listener.options.half_close,
        )
        self._relay.start()

    def _relayed(self, ending: Ending) -> None:
        assert self._relay is not None
        self.over(self._relay.client.moved, self._relay.server.moved)

    def refuse(self) -> None:
        self._client.close()

    def silence(self) -> float:
        assert self._relay is not None
        return self.listener.deadlines.now() - self._relay.last

    def close(self, ending: Ending) -> None:
        assert self._relay is not None
        self._relay.finish(ending)
