"""
Clients and servers that do anything at any time: whatever happens, nothing is
left behind, and nothing is logged as a mistake of ours.
"""

from __future__ import annotations

from random import Random

from tests.http.world import HttpTestCase, Wire, World

REQUESTS = (
    b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /%d HTTP/1.0\r\nHost: a\r\n\r\n",
    b"HEAD /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /%d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"PUT /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    b"nonsense %d\r\n\r\n",
)
LONG = b"y" * 150_000
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n" + LONG,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
    b"nonsense\r\n\r\n",
)


class _Chaos:
    """One world, and chance."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = Random(seed)
        self.clients: list[Wire] = []
        self.servers: list[Wire] = []
        self.rest: dict[Wire, bytes] = {}

    def step(self) -> None:
        self.chance.choice(
            (
                self.arrive,
                self.ask,
                self.ask,
                self.accept,
                self.accept,
                self.answer,
                self.answer,
                self.go_on,
                self.go_on,
                self.read,
                self.leave,
                self.pass_time,
            )
        )()

    def arrive(self) -> None:
        if len(self.clients) < 4:
            self.clients.append(self.world.client(self.chance.choice((0, 4096))))

    def ask(self) -> None:
        if self.clients:
            request = self.chance.choice(REQUESTS) % self.chance.randrange(100)
            self.say(self.chance.choice(self.clients), request * self.chance.choice((1, 1, 3)))

    def accept(self) -> None:
        for backend in self.world.backends:
            if backend.waiting():
                self.servers.append(backend.accept())

    def answer(self) -> None:
        if self.servers:
            self.say(self.chance.choice(self.servers), self.chance.choice(ANSWERS))

    def say(self, wire: Wire, data: bytes) -> None:
        """All of it, or a piece and the rest some other time."""
        data = self.rest.pop(wire, b"") + data
        size = self.chance.choice((len(data), self.chance.randrange(len(data) + 1)))
        self.rest[wire] = data[wire.offer(data[:size]) :]
        self.world.pump()

    def go_on(self) -> None:
        wires = [wire for wire, rest in self.rest.items() if rest]
        if wires:
            self.say(self.chance.choice(wires), b"")

    def read(self) -> None:
        for wire in self.clients + self.servers:
            if self.chance.random() < 0.5:
                wire.take()

    def leave(self) -> None:
        if self.chance.random() < 0.5 and (wires := self.clients + self.servers):
            wire = self.chance.choice(wires)
            (self.clients if wire in self.clients else self.servers).remove(wire)
            self.rest.pop(wire, None)
            self.chance.choice((wire.close, wire.cut))()

    def pass_time(self) -> None:
        self.world.wait(self.chance.choice((0.25, 1.0, 3.0, 12.0)))


class AnythingTests(HttpTestCase):
    """Chance, by numbers that can be repeated."""

    def test_anything(self) -> None:
        """Nothing is left behind, whatever happened before."""
        for seed in range(60):
            world = self.world(
                backends=2,
                upstream={
                    "read_timeout": 10.0,
                    "send_timeout": 10.0,
                    "body_buffer": seed % 2 * 100,
                    "next_upstream": ("error", "timeout", "non_idempotent"),
                },
                http={"client_header_timeout": 8.0, "keepalive_timeout": 5.0},
                max_fails=seed % 3,
            )
            chaos = _Chaos(world, seed)
            for _ in range(60):
                chaos.step()
                busy = sum(not channel.idle for channel in world.listener.channels)
                self.assertEqual(world.held, busy, f"seed {seed}")
            world.close()
            self.assert_nothing_left(world)
