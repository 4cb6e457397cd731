"""Tests of requests that are read whole before a server is chosen."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from io import FileIO
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.http.spool import PIECE, Spool, SpooledBody
from tests.http.test_resource import SiteWorld
from tests.http.world import GET, OK, HttpTestCase, World, plain, post

ROOM = 1000
LONG = bytes(range(256)) * 12_000
"""Three megabytes: more than two sockets keep."""


class Full(Spool):
    """A disk without room."""

    def open(self) -> FileIO:
        return cast(FileIO, open("/dev/full", "r+b", buffering=0))


class Lost(Spool):
    """
    A disk that forgets.

    @ivar files: what was opened.
    """

    files: list[FileIO]

    def open(self) -> FileIO:
        self.files = [super().open()]
        return self.files[0]


class SpooledBodyTests(SynchronousTestCase):
    """A body in memory, and in a file."""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.spool = Spool(os.path.join(self.directory, "state", "spool"))
        self.spool.prepare()

    def read(self, body: SpooledBody) -> bytes:
        pieces = [body.so_far()]
        while body.left:
            pieces.append(body.read())
        self.assertTrue(all(len(piece) <= PIECE for piece in pieces))
        self.assertEqual(b"", body.read())
        return b"".join(pieces)

    def test_whole(self) -> None:
        """Whatever its size and however it came, it is read back as it was, again and again."""
        for size in (0, 1, 99, 100, 101, PIECE, PIECE + 1, 300_000):
            for step in (7, 100, 70_000):
                wanted = LONG[:size]
                body = SpooledBody(self.spool, 100)
                for at in range(0, size, step if size < 1000 else 70_000):
                    width = step if size < 1000 else 70_000
                    self.assertEqual(b"", body.add(wanted[at : at + width]))
                self.assertEqual(b"", body.end())
                self.assertEqual(size, body.size)
                for _ in range(2):
                    self.assertEqual(wanted, self.read(body))
                body.close()

    def test_directory(self) -> None:
        """Nobody else is let in, and no file has a name."""
        self.assertEqual(0o700, os.stat(self.spool.directory).st_mode & 0o777)
        body = SpooledBody(self.spool, 10)
        body.add(b"more than ten bytes")
        self.assertEqual([], os.listdir(self.spool.directory))
        body.close()
        self.spool.prepare()

    def test_small_needs_no_file(self) -> None:
        """What fits into memory stays there."""
        body = SpooledBody(Spool("/nonexistent"), 10)
        body.add(b"ten bytes!")
        self.assertEqual(b"ten bytes!", body.so_far())
        with self.assertRaises(OSError):
            body.add(b"1")


class BufferedTests(HttpTestCase):
    """One upstream with C{request_buffering}."""

    def world(
        self,
        backends: int = 1,
        spool: type[Spool] = Spool,
        kind: type[World] = World,
        **more: Any,
    ) -> World:
        upstream = {"request_buffering": True, "body_buffer": ROOM, **more.pop("upstream", {})}
        world = kind(backends, upstream=upstream, **more)
        self._worlds.append(world)
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.spool = world.upstream.spool = spool(directory)
        return world

    def tearDown(self) -> None:
        super().tearDown()
        # On tmpfs and everywhere: whose name is gone is told from what is open.
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                continue
            self.assertFalse(target.startswith(self.spool.directory), "a spool file is left")

    def chunked(self, *pieces: bytes) -> bytes:
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body

    def test_waits_for_all(self) -> None:
        """No server is asked before the last byte is here."""
        world = self.world()
        client = world.client()
        client.send(post(b"12345")[:-1])
        self.assertFalse(world.backends[0].waiting())
        self.assertEqual(0, world.held)
        client.send(b"5")
        server = world.backends[0].accept()
        self.assertEqual(post(b"12345"), plain(server.take()))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_time(self) -> None:
        """The server's time begins when the body is here."""
        world = self.world()
        client = world.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
        world.wait(5.0)
        client.send(b"2")
        server = world.backends[0].accept()
        server.take()
        world.wait(0.25)
        server.send(OK)
        client.take()
        self.assertAlmostEqual(world.servers[0].times.total, 0.25, 2)

    def test_at_once(self) -> None:
        """A request that comes with all its body goes on at once, and so does the next."""
        world = self.world()
        client, server, got = world.request(post(b"abc") + post(b"def") + GET)
        self.assertEqual(post(b"abc"), plain(got))
        server.send(OK)
        self.assertEqual(post(b"def"), plain(server.take()))
        server.send(OK)
        self.assertEqual(GET, plain(server.take()))
        server.send(OK)
        self.assertEqual(OK * 3, client.take())

    def test_chunked(self) -> None:
        """What came in chunks goes on with its length."""
        for pieces in ((b"ab", b"cde"), (), (b"x" * 900, b"y" * 900)):
            world = self.world()
            client = world.client()
            client.send(self.chunked(*pieces))
            self.assertFalse(world.backends[0].waiting())
            client.send(b"0\r\n\r\n")
            server = world.backends[0].accept()
            body = b"".join(pieces)
            self.assertEqual(
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
                plain(server.take()),
            )
            server.send(OK)
            self.assertEqual(OK, client.take())

    def test_expect(self) -> None:
        """Who asks whether to send the body is told so without a server."""
        world = self.world()
        client = world.client()
        client.send(post(b"", b"Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 3"))
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.take())
        self.assertFalse(world.backends[0].waiting())
        client.send(b"abc")
        server = world.backends[0].accept()
        self.assertTrue(server.take().endswith(b"\r\n\r\nabc"))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_long(self) -> None:
        """A long body arrives whole, a piece at a time, however slowly it is taken."""
        world = self.world()
        client = world.client()
        client.send(post(LONG))
        self.assertEqual([], os.listdir(self.spool.directory))
        server = world.backends[0].accept()
        (channel,) = world.listener.channels
        connection = cast(Any, channel)._exchange._connection
        self.assertLessEqual(connection.transport.queued, PIECE)
        head, _, rest = plain(server.await_bytes(400)).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d" % len(LONG), head)
        more = server.await_bytes(len(LONG) - len(rest))
        self.assertEqual(LONG, rest + more)
        server.send(OK)
        self.assertEqual(OK, client.take())
        self.assertEqual(1, world.idle)
        (kept,) = world.upstream.oldest
        self.assertFalse(kept.choked)
        self.assertIs(kept, kept.transport.producer)

    def test_again_on_a_kept_connection(self) -> None:
        """A connection that took a long body takes the next one, too."""
        world = self.world()
        client, server, _ = world.request(post(b"first"))
        server.send(OK)
        for _ in range(2):
            client.send(post(LONG))
            got = server.await_bytes(len(LONG)) + server.take()
            self.assertEqual(LONG, got.partition(b"\r\n\r\n")[2])
            server.send(OK)
        self.assertEqual(OK * 3, client.take())

    def test_resent(self) -> None:
        """Another server gets the whole body, too, though the first took some of it."""
        world = self.world(2)
        client = world.client()
        client.send(post(LONG).replace(b"POST", b"PUT"))
        first = next(backend for backend in world.backends if backend.waiting())
        wire = first.accept()
        wire.await_bytes(200_000)
        wire.cut()
        (other,) = [backend for backend in world.backends if backend is not first]
        server = other.accept()
        _, _, rest = plain(server.await_bytes(400)).partition(b"\r\n\r\n")
        self.assertEqual(LONG, rest + server.await_bytes(len(LONG) - len(rest)))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_discarded_while_it_flows(self) -> None:
        """
        A server that takes more and answers in the same moment, with an answer that
        is not passed on, has nothing of what the next one gets.
        """
        world = self.world(2, upstream={"next_upstream": ("http_503",)})
        client = world.client()
        client.send(post(LONG).replace(b"POST", b"PUT"))
        first = next(backend for backend in world.backends if backend.waiting())
        wire = first.accept()
        wire.await_bytes(200_000)
        # Nobody looks in between: both are there at the next look.
        (channel,) = world.listener.channels
        exchange = cast(Any, channel)._exchange
        pour = exchange._connection.transport.producer
        wire.look()
        wire.push(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
        (other,) = [backend for backend in world.backends if backend is not first]
        server = other.accept()
        # Some reactors write to what was given up while they read it.
        left = exchange._spooled.left
        pour.resumeProducing()
        self.assertEqual(left, exchange._spooled.left)
        _, _, rest = plain(server.await_bytes(400)).partition(b"\r\n\r\n")
        self.assertEqual(LONG, rest + server.await_bytes(len(LONG) - len(rest)))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_post_is_not_resent(self) -> None:
        """What may have been done is not done twice, whether it could be or not."""
        world = self.world(2)
        client = world.client()
        client.send(post(b"order"))
        first = next(backend for backend in world.backends if backend.waiting())
        first.accept().cut()
        self.assertIn(b" 502 ", client.take())

    def test_disk_full(self) -> None:
        """Without room for the body the client hears so, and no server is asked."""
        world = self.world(spool=Full)
        client = world.client()
        client.send(post(b"x" * ROOM * 3)[:-100])
        answer = client.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 507 "), answer)
        self.assertIn(b"Connection: close", answer)
        client.send(b"x" * 100)
        self.assertFalse(world.backends[0].waiting())
        self.assertEqual([507], [entry["status"] for entry in world.entries()])
        # Small ones need no room.
        client, server, _ = world.request(post(b"x" * ROOM))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_disk_full_at_once(self) -> None:
        """Likewise when the whole body came with the head."""
        world = self.world(spool=Full)
        client = world.client()
        client.send(post(b"x" * ROOM * 3))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 507 "))
        client = world.client()
        client.send(self.chunked(b"x" * ROOM * 3) + b"0\r\n\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 507 "))

    def test_no_descriptor(self) -> None:
        """A file that cannot be opened for another reason is a failure of ours."""

        class Broken(Spool):
            def open(self) -> FileIO:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        world = self.world(spool=Broken)
        client = world.client()
        client.send(post(b"x" * ROOM * 3))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))

    def test_cannot_be_read_back(self) -> None:
        """A body that is lost meanwhile is not made up: the server's connection is cut."""
        world = self.world(spool=Lost)
        client = world.client()
        client.push(post(LONG))
        server = world.backends[0].accept()
        cast(Lost, self.spool).files[0].truncate(100_000)
        got = server.await_end()
        self.assertLess(len(got), len(LONG))
        self.assertTrue(server.reset)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 500 "))

    def test_too_large(self) -> None:
        """A body above the limit is refused, and no server asked."""
        world = self.world(upstream={"client_max_body_size": 1500})
        client = world.client()
        client.send(post(b"x" * 1501))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
        client = world.client()
        client.send(self.chunked(b"x" * 1400, b"x" * 101))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 413 "))
        self.assertFalse(world.backends[0].waiting())
        client, server, _ = world.request(post(b"x" * 1500))
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_early_answer(self) -> None:
        """An answer that does not wait for the body is passed on; the rest is not sent."""
        world = self.world()
        client = world.client()
        client.send(post(LONG))
        server = world.backends[0].accept()
        server.send(b"HTTP/1.1 409 No\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(b"HTTP/1.1 409 No\r\nContent-Length: 2\r\n\r\nno", client.take())
        self.assertEqual(0, world.idle)
        server.close()
        # The client's connection has lost nothing.
        client.send(GET)
        server = world.backends[0].accept()
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_stalled_server(self) -> None:
        """A server that takes no more of it is given up after the time for sending."""
        world = self.world(upstream={"send_timeout": 5.0})
        client = world.client()
        client.send(post(LONG))
        world.backends[0].accept()
        world.wait(4.0)
        self.assertEqual(b"", client.take())
        world.wait(8.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 504 "))

    def test_slow_server(self) -> None:
        """A server that takes a little all the time is waited for."""
        world = self.world(upstream={"send_timeout": 5.0})
        client = world.client()
        client.send(post(LONG))
        server = world.backends[0].accept()
        for _ in range(6):
            world.wait(4.0)
            server.await_bytes(300_000)
        self.assertEqual(b"", client.take())
        server.take()
        server.send(OK)
        self.assertEqual(OK, client.take())

    def test_client_gone(self) -> None:
        """A client that leaves takes its request with it, at every stage."""
        for sent in (post(LONG)[:5000], post(LONG)):
            world = self.world()
            client = world.client()
            client.send(sent)
            waiting = len(sent) > 5000
            self.assertEqual(waiting, world.backends[0].waiting())
            server = world.backends[0].accept() if waiting else None
            client.cut()
            self.assertEqual(0, world.held)
            if server is not None:
                server.await_end()

    def test_slow_client(self) -> None:
        """A client that stops in the middle is told so, and never bothered a server."""
        world = self.world(http={"client_header_timeout": 3.0})
        client = world.client()
        client.send(post(LONG)[:5000])
        world.wait(4.0)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 408 "))
        self.assertFalse(world.backends[0].waiting())

    def test_resource(self) -> None:
        """By a site of twisted.web, too, and so by HTTP/2, each attempt gets the whole body."""
        world = self.world(2, kind=SiteWorld)
        client = world.client()
        client.send(post(LONG).replace(b"POST /", b"PUT /app"))
        world.until(lambda: any(backend.waiting() for backend in world.backends))
        first = next(backend for backend in world.backends if backend.waiting())
        wire = first.accept()
        wire.await_bytes(200_000)
        wire.cut()
        (other,) = [backend for backend in world.backends if backend is not first]
        server = other.accept()
        _, _, rest = plain(server.await_bytes(400)).partition(b"\r\n\r\n")
        self.assertEqual(LONG, rest + server.await_bytes(len(LONG) - len(rest)))
        server.send(OK)
        self.assertTrue(client.take().endswith(b"\r\n\r\nok"))

    def test_resource_disk_full(self) -> None:
        """Without room for it the client of a site hears 507."""
        world = self.world(kind=SiteWorld, spool=Full)
        client = world.client()
        client.send(post(b"x" * ROOM * 3).replace(b"POST /", b"PUT /app"))
        self.assertTrue(client.take().startswith(b"HTTP/1.1 507 "))
