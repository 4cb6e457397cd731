"""
Clients, the balancer and servers in one process, without a running reactor.

The sockets are real, on loopback; the hub is the real one; only the turning of
the reactor and the clock are the test's.  Each step of a test pumps the hub
until nothing is ready any more, so no test sleeps and none depends on chance.
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import socket
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import FileServer
from dynbalance.config import HttpConfig, UpstreamConfig
from dynbalance.http.accesslog import AccessLog
from dynbalance.http.listener import HttpListener
from dynbalance.http.mounted import Mount
from dynbalance.http.traced import TracedListener, Tracer
from dynbalance.http.upstream import HttpUpstream
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.dial import Target
from dynbalance.net.hub import Hub
from dynbalance.net.pipes import Pipes
from dynbalance.store.contract import ServerOrder

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

_PATIENCE = 400
_FORWARDED = re.compile(rb"X-(Real-IP|Forwarded-(For|Proto)): [^\r]*\r\n")


class HandReactor(Clock):
    """A reactor that turns when the test says so."""

    def addReader(self, reader: Any) -> None:
        """The hub is asked by hand."""

    def removeReader(self, reader: Any) -> None:
        """The hub is asked by hand."""


class Wire:
    """The test's end of a connection."""

    def __init__(self, world: World, skt: socket.socket) -> None:
        self._world = world
        self.socket = skt
        skt.setblocking(False)
        # What is sent arrives at once, however small it is.
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""
        self.ended = False
        self.reset = False

    def send(self, data: bytes) -> None:
        """Send all of C{data}, however slowly it is taken."""
        self.push(data)
        self._world.pump()

    def push(self, data: bytes) -> None:
        """As L{send}, but let nobody look at what is sent last."""
        for _ in range(100000):
            data = data[self.offer(data) :]
            if not data:
                return
            self._world.pump()
        raise AssertionError(f"{len(data)} bytes are not taken")

    def offer(self, data: bytes) -> int:
        """@return: how many bytes the kernel takes now; all, once nobody reads them."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.reset = True
            return len(data)

    def look(self) -> bytes:
        """Read what is here already."""
        while not (self.ended or self.reset):
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                self.reset = True
                break
            if not data:
                self.ended = True
            self.got += data
        return self.got

    def take(self) -> bytes:
        """Pump, and take all that came since the last time."""
        self._world.pump()
        self.look()
        self._world.pump()
        got, self.got = self.look(), b""
        return got

    def await_bytes(self, size: int) -> bytes:
        """Read on until there are C{size} bytes, and take them."""
        self._world.until(lambda: len(self.look()) >= size or self.ended or self.reset)
        got, self.got = self.got[:size], self.got[size:]
        assert len(got) == size, f"{len(got)} of {size} bytes, then the end"
        return got

    def await_end(self) -> bytes:
        """Read on until the other side has closed, and take all."""
        self._world.until(lambda: bool(self.look() and False) or self.ended or self.reset)
        got, self.got = self.got, b""
        return got

    @property
    def over(self) -> bool:
        """Whether the other side has closed or reset it by now."""
        self._world.pump()
        self.look()
        return self.ended or self.reset

    def close(self) -> None:
        self.socket.close()
        self._world.pump()

    def cut(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


class Backend:
    """A server whose every word is the test's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.key = f"127.0.0.1:{self.port}"

    def waiting(self) -> bool:
        """Whether somebody waits to be accepted."""
        self._world.pump()
        return bool(select.select([self.socket], [], [], 0)[0])

    def accept(self) -> Wire:
        self._world.until(self.waiting)
        skt, _ = self.socket.accept()
        wire = Wire(self._world, skt)
        self._world.wires.append(wire)
        self._world.pump()
        return wire

    def refuse(self) -> None:
        """Be gone: nobody listens on the port any more."""
        self.socket.close()


class LiteralNames:
    """The targets of numeric addresses."""

    def target(self, address: Any) -> Any:
        return Target.of(address)


class World:
    """One listener on one upstream, and everybody around."""

    def __init__(
        self,
        backends: int = 1,
        http: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        mounted: Mount | None = None,
        names: Any = None,
        hosts: tuple[str, ...] = (),
        max_fails: int = 1,
        max_conns: int = 1000,
        down: int = 0,
        others: dict[str, int] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """
        @param hosts: instead of the backends' addresses: their names.
        @param down: how many of the backends, the last ones, are marked C{down}.
        @param others: more upstreams, with so many backends each.
        """
        self.clock = HandReactor()
        self.hub = Hub(self.clock)
        self.deadlines = Deadlines(self.clock)
        self.wires: list[Wire] = []
        self.backends = [Backend(self) for _ in range(backends)]
        self.elsewhere = {
            name: [Backend(self) for _ in range(count)] for name, count in (others or {}).items()
        }
        orders = [
            ServerOrder(
                address=f"{host}:{backend.port}",
                host=host,
                port=backend.port,
                max_fails=max_fails,
                max_conns=max_conns,
            )
            for backend, host in zip(
                self.backends, hosts or ["127.0.0.1"] * backends, strict=True
            )
        ]
        more = {
            name: tuple(
                FileServer(order=ServerOrder(address=b.key, host="127.0.0.1", port=b.port))
                for b in members
            )
            for name, members in self.elsewhere.items()
        }
        settings = UpstreamConfig(**(upstream or {}))
        self.balancer = Balancer(
            [
                UpstreamOrder(
                    name="default",
                    policy=(upstream or {}).get("policy", "round_robin"),
                    servers=tuple(
                        FileServer(order=order, down=place >= backends - down)
                        for place, order in enumerate(orders)
                    ),
                    options=UpstreamOptions(
                        hash_consistent=settings.hash_consistent,
                        queue=settings.queue,
                        strict=settings.counting == "strict",
                        retry_budget=settings.retry_budget,
                        last_good=settings.panic == "last_good",
                    ),
                ),
                *(UpstreamOrder(name=name, servers=servers) for name, servers in more.items()),
            ],
            self.clock.seconds,
            Random(1).random,
        )
        self.pipes = Pipes()
        self.upstreams = {
            name: HttpUpstream(
                self.balancer.upstream(name),
                settings,
                self.hub,
                self.deadlines,
                names or LiteralNames(),
                self.pipes,
            )
            for name in ("default", *more)
        }
        self.upstream = self.upstreams["default"]
        self.log = io.StringIO()
        kind = HttpListener if tracer is None else TracedListener
        self.listener = kind(
            HttpConfig(**(http or {})),
            self.upstreams,
            self.deadlines,
            mounted,
            AccessLog("web", self.log, lambda: 0.0, self.clock.seconds),
        )
        if tracer is not None and isinstance(self.listener, TracedListener):
            self.listener.tracer = tracer
        self.port = self.hub.listenTCP(0, self.listener, interface="127.0.0.1")

    # Time

    def pump(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(_PATIENCE):
            self.clock.advance(0)
            before = self.hub.now
            ready = select.select([self.hub.fileno()], [], [], 0)[0]
            if not ready:
                return
            self.hub.doRead()
            assert before <= self.hub.now

    def until(self, true: Callable[[], bool]) -> None:
        """Pump until C{true()}; the kernel may need a moment, not the test."""
        for _ in range(_PATIENCE * 25):
            self.pump()
            if true():
                return
            select.select([self.hub.fileno()], [], [], 0.001)
        raise AssertionError("it does not come true")

    def wait(self, seconds: float) -> None:
        """Let time pass in steps, pumping."""
        while seconds > 0:
            step = min(0.25, seconds)
            seconds -= step
            self.clock.advance(step)
            self.pump()

    # People

    def client(self, receive_buffer: int = 0) -> Wire:
        skt = socket.socket()
        if receive_buffer:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        skt.connect(("127.0.0.1", self.port.getHost().port))
        wire = Wire(self, skt)
        self.wires.append(wire)
        self.pump()
        return wire

    def request(self, data: bytes = GET, backend: int = 0) -> tuple[Wire, Wire, bytes]:
        """
        Send a request over new connections.

        @return: the client's and the server's wire, and what the server got.
        """
        client = self.client()
        client.send(data)
        server = self.backends[backend].accept()
        return client, server, server.take()

    @property
    def servers(self) -> list[Server]:
        return [server for upstream in self.balancer for server in upstream.servers]

    @property
    def held(self) -> int:
        """Slots that are taken now."""
        return sum(server.held for server in self.servers)

    @property
    def idle(self) -> int:
        """Connections to the servers of C{default} that are kept for later."""
        return len(self.upstream.oldest)

    def entries(self) -> list[dict[str, Any]]:
        """What the access log says."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def close(self) -> None:
        """Everybody leaves."""
        for backend in self.backends:
            backend.refuse()
        for wire in self.wires:
            wire.socket.close()
        self.pump()
        for upstream in self.upstreams.values():
            upstream.close_idle()
        self.pump()
        self.port.stopListening()
        self.pump()


def plain(request: bytes) -> bytes:
    """A request without what the balancer says of the client."""
    return _FORWARDED.sub(b"", request)


def post(body: bytes, more: bytes = b"") -> bytes:
    """A POST of known length."""
    return b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)


def sized(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A response of known length."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def _descriptors() -> int:
    """How many sockets and epolls the process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        count += kind.startswith(("socket:", "anon_inode:[eventpoll]"))
    return count


class HttpTestCase(SynchronousTestCase):
    """
    Every test ends with everybody gone, and then nothing may be left: no slot
    on a server, no timer, no wait, no descriptor.
    """

    def setUp(self) -> None:
        self._descriptors = _descriptors()
        self._worlds: list[World] = []

    def world(self, *args: Any, **kwargs: Any) -> World:
        world = World(*args, **kwargs)
        self._worlds.append(world)
        return world

    def tearDown(self) -> None:
        for world in self._worlds:
            world.close()
            self.assert_nothing_left(world)
            world.hub.close()
            for members in (world.backends, *world.elsewhere.values()):
                for backend in members:
                    backend.socket.close()
        # What an earlier test had forgotten may have been collected meanwhile.
        self.assertLessEqual(_descriptors(), self._descriptors, "descriptors are left")

    def assert_nothing_left(self, world: World) -> None:
        self.assertEqual(world.held, 0, "a slot on a server is still taken")
        self.assertEqual(world.listener.channels, set(), "a client is still known")
        self.assertEqual(world.hub.removeAll(), [], "a descriptor is still watched")
        self.assertEqual(repr(world.deadlines), "<Deadlines 0 watched>")
        self.assertEqual(world.clock.getDelayedCalls(), [])
        for upstream in world.upstreams.values():
            self.assertEqual((upstream.idle, upstream.oldest), ({}, {}))
