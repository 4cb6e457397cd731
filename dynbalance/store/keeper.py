"""
Keeping what this node knows in the state directory, for a start without the
store.

Knows when the file is written and what to do with one that cannot be read or
written; refuses to know its format, which is
L{dynbalance.store.snapshotfile}'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.threads import deferToThreadPool

from dynbalance.log import Logger
from dynbalance.store import snapshotfile
from dynbalance.store.membership import Membership
from dynbalance.store.snapshotfile import SnapshotRefused

PAUSE = 1.0
"""Seconds from one write to the next at least."""

SHARE = 20
"""How many times as long as a write takes it then pauses at least."""

AGAIN = 10.0
"""Seconds after which a write that failed is tried again."""

FAREWELL = 2.0
"""Seconds that the end waits for the last write at most."""


class Keeper:
    """
    One file for all upstreams of a node.

    @ivar path: of the file.
    """

    _log = Logger()

    def __init__(
        self,
        state_dir: str,
        store: str,
        reactor: Any,
        wall: Callable[[], float],
        reads_only: bool = False,
    ) -> None:
        """
        @param state_dir: the file is in it.
        @param store: which store this is, without secrets.
        @param reactor: for time and threads.
        @param wall: seconds since the epoch.
        @param reads_only: somebody else judges and writes the file.
        """
        self.path = os.path.join(state_dir, "servers.snapshot")
        self._store = store
        self._reactor = reactor
        self._wall = wall
        self._reads_only = reads_only
        self._membership: Membership | None = None
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] = Deferred()
        self._due = 0.0
        self._noted = False
        self._failing = False
        self._ending = False

    def __repr__(self) -> str:
        return f"<Keeper {self.path}>"

    def begin(self, membership: Membership) -> None:
        """Tell the membership, before its start, what the file says."""
        self._membership = membership
        try:
            if not self._reads_only:
                snapshotfile.sweep(self.path)
            kept = snapshotfile.read(self.path, None if self._reads_only else self._store)
        except (SnapshotRefused, OSError) as error:
            self._refuse(str(error))
            return
        if kept is not None:
            age = max(0.0, self._wall() - kept.written)
            origin = f"the snapshot {self.path}, which was written {age:.0f} s ago"
            membership.remember(kept.snapshots, origin)

    def note(self) -> None:
        """What is known has changed."""
        self._noted = True
        if self._running is None and not self._reads_only:
            self._running = Deferred.fromCoroutine(self._keep())

    def stop(self) -> Deferred[None]:
        """
        End; what was noted is written.

        @return: fires when nothing is written any more, or after L{FAREWELL}
            seconds; never fails.
        """
        self._ending = True
        if self._running is None:
            return succeed(None)
        last = self._running
        if not self._pause.called:
            self._pause.callback(None)
        last.addTimeout(FAREWELL, self._reactor)
        return last.addErrback(lambda failure: failure.trap(TimeoutError, CancelledError) and None)

    async def _keep(self) -> None:
        """Write until there is nothing new."""
        while self._noted:
            await self._until_due()
            self._noted = False
            began = self._reactor.seconds()
            pause = await self._write()
            now = self._reactor.seconds()
            self._due = now + max(pause, SHARE * (now - began))
            if self._failing and self._ending:
                break
        self._running = None

    async def _until_due(self) -> None:
        if self._ending:
            return
        self._pause = Deferred()
        wait = max(0.0, self._due - self._reactor.seconds())
        waiting = self._reactor.callLater(wait, self._pause.callback, None)
        await self._pause
        if waiting.active():
            waiting.cancel()

    async def _write(self) -> float:
        """@return: seconds to the next one at least."""
        assert self._membership is not None
        try:
            await deferToThreadPool(
                self._reactor,
                self._reactor.getThreadPool(),
                snapshotfile.write,
                self.path,
                self._store,
                self._membership.all_known(),
                self._wall(),
            )
        except OSError as error:
            if not self._failing:
                self._log.error(
                    "The snapshot {path} cannot be written: {why}; it is tried again",
                    path=self.path,
                    why=error.strerror,
                )
            self._failing = self._noted = True
            return AGAIN
        if self._failing:
            self._log.info("The snapshot {path} is written again", path=self.path)
        self._failing = False
        return PAUSE

    def _refuse(self, why: str) -> None:
        if self._reads_only:
            return
        aside = f"{self.path}.refused"
        try:
            os.replace(self.path, aside)
        except OSError as error:
            aside = f"nowhere ({error.strerror})"
        self._log.error(
            "The snapshot {path} is not used: {why}; it is kept as {aside}",
            path=self.path,
            why=why,
            aside=aside,
        )
