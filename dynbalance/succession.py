"""
How a node gives its place to another process.

Knows what only one process may have, and in which order the rest is let go of;
refuses to know how the two talk (L{dynbalance.handover}).  The parent of a crew
gives the place of all its workers, and each of them does here what it says.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall

from dynbalance.errors import StoreUnusable
from dynbalance.handover import Offer
from dynbalance.log import Logger
from dynbalance.store.embedded import EmbeddedStore
from dynbalance.workers.crew import Crew
from dynbalance.works import Works

LOOK = 0.1
"""Seconds between two looks whether anything is left in flight."""


class Holder(Protocol):
    """
    Who has the place.

    @ivar ending: its end was ordered.
    @ivar serving: it lets clients in.
    """

    ending: bool
    serving: bool

    @property
    def works(self) -> Works:
        """What it consists of."""


class Succession:
    """
    @ivar offer: where a successor asks.
    """

    _log = Logger()

    def __init__(self, holder: Holder, reactor: Any, crew: Crew | None) -> None:
        """
        @param reactor: the real one; it is stopped when nothing is left to finish.
        @param crew: who serves, if it is not this process.
        """
        self.offer = Offer(self)
        self._holder = holder
        self._reactor = reactor
        self._crew = crew
        self._takes_back = False
        self._until: float | None = None
        self._waiting: LoopingCall | None = None

    def __repr__(self) -> str:
        return f"<Succession by {self.offer!r}>"

    @property
    def under_way(self) -> bool:
        """Whether another process has, or is about to have, the place."""
        return self._until is not None or self.offer.under_way is not None

    def refusal(self) -> str:
        """Why no other process can take over now; empty if one can."""
        if self._holder.ending or self._until is not None:
            return "it ends"
        if self._takes_back:
            return "it has not got back yet what it gave to another one"
        return "" if self._holder.serving else "it does not serve yet"

    def lendable(self) -> Mapping[str, Sequence[socket.socket]]:
        """The listening sockets by their endpoints."""
        crew, ports = self._crew, self._holder.works.ports
        if crew is None:
            return {port.text: port.sockets for port in ports}
        return {port.text: crew.sockets_of(port.ports) or port.sockets for port in ports}

    async def let_go(self, node: str) -> None:
        """
        Let go what only one process may have; traffic goes on.

        @param node: the successor's name in the store; may be empty.
        """
        works = self._holder.works
        if self._crew is not None:
            await self._crew.let_go(node)
        await works.duties.stop()
        if node == works.config.node != "":
            # Two cannot tell under one name what each of them holds.
            await works.membership.stop()
        if isinstance(works.store, EmbeddedStore):
            await works.store.let_go()

    async def take_back(self) -> None:
        """The successor failed."""
        self._takes_back = True
        try:
            await self._take_back()
        finally:
            self._takes_back = False

    async def _take_back(self) -> None:
        works = self._holder.works
        if isinstance(works.store, EmbeddedStore):
            try:
                await works.store.take_back()
            except StoreUnusable as error:
                self._log.error("The store is not had back: {error}", error=str(error))
        if self._holder.ending:
            return
        if not works.membership.running:
            await works.membership.start()
        works.duties.start()
        if self._crew is not None:
            await self._crew.take_back()
        # It may have put its own there.
        self.offer.come_back(self._reactor)

    def retire(self, pid: int) -> None:
        """Process C{pid} serves: finish, and end."""
        works = self._holder.works
        self._log.info("Process {pid} has taken over; this one finishes", pid=pid)
        self.offer.close()
        works.traffic.leave_ports()
        if works.admin is not None:
            works.admin.leave()
        works.traffic.retire()
        patience = works.config.shutdown_timeout
        self._until = self._reactor.seconds() + patience
        if self._crew is not None:
            self._crew.retire(pid, patience).addCallback(lambda _: self._finished())
            return
        self._waiting = LoopingCall(self._look)
        self._waiting.clock = self._reactor
        self._waiting.start(LOOK)

    def _look(self) -> None:
        assert self._until is not None
        if not self._holder.works.traffic.active or self._reactor.seconds() >= self._until:
            self._stop_looking()
            self._finished()

    def _finished(self) -> None:
        # The end may have been ordered a moment ago.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _stop_looking(self) -> None:
        if self._waiting is not None and self._waiting.running:
            self._waiting.stop()

    def close(self) -> float:
        """
        The node ends.

        @return: the seconds that what is in flight still has.
        """
        self._stop_looking()
        self.offer.close()
        patience = self._holder.works.config.shutdown_timeout
        if self._until is None:
            return patience
        # It has been finishing since.
        left: float = self._until - self._reactor.seconds()
        return min(patience, max(0.0, left))
