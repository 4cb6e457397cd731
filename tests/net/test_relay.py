import contextlib
import errno
import os
import socket
from typing import Any

from dynbalance.net import pipes as pipes_module
from dynbalance.net import relay as relay_module
from dynbalance.net.pipes import Pipes
from dynbalance.net.relay import Ending, Relay
from tests.net.building import NetCase
from tests.net.pump import Peer, descriptors

MUCH = bytes(range(256)) * 8_000


class RelayTests(NetCase):
    def setUp(self) -> None:
        super().setUp()
        self.pipes = Pipes()
        self.endings: list[Ending] = []

    def tearDown(self) -> None:
        self.relay.finish(Ending.ABORTED)
        self.relay.finish(Ending.ABORTED)
        self.assertEqual(len(self.endings), 1)
        self.pipes.close()
        super().tearDown()

    def join(self, **options: Any) -> tuple[Peer, Peer]:
        """Two peers with a relay between them."""
        peers, sockets = [], []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                peer = Peer(self.pump, socket.create_connection(listening.getsockname()))
                skt = listening.accept()[0]
            skt.setblocking(False)
            self.closing.append(peer)
            peers.append(peer)
            sockets.append(skt)
        self.relay = Relay(self.hub, self.pipes, *sockets, self.endings.append, **options)
        self.relay.start()
        return peers[0], peers[1]

    def carry(self, sender: Peer, receiver: Peer) -> None:
        """C{MUCH} goes from one to the other while it is read."""
        left = memoryview(MUCH)

        def carried() -> bool:
            nonlocal left
            receiver.read()
            if left:
                with contextlib.suppress(BlockingIOError):
                    left = left[sender.skt.send(left) :]
            return len(receiver.got) == len(MUCH)

        self.pump.until(carried)
        self.assertEqual(receiver.got, MUCH)
        receiver.got.clear()

    def count_splices(self) -> list[int]:
        splices: list[int] = []
        splice = relay_module._SPLICE

        def counted(*args: Any, **kwargs: Any) -> Any:
            splices.append(args[2])
            return splice(*args, **kwargs)

        self.patch(relay_module, "_SPLICE", counted)
        return splices

    def test_small_messages_do_not_touch_the_epoll(self) -> None:
        """A message costs a read and a write; neither epoll nor pipes are touched."""
        client, server = self.join()
        client.send(b"x")
        server.expect(b"x")
        calls: list[str] = []

        class Watched:
            def __init__(self, epoll: Any) -> None:
                self.epoll = epoll

            def __getattr__(self, name: str) -> Any:
                calls.append(name)
                return getattr(self.epoll, name)

        epoll = self.hub._epoll
        self.hub._epoll = Watched(epoll)  # type: ignore[assignment]
        splices = self.count_splices()
        for _ in range(5):
            client.send(b"ask")
            server.expect(b"ask")
            server.send(b"tell")
            client.expect(b"tell")
        self.hub._epoll = epoll
        self.assertEqual(set(calls) - {"fileno"}, set())
        self.assertEqual(splices, [])

    def test_bulk_is_spliced(self) -> None:
        """Bulk goes by a pipe, which is given back when nothing is under way."""
        client, server = self.join()
        splices = self.count_splices()
        self.carry(client, server)
        self.assertGreater(len(splices), 0)
        self.pump.settle()
        self.assertEqual(repr(self.pipes), "<Pipes 1 spare>")
        self.assertEqual(self.relay.client.moved, len(MUCH))
        self.carry(server, client)
        self.assertEqual(repr(self.pipes), "<Pipes 1 spare>")

    def test_without_splice(self) -> None:
        """Where the system has no splice bulk arrives all the same."""
        self.patch(relay_module, "_SPLICE", None)
        client, server = self.join()
        self.carry(client, server)
        self.carry(server, client)

    def test_sockets_that_cannot_be_spliced(self) -> None:
        """When the kernel refuses to splice, bulk goes by ordinary reads."""

        def refuse(*args: Any, **kwargs: Any) -> int:
            raise OSError(errno.EINVAL, "no")

        self.patch(relay_module, "_SPLICE", refuse)
        client, server = self.join()
        self.carry(client, server)
        self.assertFalse(self.relay.splices)

    def test_no_pipe_left(self) -> None:
        """When the process has no descriptor left for a pipe, ordinary reads do."""

        def none_left(flags: int) -> Any:
            raise OSError(errno.EMFILE, "none left")

        self.patch(os, "pipe2", none_left)
        client, server = self.join()
        self.carry(client, server)

    def test_held_up_without_splice(self) -> None:
        """A side that is not read stops the other, and gets everything in the end."""
        self.patch(relay_module, "_SPLICE", None)
        client, server = self.join()
        sent = client.send_what_fits(64 << 20)
        self.assertLess(sent, 32 << 20)
        self.assertNotIn(self.relay.client, self.hub.getReaders())
        server.expect(bytes(sent))

    def test_both_end_while_held_up(self) -> None:
        """When both have ended, what is still under way to one of them is delivered."""
        client, server = self.join()
        sent = client.send_what_fits(64 << 20)
        client.end()
        server.end()
        client.expect_end()
        self.assertEqual(self.endings, [])
        server.expect(bytes(sent))
        server.expect_end()
        self.assertEqual(self.endings, [Ending.FINISHED])

    def test_held_up_by_splice(self) -> None:
        """A side that is held up waits for nothing but the other's readiness."""
        client, server = self.join()
        sent = client.send_what_fits(64 << 20)
        self.assertNotIn(self.relay.client, self.hub.getReaders())
        server.expect(bytes(sent))
        self.assertIn(self.relay.client, self.hub.getReaders())

    def test_dropped_with_a_full_pipe(self) -> None:
        """A pipe with bytes in it is not used again for others."""
        client, _ = self.join()
        client.send_what_fits(64 << 20)
        self.assertTrue(self.relay.client.blocked)
        self.relay.finish(Ending.ABORTED)
        self.assertEqual(repr(self.pipes), "<Pipes 0 spare>")

    def test_a_server_that_hears_no_more(self) -> None:
        """What a server said before it reset reaches a client that is still sending."""
        client, server = self.join()
        client.send_what_fits(64 << 20)
        server.send(b"enough")
        client.expect(b"enough")
        server.abort()
        client.expect_end()
        self.assertEqual(self.endings, [Ending.SERVER_LOST])

    def test_refused_write(self) -> None:
        """A side that takes no more ends its direction; what it said is still delivered."""
        client, server = self.join()

        def refuse(data: bytes) -> int:
            raise BrokenPipeError

        self.relay.client._send = refuse
        server.send(b"goodbye")
        server.end()
        client.send(b"are you there?")
        client.expect(b"goodbye")
        client.expect_end()
        self.assertEqual(self.endings, [Ending.SERVER_LOST])

    def test_client_lost(self) -> None:
        """A client's reset is told as such."""
        client, server = self.join()
        client.abort()
        server.expect_end()
        self.assertEqual(self.endings, [Ending.CLIENT_LOST])

    def test_finished(self) -> None:
        """When both have ended the relay is finished, without a reset."""
        client, server = self.join()
        client.end()
        server.expect_end()
        self.assertEqual(self.endings, [])
        server.end()
        client.expect_end()
        self.pump.until(lambda: self.endings)
        self.assertEqual(self.endings, [Ending.FINISHED])
        self.assertFalse(client.reset or server.reset)

    def test_last(self) -> None:
        """C{last} is when something was said last, by whomever."""
        client, server = self.join()
        began = self.pump.seconds()
        self.assertEqual(self.relay.last, began)
        for speaker, hearer in ((client, server), (server, client)):
            self.pump.advance(3)
            speaker.send(b".")
            hearer.expect(b".")
            self.assertEqual(self.relay.last, self.pump.seconds())

    def test_hub_closes(self) -> None:
        """When the hub closes, both sockets do."""
        client, server = self.join()
        self.hub.close()
        client.expect_end()
        server.expect_end()
        self.assertEqual(self.endings, [Ending.ABORTED])

    def test_repr(self) -> None:
        """What the log says of a relay and its sides."""
        client, server = self.join()
        client.send(b"four")
        server.expect(b"four")
        self.assertEqual(repr(self.relay), "<Relay 4 bytes up, 0 down>")
        self.assertEqual(repr(self.relay.client), f"<client of {self.relay!r}>")
        self.assertEqual(repr(self.relay.server), f"<server of {self.relay!r}>")


class PipesTests(NetCase):
    def test_kept(self) -> None:
        """A limited number of empty pipes is kept."""
        before = descriptors()
        pipes = Pipes(keep=2)
        taken = [pipes.take() for _ in range(4)]
        for pipe in taken:
            assert pipe is not None
            pipes.give_back(pipe)
        self.assertEqual(repr(pipes), "<Pipes 2 spare>")
        self.assertEqual(descriptors(), before + 4)
        self.assertIn(pipes.take(), taken)
        pipes.close()
        self.assertEqual(descriptors(), before + 2)
        last = taken[1]
        assert last is not None
        pipes.give_back(last)
        self.assertEqual(descriptors(), before)

    def test_size(self) -> None:
        """A pipe that may not be large serves as it is."""
        pipes = Pipes()

        def refuse(*args: Any) -> int:
            raise PermissionError

        self.patch(pipes_module.fcntl, "fcntl", refuse)
        pipe = pipes.take()
        assert pipe is not None
        pipes.destroy(pipe)
