"""
A name server of the test's, by UDP and TCP, on a port of its own.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from twisted.names import dns

from tests.endtoend.harness import LOOPBACK, EndToEndCase, free_port

_UDP_BYTES = 512


class NameServer:
    """
    @ivar hosts: the addresses of each name; a name that is not here does not exist.
    @ivar silent: whether it answers nobody.
    @ivar asked: questions so far.
    """

    def __init__(self, case: EndToEndCase, **hosts: list[str]) -> None:
        """@param hosts: by the first label of their names, below C{.test}."""
        self.hosts = {f"{name}.test": addresses for name, addresses in hosts.items()}
        self.silent = False
        self.asked = 0
        self.port = free_port()
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind((LOOPBACK, self.port))
        self._listening = socket.create_server((LOOPBACK, self.port))
        for what in (self._hear_datagrams, self._hear_connections):
            threading.Thread(target=what, daemon=True).start()
        case.addCleanup(self._end)

    def table(self, valid: float = 0.2) -> str:
        """TOML that has a daemon ask it."""
        return f'[resolver]\nservers = ["{LOOPBACK}:{self.port}"]\nvalid = {valid}\n'

    def _end(self) -> None:
        for each in (self._datagrams, self._listening):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _hear_datagrams(self) -> None:
        with suppress(OSError):
            while True:
                question, peer = self._datagrams.recvfrom(_UDP_BYTES)
                if not question:
                    return
                answer = self._answer(question, _UDP_BYTES)
                if answer:
                    self._datagrams.sendto(answer, peer)

    def _hear_connections(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, suppress(OSError), client.makefile("rb") as stream:
                    client.settimeout(5)
                    question = stream.read(int.from_bytes(stream.read(2), "big"))
                    if question:
                        answer = self._answer(question, 1 << 16)
                        client.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, question: bytes, most: int) -> bytes:
        asked = dns.Message()
        asked.fromStr(question)
        self.asked += 1
        if self.silent:
            return b""
        (query,) = asked.queries
        name = query.name.name.decode()
        answer = dns.Message(asked.id, answer=1, recDes=1, recAv=1)
        answer.queries = asked.queries
        if name not in self.hosts:
            answer.rCode = dns.ENAME
        elif query.type == dns.A:
            # By way of another name, as so often.
            alias = f"real.{name}"
            answer.answers = [dns.RRHeader(name, dns.CNAME, payload=dns.Record_CNAME(alias))]
            answer.answers += [
                dns.RRHeader(alias, dns.A, payload=dns.Record_A(host))
                for host in self.hosts[name]
            ]
        whole = answer.toStr()
        if len(whole) > most:
            answer.answers, answer.trunc = [], 1
            whole = answer.toStr()
        return whole
