"""
Tests for L{dynbalance.net.dns}, over loopback.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns as messages
from twisted.trial.unittest import TestCase

from dynbalance.net import dns
from dynbalance.net.dns import DnsResolver

LOOPBACK = "127.0.0.1"
reactor: Any = global_reactor

Answer = Callable[[messages.Message], list[bytes]]


def answer(asked: messages.Message, *hosts: str, code: int = messages.OK) -> messages.Message:
    """To a question, with the addresses of that kind."""
    (query,) = asked.queries
    said = messages.Message(asked.id, answer=1, rCode=code)
    said.queries = asked.queries
    for host in hosts:
        six = ":" in host
        if query.type == (messages.AAAA if six else messages.A):
            record: Any = (messages.Record_AAAA if six else messages.Record_A)(host)
            said.answers.append(messages.RRHeader(query.name.name, query.type, payload=record))
    return said


class Server(DatagramProtocol):
    """
    @param say: what is sent to each question.
    """

    noisy = False

    def __init__(self, say: Answer) -> None:
        self.say = say
        self.names: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        asked = messages.Message()
        asked.fromStr(datagram)
        self.names.append(asked.queries[0].name.name)
        assert self.transport is not None
        for piece in self.say(asked):
            self.transport.write(piece, addr)


class Receiver:
    """
    @ivar done: fires with the addresses.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []
        self.done: Deferred[list[tuple[str, int]]] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        """Nothing to note."""

    def addressResolved(self, address: Any) -> None:
        self.found.append((address.host, address.port))

    def resolutionComplete(self) -> None:
        self.done.callback(self.found)


class DnsTests(TestCase):
    """What a resolver makes of what name servers say."""

    def setUp(self) -> None:
        self.number = 0

    def serve(self, say: Answer) -> Server:
        """A name server."""
        server = Server(say)
        port = reactor.listenUDP(0, server, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        return server

    def place(self, server: Server) -> tuple[str, int]:
        assert server.transport is not None
        return LOOPBACK, server.transport.getHost().port

    def ask(
        self, *places: tuple[str, int], name: str = "a.test", ipv6: bool = True
    ) -> Deferred[list[tuple[str, int]]]:
        receiver: Any = Receiver()
        resolver = DnsResolver(places, ipv6, lambda count: b"\x12\x34"[:count], reactor)
        resolver.resolveHostName(receiver, name, 80)
        done: Deferred[list[tuple[str, int]]] = receiver.done
        return done

    async def test_both(self) -> None:
        """All addresses of both kinds, with the port that they are for."""
        server = self.serve(lambda asked: [answer(asked, "192.0.2.1", "2001:db8::1").toStr()])
        found = await self.ask(self.place(server), name="a.test.")
        self.assertEqual([("192.0.2.1", 80), ("2001:db8::1", 80)], found)
        self.assertEqual({b"a.test"}, set(server.names))

    async def test_one_kind(self) -> None:
        """Where IPv6 is not wanted nobody is asked for it."""
        server = self.serve(lambda asked: [answer(asked, "192.0.2.1", "2001:db8::1").toStr()])
        found = await self.ask(self.place(server), ipv6=False)
        self.assertEqual(([("192.0.2.1", 80)], 1), (found, len(server.names)))

    async def test_forged(self) -> None:
        """What is no answer to this question is not heard, and the answer after it is."""

        def say(asked: messages.Message) -> list[bytes]:
            other, elsewhere = answer(asked, "192.0.2.66"), answer(asked, "192.0.2.66")
            other.id ^= 1
            elsewhere.queries = [messages.Query(b"b.test", asked.queries[0].type)]
            no_answer = answer(asked, "192.0.2.66")
            no_answer.answer = 0
            forged = [each.toStr() for each in (other, elsewhere, no_answer)]
            return [b"", b"\x12", *forged, answer(asked, "192.0.2.1").toStr()]

        server = self.serve(say)
        self.assertEqual([("192.0.2.1", 80)], await self.ask(self.place(server)))

    async def test_next_server(self) -> None:
        """One that is not there, and one that fails, are passed over at once."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((LOOPBACK, 0))
            nobody: tuple[str, int] = free.getsockname()
        fails = self.serve(lambda asked: [answer(asked, code=messages.ESERVER).toStr()])
        good = self.serve(lambda asked: [answer(asked, "192.0.2.1").toStr()])
        found = await self.ask(nobody, self.place(fails), self.place(good))
        self.assertEqual([("192.0.2.1", 80)], found)

    async def test_denied(self) -> None:
        """A name that does not exist has no address, and nobody else is asked."""
        server = self.serve(lambda asked: [answer(asked, code=messages.ENAME).toStr()])
        other = self.serve(lambda asked: [answer(asked, "192.0.2.1").toStr()])
        self.assertEqual([], await self.ask(self.place(server), self.place(other)))
        self.assertEqual([], other.names)

    async def test_half(self) -> None:
        """Half of the addresses, because nobody tells the others, are none."""
        self.patch(dns, "TRIES", (0.01,))

        def say(asked: messages.Message) -> list[bytes]:
            return [answer(asked, "2001:db8::1").toStr()] if asked.queries[0].type != 1 else []

        self.assertEqual([], await self.ask(self.place(self.serve(say))))

    async def test_silent(self) -> None:
        """Who says nothing is asked again, so often, and leaves nothing behind."""
        self.patch(dns, "TRIES", (0.01, 0.02))
        server = self.serve(lambda asked: [])
        self.assertEqual([], await self.ask(self.place(server), ipv6=False))
        self.assertEqual(2, len(server.names))

    async def test_not_by_tcp(self) -> None:
        """A truncated answer of one that does not speak TCP is no answer."""
        self.patch(dns, "TRIES", (0.05,))

        def say(asked: messages.Message) -> list[bytes]:
            short = answer(asked)
            short.trunc = 1
            return [short.toStr()]

        self.assertEqual([], await self.ask(self.place(self.serve(say))))
