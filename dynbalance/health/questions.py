"""
What a health check asks, and which answers are good.

Pure: bytes in, a finding out.  Refuses to know connections and time.
"""

from __future__ import annotations

from typing import Protocol

from dynbalance.health.judge import Finding
from dynbalance.health.statuses import Statuses
from dynbalance.http.fields import BadMessage
from dynbalance.http.response import parse_response

MOST = 65536
"""Bytes of an answer that are looked at."""

GOOD = Finding()


class Question(Protocol):
    """One kind of check of one upstream's servers."""

    def words(self, key: str) -> bytes:
        """
        What to send at first; may be empty.

        @param key: the server's address.
        """

    def judge(self, answer: bytes, ended: bool) -> Finding | None:
        """
        @param answer: all that came so far.
        @param ended: nothing more will come.
        @return: C{None} to wait for more.
        """


class HttpQuestion:
    """A GET, and the status of its answer."""

    def __init__(self, uri: str, host: str, status: str) -> None:
        """
        @param host: the Host to ask for; empty for the server's address.
        @param status: the good ones.
        """
        self._uri = uri
        self._host = host
        self._statuses = Statuses.parse(status)

    def words(self, key: str) -> bytes:
        host = self._host or ("localhost" if key.startswith("unix:") else key)
        return (
            f"GET {self._uri} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dynbalance-health-check\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode("ascii")

    def judge(self, answer: bytes, ended: bool) -> Finding | None:
        while True:
            end = answer.find(b"\r\n\r\n") + 4
            if end < 4:
                break
            try:
                head = parse_response(answer[:end])
            except BadMessage as bad:
                return Finding(f"invalid response: {bad}")
            if head.status >= 200:
                good = head.status in self._statuses
                return GOOD if good else Finding(f"status {head.status}")
            if head.status == 101:
                return Finding("status 101")
            answer = answer[end:]
        if len(answer) >= MOST:
            return Finding("invalid response: its head is too large")
        return Finding("closed before it answered") if ended else None


class TcpQuestion:
    """A connection, and what is said on it."""

    def __init__(self, send: str, expect: str) -> None:
        """
        @param send: may be empty.
        @param expect: to be somewhere in the answer; empty for no answer.
        """
        self._send = send.encode()
        self._expect = expect.encode()

    def words(self, key: str) -> bytes:
        return self._send

    def judge(self, answer: bytes, ended: bool) -> Finding | None:
        if self._expect in answer:
            return GOOD
        if not ended and len(answer) < MOST:
            return None
        if not answer:
            return Finding("closed before it answered")
        return Finding(f"unexpected answer: {answer[:60]!r}")
