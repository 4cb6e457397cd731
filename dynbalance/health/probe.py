"""
One health check of one server: dial, ask, hear, within a deadline.

Knows the connection; what is asked and what an answer means is
L{dynbalance.health.questions}'.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from dynbalance.errors import EXHAUSTED
from dynbalance.health.judge import Finding
from dynbalance.net.dial import Dial, Target, transport_for
from dynbalance.net.reach import PLAIN, Reach

if TYPE_CHECKING:
    from dynbalance.balancer.address import Address
    from dynbalance.health.questions import Question
    from dynbalance.net.hub import Hub
    from dynbalance.net.names import Names
    from dynbalance.net.tlsdial import TlsDial
    from dynbalance.net.tlstransport import TlsTransport

_NOBODY = (None, None)
"""The ends of a connection that no client opened."""


@frozen(slots=True, kw_only=True)
class Approach:
    """
    How the servers of an upstream are reached.

    @ivar timeout: seconds for all of a check.
    """

    hub: Hub
    names: Names
    clock: IReactorTime
    timeout: float
    reach: Reach = PLAIN


class Probe(Protocol):
    """
    @param key: the server's.
    @param found: is called once, unless L{cancel} was called before.
    """

    def __init__(
        self,
        way: Approach,
        question: Question,
        address: Address,
        key: str,
        found: Callable[[Finding], None],
    ) -> None:
        self._way = way
        self._question = question
        self._address = address
        self._key = key
        self._found: Callable[[Finding], None] | None = found
        self._answer = b""
        self._target: Target | None = None
        self._resolving: Deferred[Target] | None = None
        self._dial: Dial | TlsDial | None = None
        self._late = way.clock.callLater(way.timeout, self._passed)

    def start(self) -> None:
        """Begin; what was found may be told before this returns."""
        target = self._way.names.target(self._address)
        if isinstance(target, Target):
            self._reach(target)
        else:
            self._resolving = target
            target.addCallbacks(self._reach, self._unresolved)

    def cancel(self) -> None:
        """End it, silently."""
        self._found = None
        self._end()

    def _reach(self, target: Target) -> None:
        self._resolving = None
        self._target = target
        way = self._way
        if way.reach.tls is None:
            self._dial = Dial(way.hub, self)
        else:
            greeting = way.reach.greeting(_NOBODY)
            self._dial = way.reach.tls_dial(way.hub, self, self._address, greeting)
        self._dial.start(target)

    def _unresolved(self, failure: Failure) -> None:
        self._resolving = None
        if self._found is not None:
            self._tell(Finding(f"name lookup failed: {failure.value}"))

    # What is heard of the dial

    def dialed(self, skt: socket.socket) -> None:
        assert self._target is not None
        self._dial = None
        transport_for(self._way.hub, skt, self._target, self)
        self._ask(self._way.reach.greeting(_NOBODY))

    def secured(self, transport: TlsTransport) -> None:
        self._dial = None
        transport.attach(self)
        self._ask(b"")

    def dial_failed(self, reason: ConnectError) -> None:
        self._dial = None
        ours = reason.osError in EXHAUSTED
        self._tell(Finding(f"connect failed: {reason}", of_server=not ours))

    def _ask(self, greeting: bytes) -> None:
        words = greeting + self._question.words(self._key)
        if words:
            self._wire.write(words)
        self._look(False)

    # The answer

    def dataReceived(self, data: bytes) -> None:
        if self._found is not None:
            self._answer += data
            self._look(False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._look(True)
        self._end()

    def _look(self, ended: bool) -> None:
        if self._found is not None:
            finding = self._question.judge(self._answer, ended)
            if finding is not None:
                self._tell(finding)

    def _passed(self) -> None:
        self._tell(Finding(f"timed out after {self._way.timeout:g} s"))
        self._end()

    def _tell(self, finding: Finding) -> None:
        found, self._found = self._found, None
        if found is not None:
            self._end()
            found(finding)

    def _end(self) -> None:
        if self._late.active():
            self._late.cancel()
        if self._resolving is not None:
            resolving, self._resolving = self._resolving, None
            resolving.cancel()
        if self._dial is not None:
            dial, self._dial = self._dial, None
            dial.cancel()
        elif self.transport is not None:
            # Whether all of the answer has come does not matter any more.
            self._wire.loseConnection()

    @property
    def _wire(self) -> Any:
        return self.transport
