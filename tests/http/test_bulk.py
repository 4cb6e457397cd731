"""
Long bodies, which go from the server to the client without being looked at.
"""

from __future__ import annotations

import random
import select
from unittest import mock

from dynbalance.http.clientconnection import STALL
from tests.http.longbodies import LongBodyCase
from tests.http.world import GET, OK, Wire, World, sized

LONG = random.Random(7).randbytes(3_000_000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LONG)
LONGER = sized(12 * LONG)
"""More than all buffers of the kernel take."""


class BulkCase(LongBodyCase):
    def begin(self, world: World, said: bytes, receive_buffer: int = 0) -> tuple[Wire, Wire]:
        """A client that has asked, and a server that has said so much."""
        client = world.client(receive_buffer)
        client.send(GET)
        server = world.backends[0].accept()
        server.take()
        self.offered = memoryview(said)
        self.offer(server)
        return client, server

    def read_all(self, client: Wire, server: Wire, size: int) -> bytes:
        """The client reads on while the server speaks on."""
        got = b""
        for _ in range(20000):
            self.offer(server)
            got += client.take()
            if len(got) >= size or client.ended or client.reset:
                return got
        raise AssertionError(f"{len(got)} of {size} bytes, and no more")

    def sip(self, world: World, client: Wire, server: Wire, size: int) -> None:
        """The client reads so much and not a byte more."""
        for _ in range(20000):
            if select.select([client.socket], [], [], 0.001)[0]:
                size -= len(client.socket.recv(min(size, 65536)))
            if not size:
                return
            self.offer(server)
            world.pump()
        raise AssertionError(f"{size} bytes do not come")


class WholeTests(BulkCase):
    def test_to_the_byte(self) -> None:
        """All of it arrives, and both connections go on."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG)
        self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))
        self.assert_spliced(world)
        self.assertEqual((0, 1), (world.held, world.idle))
        self.assertEqual(len(HEAD + LONG), world.servers[0].bytes_out)
        client.send(GET)
        self.assertTrue(server.take())
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual(len(HEAD + LONG), world.entries()[0]["bytes_out"])

    def test_again(self) -> None:
        """One long body after the other goes over the same connections."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG)
        for _ in range(3):
            self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))
            client.send(GET)
            self.offered = memoryview(HEAD + LONG)
            self.assertTrue(server.take())
        self.read_all(client, server, len(HEAD + LONG))

    def test_pipelined(self) -> None:
        """What the client asks meanwhile is answered after it."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG)
        client.send(GET)
        self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))
        self.assertTrue(server.take())
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_slow_reader(self) -> None:
        """A client that reads in sips gets all, and the server waits for it."""
        world = self.world()
        client, server = self.begin(world, LONGER, 65536)
        world.pump()
        self.offer(server)
        self.assertTrue(self.offered, "the server was not held back")
        self.assertEqual(LONGER, self.read_all(client, server, len(LONGER)))
        self.assertEqual((0, 1), (world.held, world.idle))

    def test_old_client(self) -> None:
        """One that speaks HTTP/1.0 gets the end of the connection with it."""
        world = self.world()
        client = world.client()
        client.send(GET.replace(b"1.1", b"1.0"))
        server = world.backends[0].accept()
        server.take()
        self.offered = memoryview(HEAD + LONG)
        got = self.read_all(client, server, 1 << 30)
        self.assertTrue(got.endswith(LONG) and client.ended)

    def test_without_pipes(self) -> None:
        """Without a descriptor for a pipe it goes the other way."""
        world = self.world()
        with mock.patch.object(world.pipes, "take", lambda: None):
            client, server = self.begin(world, HEAD + LONG)
            self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))

    def test_without_splice(self) -> None:
        """A socket that cannot be spliced is read as usual."""
        world = self.world()

        def refuse(*_: object, **__: object) -> int:
            raise OSError(22, "Invalid argument")

        with mock.patch("dynbalance.net.bulk._SPLICE", refuse):
            client, server = self.begin(world, HEAD + LONG)
            self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))
        self.assert_spliced(world)


class TroubleTests(BulkCase):
    def test_surplus(self) -> None:
        """A server that says more than it announced is not asked again."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG + OK)
        self.assertEqual(HEAD + LONG, self.read_all(client, server, len(HEAD + LONG)))
        self.assertEqual((0, 0), (world.held, world.idle))
        self.assertTrue(server.over)

    def test_cut_short(self) -> None:
        """A body that breaks off breaks the client's connection off."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG[:-1])
        while self.offered:
            client.take()
            self.offer(server)
        server.close()
        self.assertTrue(client.over)
        self.assertTrue(client.reset, "the client takes it for whole")
        self.assertEqual(0, world.held)
        self.assertEqual("error", world.entries()[0]["attempts"][0]["cause"])

    def test_client_leaves(self) -> None:
        """Nobody to write to: the server's connection ends, too."""
        world = self.world()
        client, server = self.begin(world, HEAD + LONG, 4096)
        world.pump()
        client.cut()
        world.until(lambda: server.over)
        self.assertEqual(0, world.held)
        self.assertEqual("<Pipes 0 spare>", repr(world.pipes))

    def test_server_silent(self) -> None:
        """A server that says nothing for read_timeout is given up."""
        world = self.world(upstream={"read_timeout": 3.0})
        client, _ = self.begin(world, HEAD + LONG[:1_000_000])
        for _ in range(100):
            client.take()
        world.wait(2.5)
        self.assertFalse(client.over)
        world.wait(1.0)
        self.assertTrue(client.over)
        self.assertEqual("timeout", world.entries()[0]["attempts"][0]["cause"])

    def test_client_stalls(self) -> None:
        """A client that takes nothing is cut; one that takes a little is not."""
        world = self.world(upstream={"read_timeout": 3600.0})
        client, server = self.begin(world, LONGER, 65536)
        world.pump()
        self.offer(server)
        for _ in range(3):
            world.wait(STALL - 1.0)
            # The kernel calls the socket writable when a good part is free.
            self.sip(world, client, server, len(LONG))
            self.assertFalse(client.ended or client.reset)
        for _ in range(50):
            world.pump()
            self.offer(server)
        (channel,) = world.listener.channels
        self.assertTrue(channel.transport.queued, "everything was taken")
        # The first look may still find that it took something.
        world.wait(STALL + 1.0)
        world.wait(STALL + 1.0)
        self.assertTrue(server.over)
        self.assertEqual(0, world.held)
