"""
The proxy between a client and a server without sockets, time or a reactor: what
one side writes waits until the test hands it to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.upstream import FileServer
from dynbalance.config import HttpConfig, UpstreamConfig
from dynbalance.http.listener import HttpListener
from dynbalance.http.upstream import HttpUpstream
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.dial import Target
from dynbalance.net.pipes import Pipes
from dynbalance.store.contract import ServerOrder

_STEPS = 100_000


class Line:
    """
    A transport, and the other end of it.

    @ivar heard: what the protocol wrote and nobody has taken.
    @ivar ended: the protocol writes no more.
    @ivar reset: it wants nothing more to be read, either.
    """

    queued = 0
    clear = True

    def __init__(self) -> None:
        self.heard = b""
        self.ended = False
        self.reset = False
        self._protocol: Any = None
        self._paused = False
        self._waiting = b""
        self._over = False

    def attach(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.makeConnection(self)

    # For the protocol

    def write(self, data: bytes) -> None:
        assert not self._over, "written after the end"
        if not self.ended:
            self.heard += data

    def loseConnection(self) -> None:
        self.ended = self.reset = True

    abortConnection = loseConnection

    def loseWriteConnection(self) -> None:
        self.ended = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing is ever too much."""

    def unregisterProducer(self) -> None:
        """Likewise."""

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.9", 9999)

    getHost = getPeer

    # For the other end

    def send(self, data: bytes) -> None:
        """Say something to the protocol, as soon as it reads."""
        self._waiting += data

    def close(self) -> None:
        """Hang up."""
        self.step()
        self.ended = self.reset = True

    def step(self) -> bool:
        """@return: whether something was done."""
        if self._over:
            return False
        if self.reset:
            self._over = True
            why = ConnectionAborted() if self._waiting else ConnectionDone()
            self._protocol.connectionLost(Failure(why))
            return True
        if self._waiting and not self._paused:
            data, self._waiting = self._waiting, b""
            self._protocol.dataReceived(data)
            return True
        return False


class _Dial:
    def __init__(self, world: MemoryWorld, caller: Any) -> None:
        self._world = world
        self._caller = caller

    def start(self, target: Target) -> None:
        line = Line()
        self._world.servers.append(line)
        self._world.lines.append(line)
        self._caller.secured(line)

    def cancel(self) -> None:
        """It has started at once."""


class _Reach:
    """How the server is reached: at once, and without a socket."""

    proxy_protocol = 0
    tls = True

    def __init__(self, world: MemoryWorld) -> None:
        self._world = world

    def greeting(self, ends: Any) -> bytes:
        return b""

    def tls_dial(self, hub: Any, caller: Any, address: Any, greeting: bytes) -> _Dial:
        return _Dial(self._world, caller)


class _Names:
    def target(self, address: Any) -> Target:
        return Target.of(address)


class MemoryWorld:
    """
    One listener and its upstream of one server.

    @ivar servers: the connections to the server, in this order.
    """

    now = 0.0  # it is its own hub

    def __init__(
        self, clients: Callable[[HttpListener], Factory] = lambda listener: listener, **http: Any
    ) -> None:
        """
        @param clients: makes the protocol of each client.
        @param http: options of the listener.
        """
        order = ServerOrder(address="192.0.2.1:80", host="192.0.2.1", port=80, max_fails=0)
        upstream = UpstreamOrder(name="default", servers=(FileServer(order=order),))
        self.lines: list[Line] = []
        self.servers: list[Line] = []
        self._clock = Clock()
        self._balancer = Balancer([upstream], self._clock.seconds, Random(1).random)
        self._deadlines = Deadlines(self._clock)
        self._upstream = HttpUpstream(
            self._balancer.upstream("default"), UpstreamConfig(), self, self._deadlines,  # type: ignore[arg-type]
            names=_Names(), pipes=Pipes(), reach=_Reach(self),  # type: ignore[arg-type]
        )  # fmt: skip
        self._listener = HttpListener(
            HttpConfig(**http), {"default": self._upstream}, self._deadlines
        )
        self._clients = clients(self._listener)

    def client(self) -> Line:
        line = Line()
        self.lines.append(line)
        line.attach(self._clients.buildProtocol(line.getPeer()))
        return line

    def settle(self, served: Callable[[Line, bytes], None]) -> None:
        """
        Let everything happen that can.

        @param served: does what the server does with what it hears.
        """
        for _ in range(_STEPS):
            moved = sum(line.step() for line in self.lines) > 0
            for line in self.servers:
                if line.heard:
                    heard, line.heard = line.heard, b""
                    served(line, heard)
                    moved = True
            if not moved:
                return
        raise AssertionError("it goes on for ever")

    def close(self) -> None:
        """
        Everybody leaves.

        @raise AssertionError: something is left behind.
        """
        for line in self.lines:
            line.close()
        self.settle(lambda line, heard: None)
        left = [server.held for server in self._balancer.upstream("default").servers]
        assert left == [0], "a slot is still taken"
        assert not self._listener.channels, "a client is still known"
        assert not self._upstream.oldest, "a connection is still kept"
        assert repr(self._deadlines) == "<Deadlines 0 watched>"
        assert not self._clock.getDelayedCalls()
