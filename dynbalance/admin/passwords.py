"""
Users and their passwords.

A password is slow to check on purpose: that happens in a thread, a few at a
time, and who was let in a moment ago is remembered by a keyed hash of what was
shown, so that the next request costs next to nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredSemaphore

from dynbalance.admin.caller import Holder, Role
from dynbalance.admin.credentials import Password
from dynbalance.config import UserConfig
from dynbalance.hashes import password_matches

InThread = Callable[[Callable[[], bool]], "Deferred[bool]"]
"""Calls something that takes its time without holding up anybody."""

LIFETIME = 60.0
"""Seconds that a password is known to be right."""

_MOST = 1000
"""Passwords that are known to be right."""

AT_ONCE = 2
"""Passwords that are checked at once: each takes a core and 64 MiB meanwhile."""

WAITING = 100
"""Passwords that may wait for that."""


class Busy(Exception):
    """Too many passwords wait already."""


class Passwords:
    """
    @param now: seconds.
    @param key: of the hashes by which passwords are remembered; chance, and
        nobody else's.
    """

    def __init__(
        self,
        users: Iterable[UserConfig],
        in_thread: InThread,
        now: Callable[[], float],
        key: bytes,
    ) -> None:
        self._users = {user.name: user for user in users}
        self._in_thread = in_thread
        self._now = now
        self._key = key
        self._known: OrderedDict[bytes, tuple[float, Holder]] = OrderedDict()
        self._turn = DeferredSemaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"<Passwords of {len(self._users)} users>"

    def __bool__(self) -> bool:
        return bool(self._users)

    def known(self, shown: Password) -> Holder | None:
        """Whose it is, if that was found out lately."""
        return self._remembered(self._mark(shown))

    async def holder(self, shown: Password) -> Holder | None:
        """
        Whose it is.  To find out takes as long for a user that there is not.

        @raise Busy: nobody knows.
        """
        mark = self._mark(shown)
        if len(self._turn.waiting) >= WAITING:
            raise Busy
        await self._turn.acquire()
        try:
            found = self._remembered(mark)
            if found is None and await self._is_right(shown):
                user = self._users[shown.name]
                found = Holder(name=user.name, role=Role(user.role))
                self._remember(mark, found)
        finally:
            self._turn.release()
        return found

    async def _is_right(self, shown: Password) -> bool:
        user = self._users.get(shown.name)
        by = user or next(iter(self._users.values()))
        matches = await self._in_thread(
            lambda: password_matches(shown.secret, by.password_hash)
        )
        return matches and user is not None

    def _mark(self, shown: Password) -> bytes:
        # A name has no colon.
        said = f"{shown.name}:{shown.secret}".encode()
        return hmac.new(self._key, said, hashlib.sha256).digest()

    def _remembered(self, mark: bytes) -> Holder | None:
        until, holder = self._known.get(mark, (0.0, None))
        return holder if self._now() < until else None

    def _remember(self, mark: bytes, holder: Holder) -> None:
        self._known[mark] = (self._now() + LIFETIME, holder)
        self._known.move_to_end(mark)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
