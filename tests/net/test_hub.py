import os
import socket
from typing import Any

from dynbalance.net.direct import Direct, carrier
from dynbalance.net.hub import Hub
from tests.net.building import NetCase, Notes


class Watcher:
    """A descriptor that does what the test says."""

    def __init__(self, skt: socket.socket, act: Any) -> None:
        self.skt = skt
        self.act = act
        self.events: list[str] = []
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self.skt.fileno()

    def doRead(self) -> Any:
        self.events.append("read")
        return self.act()

    def doWrite(self) -> Any:
        self.events.append("write")
        return self.act()

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason.value)


class HubTests(NetCase):
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        self.closing += pair
        for skt in pair:
            skt.setblocking(False)
        return pair

    def test_mistake_in_a_protocol(self) -> None:
        """An exception is logged and ends that connection; the others go on."""

        class Bad(Notes):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError(data)

        bad, bad_peer = self.pair(Bad)
        good, good_peer = self.pair()
        bad_peer.send(b"x")
        good_peer.send(b"y")
        self.pump.until(lambda: bad.lost and good.got)
        self.assertIsInstance(bad.lost[0], ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        bad_peer.expect_end()
        good.transport.write(b"fine")
        good_peer.expect(b"fine")

    def test_mistake_after_a_pause(self) -> None:
        """A protocol that paused before its mistake is disconnected as well."""

        class Bad(Notes):
            def dataReceived(self, data: bytes) -> None:
                self.transport.pauseProducing()
                raise ZeroDivisionError(data)

        bad, peer = self.pair(Bad)
        peer.send(b"x")
        peer.expect_end()
        self.assertEqual(len(bad.lost), 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_mistake_after_the_end(self) -> None:
        """A protocol that aborted before its mistake is told of its end once."""

        class Bad(Notes):
            def dataReceived(self, data: bytes) -> None:
                self.transport.abortConnection()
                raise ZeroDivisionError(data)

        bad, peer = self.pair(Bad)
        peer.send(b"x")
        peer.expect_end()
        self.pump.settle()
        self.assertEqual(len(bad.lost), 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_mistake_at_the_end(self) -> None:
        """An exception in C{connectionLost} is logged; the socket is closed."""

        class Bad(Notes):
            def connectionLost(self, reason: Any = None) -> None:
                super().connectionLost(reason)
                raise ZeroDivisionError

        bad, peer = self.pair(Bad)
        peer.end()
        peer.expect_end()
        self.assertEqual(len(bad.lost), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def batch(self, first_act: Any, second_act: Any) -> tuple[Watcher, Watcher]:
        """Two descriptors that are ready at the same time."""
        watchers = []
        for act in (first_act, second_act):
            near, far = self.sockets()
            watcher = Watcher(near, act)
            self.hub.addReader(watcher)
            far.send(b"x")
            watchers.append(watcher)
        return watchers[0], watchers[1]

    def test_closed_by_an_earlier_event(self) -> None:
        """An event of a descriptor that an earlier one closed, and its heir, is dropped."""
        heirs: list[Watcher] = []
        watchers: list[Watcher] = []

        def act() -> None:
            # Whichever comes first closes the other, whose number is used again.
            [other] = [w for w in watchers if not w.events]
            fd = other.fileno()
            self.hub.forget(fd)
            other.skt.close()
            near, far = self.sockets()
            if near.fileno() != fd:
                near, far = far, near
            self.assertEqual(near.fileno(), fd)
            heir = Watcher(near, lambda: None)
            heirs.append(heir)
            self.hub.addReader(heir)

        watchers += self.batch(act, act)
        self.hub.doRead()
        self.assertEqual(sorted(len(w.events) for w in watchers), [0, 1])
        self.assertEqual(heirs[0].events, [])
        for watcher in (*watchers, heirs[0]):
            if watcher.fileno() > 0:
                self.hub.hand_over(watcher.fileno())

    def test_reads_and_writes(self) -> None:
        """A descriptor that waits for both is told of both."""
        near, far = self.sockets()
        watcher = Watcher(near, lambda: near.setblocking(False))
        self.hub.addReader(watcher)
        self.hub.addWriter(watcher)
        far.send(b"x")
        self.pump.turn()
        self.assertEqual(watcher.events[:2], ["read", "write"])
        self.hub.removeReader(watcher)
        watcher.events.clear()
        self.pump.turn()
        self.assertEqual(set(watcher.events), {"write"})
        self.hub.wait_to_read_only(watcher)
        watcher.events.clear()
        self.pump.turn()
        self.assertEqual(set(watcher.events), {"read"})
        self.hub.wait_to_write_only(watcher)
        watcher.events.clear()
        self.pump.turn()
        self.assertEqual(set(watcher.events), {"write"})
        self.hub.removeWriter(watcher)
        self.hub.removeWriter(watcher)
        self.assertEqual((self.hub.getReaders(), self.hub.getWriters()), ([], []))

    def test_a_hang_up_while_not_reading(self) -> None:
        """A descriptor that waits to write alone is told of a hang-up by C{doWrite}."""
        near, far = self.sockets()
        watcher = Watcher(near, lambda: ConnectionError("gone"))
        self.hub.addWriter(watcher)
        far.close()
        self.pump.until(lambda: watcher.lost)
        self.assertEqual(watcher.events, ["write"])

    def test_close(self) -> None:
        """A hub that closes disconnects all, also those that were about to close."""
        one, one_peer = self.pair()
        two, two_peer = self.pair()
        three, three_peer = self.pair()
        two.transport.loseConnection()
        three.transport.pauseProducing()
        three.transport.resumeProducing()
        for port in self.ports:
            port.stopListening()
        self.pump.advance(0)
        self.hub.close()
        self.hub.close()
        for protocol in (one, two, three):
            self.assertEqual(len(protocol.lost), 1)
        for peer in (one_peer, two_peer, three_peer):
            peer.expect_end()
        self.ports.clear()

    def test_closed_within_a_batch(self) -> None:
        """A protocol may end the hub itself."""
        for _ in range(10):
            near, far = self.sockets()
            self.hub.addReader(Watcher(near, self.hub.close))
            far.send(b"x")
        self.hub.doRead()
        self.assertEqual(self.hub.getReaders(), [])

    def test_closed_by_a_close(self) -> None:
        """Whatever is closed by the end of another does not wait for one more event."""
        closed: list[Any] = []

        class Closing:
            def __init__(self, then: Any = None) -> None:
                self.then = then

            def close_now(self) -> None:
                closed.append(self)
                if self.then is not None:
                    hub.close_soon(self.then)

        hub, last = self.hub, Closing()
        first = Closing(last)
        near, far = self.sockets()
        hub.addReader(Watcher(near, lambda: hub.close_soon(first)))
        far.send(b"x")
        hub.doRead()
        self.assertEqual([first, last], closed)
        hub.hand_over(near.fileno())

    def test_the_end_of_the_reactor(self) -> None:
        """When the reactor drops the hub, all its connections are lost."""
        protocol, _ = self.pair()
        for port in self.ports:
            port.stopListening()
        self.ports.clear()
        self.pump.advance(0)
        self.hub.connectionLost(None)  # type: ignore[arg-type]
        self.assertEqual(len(protocol.lost), 1)

    def test_the_clock(self) -> None:
        """C{now} is the time of the batch, and calls later are the reactor's."""
        self.pump.advance(5)
        protocol, peer = self.pair()
        peer.send(b"x")
        self.pump.until(lambda: protocol.got)
        self.assertEqual(self.hub.now, self.pump.seconds())
        called: list[int] = []
        self.hub.callLater(1, called.append, 7)
        self.assertEqual(len(self.hub.getDelayedCalls()), 1)
        self.pump.advance(1)
        self.assertEqual(called, [7])


class CarrierTests(NetCase):
    def test_epoll(self) -> None:
        """Where there is an epoll it is used, and watched by the reactor alone."""
        self.assertIs(type(self.hub), Hub)
        self.assertEqual(self.pump.readers, {self.hub})

    def test_none(self) -> None:
        """Elsewhere the reactor watches each descriptor."""
        hub = carrier(self.pump, epoll=False)
        self.addCleanup(hub.close)
        self.assertIsInstance(hub, Direct)
        near, far = socket.socketpair()
        self.closing += [near, far]
        watcher = Watcher(near, lambda: os.read(near.fileno(), 9) and None)
        hub.addReader(watcher)
        self.assertEqual(self.pump.readers, {self.hub, watcher})
        far.send(b"x")
        self.pump.turn()
        self.assertEqual(watcher.events, ["read"])
        hub.addWriter(watcher)
        hub.wait_to_write_only(watcher)
        self.assertEqual(self.pump.readers, {self.hub})
        hub.wait_to_read_only(watcher)
        self.assertEqual(self.pump.writers, set())
        self.assertEqual(repr(hub), "<Direct 1 descriptors>")
        hub.close()
        self.assertEqual(self.pump.readers, {self.hub})
        self.assertEqual(len(watcher.lost), 1)
