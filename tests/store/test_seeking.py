"""
Tests for L{dynbalance.store.seeking}: whom it asks, and what it makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.errors import StoreUnavailable
from dynbalance.store.seeking import (
    PEER_TIMEOUT,
    Question,
    Refusal,
    SeekingEndpoint,
    WhereIsTheMaster,
    WhoHasTheKey,
    redirection,
)

A, B, C = ("a", 1), ("b", 2), ("c", 3)


@frozen
class To:
    """How a place is reached; connecting tells which place it was."""

    host: str
    port: int

    def connect(self, factory: Any) -> Deferred[Any]:
        return succeed((self.host, self.port))


class SeekingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Any] = []
        self.answers: dict[Any, Any] = {}

    def ask(self, endpoint: Any, words: Sequence[str]) -> Deferred[Any]:
        place = (endpoint.host, endpoint.port)
        self.asked.append(place)
        answer = self.answers.get(place)
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def endpoint(self, question: Question | None = None) -> SeekingEndpoint:
        question = question or WhereIsTheMaster("m")
        return SeekingEndpoint([A, B], question, To, self.ask, self.clock)  # type: ignore[arg-type]

    def test_first_answer(self) -> None:
        """The first who answers decides, and is asked first the next time."""
        self.answers = {A: ConnectionRefusedError(), B: [b"c", b"3"]}
        endpoint = self.endpoint()
        self.assertEqual(C, self.successResultOf(endpoint.connect(None)))
        self.assertEqual(C, endpoint.place)
        self.successResultOf(endpoint.connect(None))
        self.assertEqual([A, B, B], self.asked)

    def test_nobody(self) -> None:
        """When nobody knows, each one's answer is told."""
        self.answers = {A: ConnectionRefusedError(), B: None}
        failure = self.failureResultOf(self.endpoint().connect(None), StoreUnavailable)
        self.assertIn("a:1: Connection was refused", failure.getErrorMessage())
        self.assertIn("b:2: it knows no master 'm'", failure.getErrorMessage())

    def test_silence(self) -> None:
        """One who says nothing is left for the next one after a while."""
        self.answers = {A: Deferred(), B: [b"c", b"3"]}
        found = self.endpoint().connect(None)
        self.clock.advance(PEER_TIMEOUT - 0.01)
        self.assertNoResult(found)
        self.clock.advance(0.02)
        self.assertEqual(C, self.successResultOf(found))

    def test_given_up(self) -> None:
        """After an attempt that was given up the next one asks somebody else first."""
        self.answers = {A: Deferred(), B: [b"c", b"3"]}
        endpoint = self.endpoint()
        attempt = endpoint.connect(None)
        attempt.cancel()
        self.clock.advance(PEER_TIMEOUT)
        self.successResultOf(endpoint.connect(None))
        self.assertEqual(B, self.asked[-1])

    def test_no_sentinel(self) -> None:
        """Answers that are not a Sentinel's are refused."""
        question = WhereIsTheMaster("m")
        for reply in (b"x", [b"a"], [b"a", b"b"], 3, Refusal("ERR unknown command")):
            self.assertRaises(StoreUnavailable, question.read, reply, A)

    def test_cluster(self) -> None:
        """The node that has the key answers; another one says who has it."""
        question = WhoHasTheKey("{x}:zset")
        for own in (None, b"1", Refusal("WRONGTYPE Operation against a key")):
            self.assertEqual(A, question.read(own, A))
        self.assertEqual(C, question.read(Refusal("MOVED 7 c:3"), A))
        for trouble in ("CLUSTERDOWN The cluster is down", "NOAUTH", "MOVED x", "LOADING"):
            self.assertRaises(StoreUnavailable, question.read, Refusal(trouble), A)

    def test_redirection(self) -> None:
        """A node leaves out its own host; IPv6 addresses come without brackets."""
        self.assertEqual(("h", 7), redirection("MOVED 1 :7", "h"))
        self.assertEqual(("::1", 7), redirection("ASK 1 ::1:7", "h"))
        self.assertIsNone(redirection("TRYAGAIN Multiple keys", "h"))

