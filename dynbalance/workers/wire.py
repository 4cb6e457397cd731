"""
What a worker and its parent say to each other: questions with answers, and
words without, over one socket.

Knows messages and deadlines; refuses to know what is asked.  A message is a
JSON array behind its length; open descriptors may go with it (C{SCM_RIGHTS}).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from dynbalance.errors import DynbalanceError
from dynbalance.log import Logger

LONGEST = 256 << 20
"""Bytes of a message: the metrics of many thousands of servers."""


class NoAnswer(DynbalanceError):
    """The other side refused, is gone, or said nothing in time."""


@frozen(slots=True)
class Told:
    """An answer that is written already: JSON."""

    text: str


class Ears(Protocol):
    """Who takes what the other side says."""

    def heard(self, what: str, data: Any, descriptors: Sequence[int]) -> Any:
        """
        @param data: as JSON has it.
        @param descriptors: that came with it, and are the hearer's now.
        @return: the answer as JSON has it, L{Told}, or a Deferred of one; of a
            question only.
        """

    def wire_lost(self) -> None:
        """There will be no more."""


@implementer(IFileDescriptorReceiver)
class Wire(Int32StringReceiver):
    """One end of the socket."""

    MAX_LENGTH = LONGEST
    transport: Any
    _log = Logger()

    def __init__(self, ears: Ears, clock: IReactorTime) -> None:
        self._ears = ears
        self._clock = clock
        self._asked: dict[int, Deferred[Any]] = {}
        self._last = 0
        self._gone = False
        self._descriptors: list[int] = []

    def ask(
        self, what: str, data: Any, patience: float, descriptors: Sequence[int] = ()
    ) -> Deferred[Any]:
        """
        @param patience: seconds that the answer may take.
        @param descriptors: that the other side gets copies of.
        @return: the answer; fails with L{NoAnswer} only.
        """
        self._last += 1
        number = self._last
        answer: Deferred[Any] = Deferred()
        if self._gone:
            answer.errback(NoAnswer("the connection is closed"))
            return answer
        self._asked[number] = answer
        for each in descriptors:
            self.transport.sendFileDescriptor(each)
        self._send(["ask", number, what, data, len(descriptors)])

        def late(failure: Failure) -> Failure:
            self._asked.pop(number, None)
            if failure.check(TimeoutError):
                raise NoAnswer(f"no answer within {patience:g} s")
            return failure

        return answer.addTimeout(patience, self._clock).addErrback(late)

    def tell(self, what: str, data: Any = None) -> None:
        """Say something that needs no answer."""
        if not self._gone:
            self._send(["tell", 0, what, data, 0])

    def fileDescriptorReceived(self, descriptor: int) -> None:
        # Sent before the message that it belongs to.
        self._descriptors.append(descriptor)

    def stringReceived(self, string: bytes) -> None:
        kind, number, what, data, with_it = json.loads(string)
        descriptors, self._descriptors = self._descriptors[:with_it], self._descriptors[with_it:]
        if kind == "ask":
            answered = maybeDeferred(self._ears.heard, what, data, descriptors)
            answered.addCallbacks(
                lambda answer: self._answer(number, answer),
                lambda failure: self._refuse(number, what, failure),
            )
        elif kind == "tell":
            self._ears.heard(what, data, descriptors)
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

    def _answer(self, number: int, answer: Any) -> None:
        if not isinstance(answer, Told):
            self._send(["answer", number, "", answer, 0])
        elif not self._gone:
            self.sendString(b'["answer",%d,"",%b,0]' % (number, answer.text.encode()))

    def _refuse(self, number: int, what: str, failure: Failure) -> None:
        if not failure.check(DynbalanceError):
            self._log.failure("What was asked, {what}, failed", failure, what=what)
        self._send(["refusal", number, failure.getErrorMessage(), None, 0])

    def _send(self, message: list[Any]) -> None:
        if not self._gone:
            self.sendString(json.dumps(message, separators=(",", ":")).encode())
