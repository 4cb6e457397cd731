"""
What a worker and its parent say to each other: questions with answers, and
words without, over one socket.

Knows messages and deadlines; refuses to know what is asked.  A message is a
JSON array behind its length.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from dynbalance.log import Logger

LONGEST = 256 << 20
"""Bytes of a message: the metrics of many thousands of servers."""


class NoAnswer(Exception):
    """The other side refused, is gone, or said nothing in time."""


class Ears(Protocol):
    """Who takes what the other side says."""

    def heard(self, what: str, data: Any) -> Any:
        """
        @param data: as JSON has it.
        @return: the answer, or a Deferred of it; of a question only.
        """

    def wire_lost(self) -> None:
        """There will be no more."""


class Wire(Int32StringReceiver):
    """One end of the socket."""

    MAX_LENGTH = LONGEST
    _log = Logger()

    def __init__(self, ears: Ears, clock: IReactorTime) -> None:
        self._ears = ears
        self._clock = clock
        self._asked: dict[int, Deferred[Any]] = {}
        self._last = 0
        self._gone = False

    def ask(self, what: str, data: Any, patience: float) -> Deferred[Any]:
        """
        @param patience: seconds that the answer may take.
        @return: the answer; fails with L{NoAnswer} only.
        """
        self._last += 1
        number = self._last
        answer: Deferred[Any] = Deferred()
        if self._gone:
            answer.errback(NoAnswer("the connection is closed"))
            return answer
        self._asked[number] = answer
        self._send(["ask", number, what, data])

        def late(failure: Failure) -> Failure:
            self._asked.pop(number, None)
            if failure.check(TimeoutError):
                raise NoAnswer(f"no answer within {patience:g} s")
            return failure

        return answer.addTimeout(patience, self._clock).addErrback(late)

    def tell(self, what: str, data: Any = None) -> None:
        """Say something that needs no answer."""
        if not self._gone:
            self._send(["tell", 0, what, data])

    def stringReceived(self, string: bytes) -> None:
        kind, number, what, data = json.loads(string)
        if kind == "ask":
            answered = maybeDeferred(self._ears.heard, what, data)
            answered.addCallbacks(
                lambda answer: self._send(["answer", number, "", answer]),
                lambda failure: self._refuse(number, what, failure),
            )
        elif kind == "tell":
            self._ears.heard(what, data)
        else:
            waiting = self._asked.pop(number, None)
            if waiting is None:
                # It came too late.
                return
            if kind == "answer":
                waiting.callback(data)
            else:
                waiting.errback(NoAnswer(what))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        asked, self._asked = self._asked, {}
        for waiting in asked.values():
            waiting.errback(NoAnswer("the connection is closed"))
        self._ears.wire_lost()

    def _refuse(self, number: int, what: str, failure: Failure) -> None:
        self._log.failure("What was asked, {what}, failed", failure, what=what)
        self._send(["refusal", number, failure.getErrorMessage(), None])

    def _send(self, message: list[Any]) -> None:
        if not self._gone:
            self.sendString(json.dumps(message, separators=(",", ":")).encode())
