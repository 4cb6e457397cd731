"""
One direction of a session, no faster than a rate.

As in nginx, C{rate * (seconds + 1)} bytes may have passed after so many
seconds: what the first second may carry is there at once.  What was read and
may not pass yet waits here, one read of it at most; meanwhile nothing is read,
and a deadline wakes us.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynbalance.net.deadlines import Deadlines

_STEP = 0.125
"""Seconds' worth of bytes that are waited for at least."""


@implementer(IPushProducer)
class Pace:
    """
    @param source: the transport that is read.
    @param sink: the transport that is written; this is to be its producer.
    @param rate: bytes a second.
    @param ended: called when the source has ended and all has passed.
    @ivar last: when bytes passed last.
    @ivar deadline: see L{dynbalance.net.deadlines.Timed}.
    @ivar due: likewise.
    """

    __slots__ = (
        "_began", "_deadlines", "_ended", "_held", "_outlives", "_passed", "_rate", "_sink",
        "_source", "_stopped", "_waiting", "deadline", "due", "last",
    )

    def __init__(
        self,
        source: Any,
        sink: Any,
        rate: int,
        deadlines: Deadlines,
        ended: Callable[[], None],
    ) -> None:
        self.deadline = inf
        self.due = inf
        self._source = source
        self._sink = sink
        self._rate = rate
        self._deadlines = deadlines
        self._ended = ended
        self._began = self.last = deadlines.now()
        self._passed = 0
        self._waiting = b""
        # The sink takes no more; we read no more; the source said its last.
        self._held = self._stopped = self._outlives = False

    def __repr__(self) -> str:
        return f"<Pace {self._rate}/s {self._passed} bytes, {len(self._waiting)} waiting>"

    def take(self, data: bytes) -> None:
        """Bytes of the source."""
        self._waiting += data
        self._go()

    def outlives(self) -> bool:
        """
        The source has ended.

        @return: whether something waits still; C{ended} is called then.
        """
        self._outlives = bool(self._waiting)
        return self._outlives

    def let_go(self) -> None:
        """Let all pass at once: nobody waits for more."""
        self._deadlines.forget(self)
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self._sink.write(waiting)

    def drop(self) -> None:
        """It is over."""
        self._deadlines.forget(self)
        self._waiting = b""

    def _go(self) -> None:
        while self._waiting and not self._held:
            now = self._deadlines.now()
            room = int(self._rate * (now - self._began + 1)) - self._passed
            if room <= 0:
                break
            piece, self._waiting = self._waiting[:room], self._waiting[room:]
            self._passed += len(piece)
            self.last = now
            self._sink.write(piece)
        if self._waiting:
            self._stop()
            if not self._held:
                self._wait()
        elif self._outlives:
            self._outlives = False
            self._ended()
        elif self._stopped and not self._held:
            self._stopped = False
            self._source.resumeProducing()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._source.pauseProducing()

    def _wait(self) -> None:
        step = min(len(self._waiting), max(1, int(self._rate * _STEP)))
        moment = self._began + (self._passed + step) / self._rate - 1
        self._deadlines.set(self, max(0.0, moment - self._deadlines.now()))

    def deadline_passed(self) -> None:
        self._go()

    # What the sink sees.

    def pauseProducing(self) -> None:
        self._held = True
        self._deadlines.clear(self)
        self._stop()

    def resumeProducing(self) -> None:
        self._held = False
        self._go()

    def stopProducing(self) -> None:
        """The sink is going; its C{connectionLost} follows."""
