"""
The admin API on a traffic port (C{mount_admin}), as the seed had it.

Takes the place of an exchange for requests under C{/upstream/}: reads a small
body whole, asks the API, and has the channel write the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from dynbalance.log import Logger

if TYPE_CHECKING:
    from dynbalance.admin.answers import Reply
from twisted.python.failure import Failure

from dynbalance.http.request import RequestHead


class Ask(Protocol):
    """The API, as plain values."""

    def __call__(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        body: bytes,
        header: Callable[[bytes], bytes | None],
        client: str,
    ) -> Deferred[Reply]: ...


@frozen(slots=True)
class Mount:
    """
    @ivar ask: what answers.
    @ivar max_body: bytes; it is asked as soon as more have come, and refuses.
    """

    ask: Ask
    max_body: int = 1 << 20


class Asker(Protocol):
    """The client's side."""

    def request_wanted(self) -> None: ...

    def reply(
        self, status: int, fields: tuple[tuple[bytes, bytes], ...], body: bytes
    ) -> None: ...

    def answer(self, status: int) -> None: ...

    def ended(self) -> None: ...


class MountedAdmin:
    """One call of the API."""

    # It refuses what is too large in its own words.
    max_body = 0

    _log = Logger()

    def __init__(self, mount: Mount, front: Asker, head: RequestHead, client: str) -> None:
        self._mount = mount
        self._front = front
        self._head = head
        self._client = client
        self._body: list[bytes] = []
        self._room = mount.max_body
        self._started = False
        self._complete = head.length == 0
        self._asked: Deferred[None] | None = None
        self._gone = False

    def start(self) -> None:
        self._started = True
        if self._complete or self._room < 0:
            self._ask()
        else:
            self._front.request_wanted()

    def body(self, data: bytes) -> None:
        if self._room < 0:
            return
        self._body.append(data)
        self._room -= len(data)
        if self._room < 0 and self._started:
            self._ask()

    def body_ended(self) -> None:
        self._complete = True
        if self._started and self._asked is None:
            self._ask()

    def _ask(self) -> None:
        path, _, query = self._head.target.partition(b"?")
        asked = self._mount.ask(
            self._head.method,
            path,
            query,
            b"".join(self._body),
            self._head.get,
            self._client,
        )
        self._asked = asked.addCallbacks(self._replied, self._failed)

    def _replied(self, reply: Reply) -> None:
        if not self._gone:
            self._front.reply(reply.status, reply.headers, reply.body)
            self._front.ended()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the admin API failed", failure)
        if not self._gone:
            self._front.answer(500)
            self._front.ended()

    def client_gone(self) -> None:
        # The order was given and may be half carried out: it runs to its end.
        self._gone = True

    def pause_response(self) -> None:
        """The reply is small and written at once."""

    def resume_response(self) -> None:
        """The reply is small and written at once."""
