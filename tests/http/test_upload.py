"""
Long bodies of requests, which go from the client to the server without being
looked at.
"""

from __future__ import annotations

import random
from unittest import mock

from tests.http.longbodies import LongBodyCase
from tests.http.world import GET, OK, Wire, World, sized

LONG = random.Random(8).randbytes(3_000_000)
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % len(LONG) + LONG


class UploadCase(LongBodyCase):
    def begin(self, world: World, said: bytes = REQUEST) -> tuple[Wire, Wire]:
        """A client that says so much, and the server that has heard the beginning."""
        client = world.client()
        self.offered = memoryview(said)
        self.offer(client)
        world.pump()
        server = world.backends[0].accept()
        return client, server

    def hear(self, client: Wire, server: Wire, size: int) -> bytes:
        """So much of the body arrives while the client speaks on."""
        got = b""
        for _ in range(20000):
            self.offer(client)
            got += server.take()
            body = got.partition(b"\r\n\r\n")[2]
            if len(body) >= size or server.ended or server.reset:
                return body
        raise AssertionError(f"{len(got)} of {size} bytes, and no more")


class WholeUploadTests(UploadCase):
    def test_to_the_byte(self) -> None:
        """All of it arrives, is counted, and both connections go on."""
        world = self.world()
        client, server = self.begin(world)
        self.assertEqual(LONG, self.hear(client, server, len(LONG)))
        self.assert_spliced(world)
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual((0, 1), (world.held, world.idle))
        self.assertEqual(len(LONG), world.entries()[0]["bytes_in"])
        self.assertGreater(world.servers[0].bytes_in, len(LONG))
        client.send(GET)
        self.assertTrue(server.take().startswith(b"GET / "))

    def test_again(self) -> None:
        """One long body after the other goes over the same connections."""
        world = self.world()
        client, server = self.begin(world)
        for _ in range(3):
            self.assertEqual(LONG, self.hear(client, server, len(LONG)))
            server.send(OK)
            self.assertEqual(OK, client.take())
            self.offered = memoryview(REQUEST)
        self.assertEqual(LONG, self.hear(client, server, len(LONG)))
        self.assert_spliced(world)

    def test_pipelined(self) -> None:
        """What the client asks behind it is asked behind it."""
        world = self.world()
        client, server = self.begin(world, REQUEST + GET)
        self.assertEqual(LONG, self.hear(client, server, len(LONG)))
        self.offer(client)
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertTrue(server.take().startswith(b"GET / "))

    def test_slow_server(self) -> None:
        """A server that does not read holds the client back, and gets all later."""
        world = self.world()
        body = 12 * LONG
        client, server = self.begin(world, HEAD % len(body) + body)
        for _ in range(50):
            world.pump()
            self.offer(client)
        self.assertTrue(self.offered, "the client was not held back")
        self.assertEqual(body, self.hear(client, server, len(body)))
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual((0, 1), (world.held, world.idle))

    def test_without_pipes(self) -> None:
        """Without a descriptor for a pipe it goes the other way."""
        world = self.world()
        with mock.patch.object(world.pipes, "take", lambda: None):
            client, server = self.begin(world)
            self.assertEqual(LONG, self.hear(client, server, len(LONG)))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_without_splice(self) -> None:
        """A socket that cannot be spliced is read as usual."""
        world = self.world()

        def refuse(*_: object, **__: object) -> int:
            raise OSError(22, "Invalid argument")

        with mock.patch("dynbalance.net.bulk._SPLICE", refuse):
            client, server = self.begin(world)
            self.assertEqual(LONG, self.hear(client, server, len(LONG)))
        server.send(OK)
        self.assertEqual(OK, client.take())


class UploadTroubleTests(UploadCase):
    def test_answered_early(self) -> None:
        """An answer in the midst of it arrives; nothing is used again."""
        world = self.world()
        body = 12 * LONG
        client, server = self.begin(world, HEAD % len(body) + body)
        server.await_bytes(400_000)
        server.send(sized(b"no more, please"))
        for _ in range(100):
            self.offer(client)
            world.pump()
        self.assertIn(b"no more, please", client.await_end())
        self.assertTrue(server.over)
        self.assertEqual((0, 0), (world.held, world.idle))

    def test_server_dies(self) -> None:
        """No other server gets what is left: the client hears of the failure."""
        world = self.world(2)
        body = 12 * LONG
        client = world.client()
        self.offered = memoryview(HEAD % len(body) + body)
        self.offer(client)
        first = next(backend for backend in world.backends if backend.waiting())
        server = first.accept()
        server.await_bytes(400_000)
        server.cut()
        for _ in range(100):
            self.offer(client)
            world.pump()
        self.assertIn(b"HTTP/1.1 502 ", client.await_end())
        (other,) = [backend for backend in world.backends if backend is not first]
        self.assertFalse(other.waiting())
        self.assertEqual(0, world.held)

    def test_client_leaves(self) -> None:
        """A server that waits for the rest does not wait for ever."""
        world = self.world()
        client, server = self.begin(world, REQUEST[:-1])
        self.hear(client, server, len(LONG) - 1)
        client.cut()
        self.assertTrue(server.over)
        self.assertEqual(0, world.held)

    def test_client_silent(self) -> None:
        """A client that does not go on is told after client_header_timeout."""
        world = self.world(http={"client_header_timeout": 3.0})
        client, server = self.begin(world, REQUEST[:-1])
        self.hear(client, server, len(LONG) - 1)
        world.wait(2.5)
        self.assertFalse(client.over)
        world.wait(1.0)
        self.assertIn(b"HTTP/1.1 408 ", client.await_end())
        self.assertTrue(server.over)
        self.assertEqual(0, world.held)

    def test_server_stalls(self) -> None:
        """A server that takes nothing for send_timeout is given up."""
        world = self.world(upstream={"send_timeout": 3.0})
        body = 12 * LONG
        client, server = self.begin(world, HEAD % len(body) + body)
        for _ in range(50):
            self.offer(client)
            world.pump()
        world.wait(2.0)
        self.assertFalse(client.over)
        for _ in range(4):
            world.wait(2.0)
        self.assertIn(b"HTTP/1.1 504 ", client.await_end())
        self.assertEqual(0, world.held)
        server.close()
