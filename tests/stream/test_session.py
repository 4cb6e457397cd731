import errno
import hashlib
import socket
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, UnknownHostError
from twisted.logger import formatEvent, globalLogPublisher

from dynbalance.balancer.attempts import RetryPolicy
from dynbalance.net.deadlines import TICK
from dynbalance.net.dial import Target
from dynbalance.stream import session
from tests.net.pump import unused_port
from tests.stream.building import StreamCase


class SessionTests(StreamCase):
    def test_both_ways(self) -> None:
        """Bytes go to the server and back, and are counted when it is over."""
        client, server = self.pair()
        [known] = self.upstream.servers
        self.assertEqual(known.held, 1)
        for number in range(20):
            client.send(b"ask %d" % number)
            server.expect(b"ask %d" % number)
            server.send(b"tell %d!" % number)
            client.expect(b"tell %d!" % number)
        client.close()
        server.expect_end()
        server.close()
        self.pump.until(lambda: not self.listener.active)
        self.assertEqual((self.listener.bytes_in, self.listener.bytes_out), (110, 150))
        self.assertEqual((known.bytes_in, known.bytes_out, known.held), (110, 150, 0))
        self.assertEqual(self.listener.accepted, 1)

    def test_server_speaks_first(self) -> None:
        """A client that says nothing hears what the server says."""
        client, server = self.pair()
        server.send(b"220 ready")
        client.expect(b"220 ready")

    def test_client_ends_first(self) -> None:
        """The client's end is passed on after its bytes, and the answer still comes."""
        client, server = self.pair()
        client.send(b"all I say")
        client.end()
        server.expect(b"all I say")
        server.expect_end()
        self.assertEqual(self.listener.active, 1)
        server.send(b"the answer")
        server.close()
        client.expect(b"the answer")
        client.expect_end()
        self.assertFalse(client.reset)
        self.pump.until(lambda: not self.listener.active)

    def test_server_ends_first(self) -> None:
        """The server's end is passed on, and the client may go on talking."""
        client, server = self.pair()
        server.send(b"bye")
        server.end()
        client.expect(b"bye")
        client.expect_end()
        client.send(b"one more thing")
        server.expect(b"one more thing")
        client.close()
        server.expect_end()
        self.pump.until(lambda: not self.listener.active)

    def test_no_half_close(self) -> None:
        """Without half-close the end of one side is, after its bytes, the end of both."""
        client, server = self.pair(half_close=False)
        client.send(b"all I say")
        client.end()
        server.expect(b"all I say")
        server.expect_end()
        client.expect_end()
        self.assertEqual(client.got, b"")
        self.pump.until(lambda: not self.listener.active)

    def bulk(self, sender_name: str) -> None:
        client, server = self.pair()
        sender, receiver = (client, server) if sender_name == "client" else (server, client)
        block = bytes(range(256)) * 1024
        sent = hashlib.sha256()
        heard = hashlib.sha256()
        left = 40
        todo = memoryview(b"")

        def done() -> bool:
            nonlocal left, todo
            while True:
                if not todo:
                    if not left:
                        break
                    left -= 1
                    todo = memoryview(block)
                    sent.update(block)
                try:
                    todo = todo[sender.skt.send(todo) :]
                except BlockingIOError:
                    break
            receiver.read()
            heard.update(receiver.got)
            self.total += len(receiver.got)
            receiver.got.clear()
            return self.total == 40 * len(block)

        self.total = 0
        self.pump.until(done)
        self.assertEqual(heard.digest(), sent.digest())
        sender.send(b"a small one")
        receiver.expect(b"a small one")

    def test_bulk_up(self) -> None:
        """Ten megabytes from the client arrive as they were, and small messages after them."""
        self.bulk("client")

    def test_bulk_down(self) -> None:
        """Ten megabytes from the server arrive as they were, and small messages after them."""
        self.bulk("server")

    def test_bulk_then_end(self) -> None:
        """An end that comes while bulk is held up is passed on after the last byte."""
        client, server = self.pair()
        sent = server.send_what_fits(64 << 20)
        server.end()
        self.pump.settle()
        self.assertLess(len(client.got), sent)
        client.expect_end()
        self.assertEqual(len(client.got), sent)

    def test_stalled_reader(self) -> None:
        """A server that does not read stops the client; the other direction goes on."""
        client, server = self.pair()
        sent = client.send_what_fits(128 << 20)
        self.assertLess(sent, 32 << 20)
        server.send(b"wait!")
        client.expect(b"wait!")
        self.pump.until(lambda: server.read() or len(server.got) == sent)  # type: ignore[func-returns-value]
        client.send(b"more")
        self.pump.until(lambda: server.read() or len(server.got) == sent + 4)  # type: ignore[func-returns-value]

    def test_stalled_client(self) -> None:
        """A client that does not read stops the server."""
        client, server = self.pair()
        sent = server.send_what_fits(128 << 20)
        self.assertLess(sent, 32 << 20)
        client.expect(bytes(sent))

    def test_client_resets(self) -> None:
        """When the client resets the connection, the server's is closed."""
        client, server = self.pair()
        client.send(b"half a ")
        server.expect(b"half a ")
        client.abort()
        server.expect_end()
        self.pump.until(lambda: not self.listener.active)

    def test_server_resets(self) -> None:
        """When the server resets the connection, the client's is closed."""
        client, server = self.pair()
        client.send(b"?")
        server.expect(b"?")
        server.abort()
        client.expect_end()
        self.pump.until(lambda: not self.listener.active)
        [known] = self.upstream.servers
        self.assertEqual(known.fails, 0)

    def test_idle(self) -> None:
        """After silence in both directions both are closed, not before."""
        client, server = self.pair(timeout=10.0)
        self.pump.advance(9.0)
        self.pump.settle()
        self.assertEqual(self.listener.active, 1)
        self.pump.advance(1.0 + 2 * TICK)
        client.expect_end()
        server.expect_end()
        self.assertFalse(client.reset)

    def test_one_direction_is_enough(self) -> None:
        """Whoever speaks, client or server, keeps the connection."""
        client, server = self.pair(timeout=10.0)
        for speaker, listener in ((client, server), (server, client)) * 3:
            self.pump.advance(8.0)
            speaker.send(b".")
            listener.expect(b".")
        self.pump.advance(9.9)
        self.pump.settle()
        self.assertEqual(self.listener.active, 1)
        self.pump.advance(0.1 + 2 * TICK)
        client.expect_end()

    def test_refused_by_the_first(self) -> None:
        """What the client said early reaches the server that does accept."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{unused_port()}", f"127.0.0.1:{backend.port}")
        client = self.client()
        client.send(b"early")
        server = self.accept(backend)
        server.expect(b"early")
        dead, alive = self.upstream.servers
        self.assertEqual((dead.fails, dead.held, alive.held), (1, 0, 1))

    def test_refused_by_all(self) -> None:
        """When no server accepts, the client is closed with nothing sent, each tried once."""
        self.listen(*(f"127.0.0.1:{unused_port()}" for _ in range(3)))
        client = self.client()
        client.expect_end()
        self.assertEqual(client.got, b"")
        self.assertEqual([server.failures for server in self.upstream.servers], [1, 1, 1])
        self.assertEqual(self.listener.refused, 1)

    def test_never_the_same_again(self) -> None:
        """A server is tried once, even if its failures do not take it out."""
        addresses = [f"127.0.0.1:{unused_port()}" for _ in range(3)]
        self.listen(*addresses, policy="least_conn")
        for server in self.upstream.servers:
            server.max_fails = 0
        self.client().expect_end()
        self.assertEqual([server.failures for server in self.upstream.servers], [1, 1, 1])

    def test_refused_by_very_many(self) -> None:
        """However many servers refuse at once, the next one is tried."""
        backend = self.backend()
        dead = unused_port()
        addresses = [f"127.0.{1 + n // 250}.{1 + n % 250}:{dead}" for n in range(1200)]
        self.listen(*addresses, f"127.0.0.1:{backend.port}")
        self.client()
        self.accept(backend)

    def test_not_the_servers_fault(self) -> None:
        """What this machine has no means for is not counted as the server's failure."""

        class Exhausted:
            def __init__(self, hub: Any, caller: Any) -> None:
                self.caller = caller

            def start(self, target: Any) -> None:
                self.caller.dial_failed(ConnectError(errno.EMFILE, "no descriptor left"))

        backend = self.backend()
        self.listen(f"127.0.0.1:{backend.port}", f"127.0.0.2:{backend.port}")
        self.patch(session, "Dial", Exhausted)
        self.client().expect_end()
        self.assertEqual([server.failures for server in self.upstream.servers], [0, 0])
        self.assertEqual([server.held for server in self.upstream.servers], [0, 0])

    def test_no_next_upstream(self) -> None:
        """With C{next_upstream} off the first failure is the last."""
        backend = self.backend()
        self.listen(
            f"127.0.0.1:{unused_port()}",
            f"127.0.0.1:{backend.port}",
            retry=RetryPolicy(frozenset()),
        )
        client = self.client()
        client.expect_end()
        self.assertEqual([server.picks for server in self.upstream.servers], [1, 0])

    def test_tries_are_capped(self) -> None:
        """C{next_upstream_tries} limits the servers that are tried."""
        self.listen(*(f"127.0.0.1:{unused_port()}" for _ in range(4)), retry=RetryPolicy(tries=2))
        self.client().expect_end()
        self.assertEqual(sum(server.failures for server in self.upstream.servers), 2)

    def silent(self) -> int:
        """A port whose connections are never completed."""
        backend = self.backend(backlog=0)
        while True:
            skt = socket.socket()
            self.closing.append(skt)
            skt.settimeout(0.1)
            try:
                skt.connect(("127.0.0.1", backend.port))
            except TimeoutError:
                return backend.port

    def test_connect_timeout(self) -> None:
        """A server that does not answer in time is given up for the next one."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{self.silent()}", f"127.0.0.1:{backend.port}", connect_timeout=5.0)
        client = self.client()
        client.send(b"early")
        self.pump.until(lambda: self.listener.active)
        self.pump.settle()
        self.pump.advance(5.0 + 2 * TICK)
        self.accept(backend).expect(b"early")
        self.assertEqual([server.fails for server in self.upstream.servers], [1, 0])

    def test_next_upstream_timeout(self) -> None:
        """After C{next_upstream_timeout} no further server is tried."""
        backend = self.backend()
        self.listen(
            f"127.0.0.1:{self.silent()}",
            f"127.0.0.1:{backend.port}",
            connect_timeout=5.0,
            retry=RetryPolicy(timeout=4.0),
        )
        client = self.client()
        self.pump.until(lambda: self.listener.active)
        self.pump.settle()
        self.pump.advance(5.0 + 2 * TICK)
        client.expect_end()
        self.assertEqual(self.upstream.server(f"127.0.0.1:{backend.port}").picks, 0)

    def test_aborted_while_connecting(self) -> None:
        """The end of the drain closes clients that wait for a server, too."""
        self.listen(f"127.0.0.1:{self.silent()}")
        client = self.client()
        self.pump.until(lambda: self.listener.active)
        self.listener.abort_all()
        client.expect_end()
        self.assertEqual(self.listener.active, 0)

    def test_recovery(self) -> None:
        """A server that failed is forgiven as soon as it accepts again."""
        client, _ = self.pair()
        [known] = self.upstream.servers
        known.fails = 1
        known.accessed, known.checked = 1.0, 2.0
        client = self.client()
        self.pump.until(lambda: known.held == 2)
        self.pump.settle()
        self.assertEqual(known.fails, 0)
        client.close()

    def test_no_server(self) -> None:
        """Without a server clients are closed, and the log says why once a second."""
        self.listen()
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for _ in range(5):
            client = self.client()
            client.expect_end()
            self.assertEqual(client.got, b"")
        self.pump.advance(1.0)
        self.client().expect_end()
        self.assertEqual(self.listener.refused, 6)
        self.assertEqual(
            [formatEvent(event) for event in events if "why" in event],
            [
                "u: no live upstreams: there are no servers",
                "u: no live upstreams: there are no servers (4 more before this)",
            ],
        )

    def test_max_connections(self) -> None:
        """A connection over the limit is closed at once; when one ends there is room."""
        client, server = self.pair(max_connections=1)
        self.client().expect_end()
        self.assertEqual(self.listener.rejected, 1)
        client.close()
        server.close()
        self.pump.until(lambda: not self.listener.active)
        again = self.client()
        again.send(b"again")
        self.pump.until(lambda: self.listener.active == 1)

    def test_drain(self) -> None:
        """A drain lets sessions finish, and tells when the last has."""
        client, server = self.pair()
        idle = self.listener.when_idle()
        self.assertNoResult(idle)
        client.send(b"still here")
        server.expect(b"still here")
        client.close()
        server.close()
        self.pump.until(lambda: not self.listener.active)
        self.assertIsNone(self.successResultOf(idle))
        self.assertIsNone(self.successResultOf(self.listener.when_idle()))

    def test_drain_deadline(self) -> None:
        """After the drain's deadline what is left is closed."""
        client, server = self.pair()
        idle = self.listener.when_idle()
        self.listener.abort_all()
        client.expect_end()
        server.expect_end()
        self.successResultOf(idle)

    def test_many_short_ones(self) -> None:
        """Short connections leave neither descriptors nor slots behind."""
        backend = self.backend()
        self.listen(f"127.0.0.1:{backend.port}")
        for number in range(150):
            client = self.client()
            client.send(b"%d" % number)
            server = self.accept(backend)
            server.expect(b"%d" % number)
            server.close()
            client.expect_end()
            client.close()
        self.pump.until(lambda: not self.listener.active)
        self.assertEqual(self.listener.accepted, 150)

    def test_answer_before_reset(self) -> None:
        """What a server said before it stopped listening still reaches the client."""
        client, server = self.pair()
        client.send(b"begin")
        server.expect(b"begin")
        server.send(b"I have enough")
        server.end()
        client.expect(b"I have enough")

    def test_name(self) -> None:
        """A server known by name is connected once its address is known."""
        backend = self.backend()
        self.listen(f"backend.example:{backend.port}")
        answer: Deferred[Target] = Deferred()
        self.patch(self.listener.names, "target", lambda address: answer)
        client = self.client()
        client.send(b"early")
        self.pump.until(lambda: self.listener.active)
        self.pump.settle()
        answer.callback(Target(socket.AF_INET, ("127.0.0.1", backend.port)))
        self.accept(backend).expect(b"early")

    def test_unknown_name(self) -> None:
        """A server whose name is unknown has failed; the next one is tried."""
        backend = self.backend()
        self.listen(f"backend.example:{backend.port}", f"127.0.0.1:{backend.port}")
        target = self.listener.names.target
        self.patch(
            self.listener.names,
            "target",
            lambda address: (
                target(address) if address.is_numeric else fail(UnknownHostError(string="?"))
            ),
        )
        self.client().send(b"early")
        self.accept(backend).expect(b"early")
        self.assertEqual([server.fails for server in self.upstream.servers], [1, 0])

    def test_name_that_takes_too_long(self) -> None:
        """Looking a name up counts as connecting; a late answer changes nothing."""
        backend = self.backend()
        self.listen(f"backend.example:{backend.port}", f"127.0.0.1:{backend.port}")
        target = self.listener.names.target
        answer: Deferred[Target] = Deferred(lambda cancelled: None)
        self.patch(
            self.listener.names,
            "target",
            lambda address: target(address) if address.is_numeric else answer,
        )
        self.client().send(b"early")
        self.pump.until(lambda: self.listener.active)
        self.pump.advance(5.0 + 2 * TICK)
        self.accept(backend).expect(b"early")


class TransportSessionTests(SessionTests):
    """All of the above between Twisted's transports."""

    transports = True


class DirectSessionTests(SessionTests):
    """All of the above where there is no epoll."""

    epoll = False
