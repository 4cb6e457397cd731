"""
Asking name servers of one's own choice.

Knows how a question is repeated and when it goes by TCP; leaves the form of messages
to L{twisted.names.dns}, and refuses to know for how long an answer is good.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReadDescriptor,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from zope.interface import implementer

TRIES = (1.0, 2.0, 2.0)
"""Seconds for an answer: each server in turn has the first, then each the next."""

_DATAGRAM = 4096
_SILENT = (OSError, ConnectError, ConnectionClosed, TimeoutError, CancelledError)


class _Query:
    """
    One question, which anybody who did not hear it can hardly answer (RFC 5452).
    """

    def __init__(self, name: str, kind: int, number: int) -> None:
        message = dns.Message(number, recDes=1)
        message.addQuery(name.encode(), kind)
        self.data = message.toStr()
        self.kind = kind
        self._id, self._queries = message.id, message.queries

    def read(self, data: bytes) -> dns.Message | None:
        """The answer; C{None} for anything else."""
        message = dns.Message()
        try:
            message.fromStr(data)
        except (EOFError, ValueError):
            return None
        fits = message.answer and message.id == self._id and message.queries == self._queries
        return message if fits else None


@implementer(IReadDescriptor)
class _Datagram:
    """A question by UDP: a socket of its own, whose port the system draws."""

    def __init__(self, reactor: Any, server: tuple[str, int], query: _Query) -> None:
        """@raise OSError: there is no way to the server."""
        self._reactor = reactor
        self._query = query
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self._end())
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(query.data)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def _end(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "dns"

    def doRead(self) -> None:
        try:
            message = self._query.read(self._socket.recv(_DATAGRAM))
        except BlockingIOError:
            return
        except OSError as refused:
            self.connectionLost(refused)
            return
        if message is not None:
            self._end()
            self.answer.callback(message)

    def connectionLost(self, reason: Any) -> None:
        # The server's system says that nobody listens, or the reactor ends.
        self._end()
        self.answer.errback(reason)


class _Connection(Int16StringReceiver):
    """A question by TCP (RFC 7766)."""

    factory: _Connections

    def connectionMade(self) -> None:
        self.sendString(self.factory.query.data)

    def stringReceived(self, data: bytes) -> None:
        message = self.factory.query.read(data)
        if message is not None and not self.factory.answer.called:
            self.factory.answer.callback(message)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.clientConnectionFailed(None, reason)


class _Connections(ClientFactory):
    noisy = False

    def __init__(self, query: _Query) -> None:
        self.query = query
        self.answer: Deferred[dns.Message] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        made = _Connection()
        made.factory = self
        return made

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It ends by itself."""


@implementer(IHostnameResolver)
class DnsResolver:
    """
    The name servers that the configuration names (nginx's C{resolver}).  Neither
    C{/etc/hosts} nor a search list is looked at.
    """

    def __init__(
        self,
        servers: Iterable[tuple[str, int]],
        ipv6: bool,
        randomness: Callable[[int], bytes],
        reactor: Any,
    ) -> None:
        """
        @param servers: IP addresses and ports.
        @param ipv6: whether to ask for IPv6 addresses, too.
        @param randomness: so many bytes that nobody can guess.
        """
        self._servers = tuple(servers)
        self._kinds = (dns.A, dns.AAAA) if ipv6 else (dns.A,)
        self._randomness = randomness
        self._reactor = reactor

    def __repr__(self) -> str:
        return f"<DnsResolver {self._servers}>"

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Answers all addresses, or none where there is no telling."""
        resolution: IHostResolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        Deferred.fromCoroutine(self._resolve(resolutionReceiver, hostName, portNumber))
        return resolution

    async def _resolve(self, receiver: IResolutionReceiver, name: str, port: int) -> None:
        queries = [
            _Query(name.rstrip("."), kind, int.from_bytes(self._randomness(2), "big"))
            for kind in self._kinds
        ]
        asked = [Deferred.fromCoroutine(self._ask(query)) for query in queries]
        answers: list[dns.Message | None] = await gatherResults(asked)
        # One half of the addresses must not pass for all.
        if answers[0] is not None:
            for host in (host for answer in answers if answer for host in _hosts(answer)):
                kind = IPv6Address if ":" in host else IPv4Address
                receiver.addressResolved(kind("TCP", host, port))
        receiver.resolutionComplete()

    async def _ask(self, query: _Query) -> dns.Message | None:
        """@return: what a server knows, be it that there is nothing."""
        for patience in TRIES:
            for server in self._servers:
                try:
                    answer = await self._exchange(server, query, patience)
                except _SILENT:
                    continue
                if answer.rCode in (dns.OK, dns.ENAME):
                    return answer
        return None

    async def _exchange(
        self, server: tuple[str, int], query: _Query, patience: float
    ) -> dns.Message:
        asking = _Datagram(self._reactor, server, query).answer
        answer = await asking.addTimeout(patience, self._reactor)
        if not answer.trunc:
            return answer
        connections = _Connections(query)
        connector = self._reactor.connectTCP(*server, connections, patience)
        try:
            return await connections.answer.addTimeout(patience, self._reactor)
        finally:
            connector.disconnect()


def _hosts(answer: dns.Message) -> Iterator[str]:
    """The addresses among the records of an answer; the others lead to them."""
    for record in answer.answers:
        payload: Any = record.payload
        if isinstance(payload, dns.Record_A):
            yield payload.dottedQuad()
        elif isinstance(payload, dns.Record_AAAA):
            yield socket.inet_ntop(socket.AF_INET6, payload.address)
