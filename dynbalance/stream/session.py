"""
One client of a TCP listener, from its arrival to its end.

Knows how a server is found: choose, connect, try the next one, give up; and
how long silence may last.  Refuses to know how bytes are moved: its two kinds
do, L{dynbalance.stream.sockets.SocketSession} between bare sockets, and
L{dynbalance.stream.proxy.TransportSession} between Twisted's transports.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, TimeoutError

from dynbalance.balancer.attempts import Cause, Sent
from dynbalance.balancer.place import Place
from dynbalance.errors import EXHAUSTED
from dynbalance.net.dial import Dial, Target
from dynbalance.net.relay import Ending
from dynbalance.stream.accesslog import StreamAttempt
from dynbalance.stream.leaving import LOOK

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from dynbalance.balancer.lease import Lease
    from dynbalance.balancer.server import Server
    from dynbalance.net.tlsdial import TlsDial
    from dynbalance.net.tlstransport import TlsTransport
    from dynbalance.stream.listener import StreamListener
    from dynbalance.stream.options import Destination

# What this machine has run out of is no server's fault.
_OUR_FAULT = EXHAUSTED | {errno.EADDRNOTAVAIL}


class Session:
    """
    A client, and the server that is found for it.

    @ivar client: the client's address, without a port.
    @ivar upstream: where a server is looked for.
    @ivar options: what is done with the connection.
    @ivar server_name: that the client has asked for, where somebody wants to know.
    @ivar attempts: what was tried, if somebody wants to know.
    @ivar lease: the slot on the server that is being tried or used.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
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
        "attempts",
        "client",
        "deadline",
        "due",
        "lease",
        "listener",
        "options",
        "server_name",
        "upstream",
    )

    def __init__(self, listener: StreamListener, client: str, way: Destination) -> None:
        self.listener = listener
        self.upstream = way.upstream
        self.options = way.options
        self.server_name = way.server_name
        self.client = client
        self.attempts: list[StreamAttempt] | None = None
        if listener.access_log is not None:
            self.attempts = []
        self.lease: Lease | None = None
        self.deadline = inf
        self.due = inf
        self._dial: Dial | TlsDial | None = None
        # An address; with a hook also that, and its turn.
        self._lookup: Deferred[Any] | IDelayedCall | None = None
        self._place: Place | None = None
        self._tried: tuple[Server, ...] = ()
        self._tries = 0
        self._began = listener.deadlines.now()
        self._chosen = 0.0
        self._starting = self._failed = False
        listener.sessions.add(self)

    # What the two kinds do each in its way.

    def connected(self, skt: socket.socket, target: Target) -> None:
        """A server took the connection: move bytes, then call L{over}."""
        raise NotImplementedError

    def joined(self, transport: TlsTransport) -> None:
        """As L{connected}, with a server that speaks TLS."""
        raise NotImplementedError

    def ends(self) -> tuple[Any, Any]:
        """Where the client's connection comes from and where it came to."""
        raise NotImplementedError

    def has_left(self) -> bool:
        """Whether the client went away while its bytes wait for a server."""
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
        self.upstream.budget.note_request()
        self._tries = self.options.retry.first_tries(self.upstream.tries)
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
            lease = self.lease = self.upstream.choose(self._tried, self._key)
        if lease is None:
            self._wait_in_line()
            return False
        self._failed = False
        self._chosen = listener.deadlines.now()
        if self.attempts is not None:
            self.attempts.append(StreamAttempt(lease.server.key, self._chosen))
        listener.deadlines.set(self, self.options.connect_timeout)
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
        return self.client.encode() if self.upstream.wants_key else b""

    def _wait_in_line(self) -> None:
        """No server can take the client now; perhaps one can later."""
        place = Place(self.upstream, self.listener.deadlines, self)
        if place.take(self.options.queue_timeout, self._tried, self._key):
            self._place = place
            self.listener.deadlines.set(self, LOOK)
            return
        self.waited_in_vain()

    def slot_granted(self, lease: Lease) -> None:
        self._place = None
        self.lease = lease
        self._connect()

    def waited_in_vain(self) -> None:
        self._place = None
        why = self.upstream.why_none(self._tried)
        self.listener.no_server(self.upstream, why)
        self._give_up(why)

    def _judge(self, server: Server, failed: bool) -> None:
        """Say what the server's answer to our call says of it."""
        if failed:
            self.upstream.failed(server)
        elif server.fails:
            self.upstream.succeeded(server)
        if self.upstream.wants_times:
            self.upstream.answered(server, self.listener.deadlines.now() - self._chosen, failed)

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
        reach = self.options.reach
        if reach.tls is None:
            self._dial = Dial(self.listener.hub, self)
        else:
            assert self.lease is not None
            greeting = reach.greeting(self.ends())
            address = self.lease.server.address
            self._dial = reach.tls_dial(self.listener.hub, self, address, greeting)
        self._dial.start(target)

    def dialed(self, skt: socket.socket) -> None:
        """The server took the connection."""
        if self.options.reach.proxy_protocol and not self._greet(skt):
            skt.close()
            self.dial_failed(ConnectError(string="the server takes no PROXY header"))
            return
        self._reached()
        self.connected(skt, self._target)

    def secured(self, transport: TlsTransport) -> None:
        """The server took the connection, and is who it should be."""
        self._reached()
        self.joined(transport)

    def _greet(self, skt: socket.socket) -> bool:
        """@return: whether the server was told of the client."""
        greeting = self.options.reach.greeting(self.ends())
        try:
            return skt.send(greeting) == len(greeting)
        except OSError:
            return False

    def _reached(self) -> None:
        lease = self.lease
        assert lease is not None
        self._dial = None
        self._tried = ()
        self._judge(lease.server, failed=False)
        now = self.listener.deadlines.now()
        lease.server.connects.note(now - self._chosen)
        if self.attempts:
            self.attempts[-1].connected = now
        self.listener.deadlines.set(self, self.options.timeout)

    def dial_failed(self, reason: ConnectError) -> None:
        """The server did not take it; perhaps the next one does."""
        listener = self.listener
        lease, self.lease = self.lease, None
        assert lease is not None
        self._dial = None
        listener.deadlines.clear(self)
        listener.connect_failed(self.upstream, lease.server, reason)
        if self.attempts:
            self.attempts[-1].ended = listener.deadlines.now()
            self.attempts[-1].cause = str(reason)
        if reason.osError not in _OUR_FAULT:
            self._judge(lease.server, failed=True)
        lease.release()
        self._tried = (*self._tried, lease.server)
        cause = Cause.TIMEOUT if isinstance(reason, TimeoutError) else Cause.ERROR
        self._attempt_failed(cause, str(reason))

    def _attempt_failed(self, cause: Cause, why: str) -> None:
        retry = self.options.retry
        self.upstream.tally.failed[cause.value] += 1
        self._tries = retry.tries_after(self._tries, cause, reused=False)
        if not retry.allows(
            cause,
            method=b"",
            sent=Sent.NOTHING,
            replayable=True,
            tries=self._tries,
            elapsed=self.listener.deadlines.now() - self._began,
        ) or not self.upstream.budget.allow_retry():
            self._give_up(why)
            return
        self.upstream.tally.retries[cause.value] += 1
        if self._starting:
            self._failed = True
        else:
            self._connect()

    def deadline_passed(self) -> None:
        """The server answers too late, or both have been silent too long."""
        listener = self.listener
        if self._place is not None:
            self._look_after_client()
            return
        if self._stop_calling():
            self.dial_failed(TimeoutError(string="connecting took too long"))
            return
        left = self.options.timeout - self.silence()
        if left > 0:
            listener.deadlines.set(self, left)
        else:
            self.close(Ending.IDLE)

    def _look_after_client(self, patience: float = LOOK) -> None:
        """
        Nobody is called; that goes on for as long as the client wants it.

        @param patience: seconds after which there is more to do than to look again.
        """
        if self.has_left():
            self._stop_calling()
            self.refuse()
            self.over(499, "the client left")
        else:
            self.listener.deadlines.set(self, min(LOOK, patience))

    def _stop_calling(self) -> bool:
        """@return: whether a server was being called, or waited for."""
        if self._place is not None:
            self._place.cancel()
            self._place = None
            return True
        dial, self._dial = self._dial, None
        lookup, self._lookup = self._lookup, None
        if dial is not None:
            dial.cancel()
        if lookup is not None:
            lookup.cancel()
        return dial is not None or lookup is not None

    def _give_up(self, why: str, status: int = 502) -> None:
        self.listener.refused += 1
        self.refuse()
        self.over(status, why)

    def over(self, status: int, reason: str, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """
        Everything is closed.  To be called once.

        @param status: see L{dynbalance.stream.accesslog.StreamLog.connection}.
        @param reason: the same in words.
        @param bytes_in: that came from the client.
        @param bytes_out: that came from the server.
        """
        if status != 200:
            self.upstream.tally.unanswered[status] += 1
        if self.attempts is not None:
            self._log(self.attempts, status, reason, bytes_in, bytes_out)
        self.listener.deadlines.forget(self)
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.server.bytes_in += bytes_in
            lease.server.bytes_out += bytes_out
            lease.release()
        self.listener.ended(self, bytes_in, bytes_out)

    def _log(
        self, attempts: list[StreamAttempt], status: int, reason: str, came: int, went: int
    ) -> None:
        log = self.listener.access_log
        assert log is not None
        upstream = self.upstream.name
        log.connection(self.client, status, reason, self._began, upstream, came, went, attempts)

    def abort(self) -> None:
        """Close at once, in whatever state."""
        if self._stop_calling():
            self.refuse()
            self.over(502, Ending.ABORTED.value)
        else:
            self.close(Ending.ABORTED)
