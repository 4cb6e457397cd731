"""
The way from a request's plain values to a reply.

Knows paths, methods and refusals; refuses to know which endpoints there are
(L{dynbalance.admin.table}) and what carries the request: the admin site and the
traffic listeners' own HTTP channel call the same function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Page, Refused, Reply, page, reply
from dynbalance.admin.caller import Caller
from dynbalance.admin.conditions import only_at
from dynbalance.admin.fields import brief, gather
from dynbalance.admin.scene import Ask
from dynbalance.errors import ServerExists, ServerNotFound, StaleRevision, StoreError
from dynbalance.log import Logger

BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body that are read; 413 above it."""

_STATUSES = {
    ServerExists: 400,
    ServerNotFound: 404,
    StaleRevision: 409,
}
"""What HTTP calls the store's refusals; it is away with all others."""

Header: TypeAlias = Callable[[bytes], "bytes | None"]
"""The value of a request's header field by its lower-case name."""

TOO_LARGE = Answer("Request body too large", status=413)


@frozen(slots=True)
class Endpoint:
    """
    One line of the table.

    @ivar methods: HEAD is understood wherever GET is.
    @ivar parameters: in the order in which they are judged; C{None} for a page
        that does not look at what it is given.
    @ivar act: does it.
    @ivar about: a line for people.
    @ivar produces: the media type of what is not in the envelope.
    @ivar has_revision: whether the answer has the revision as its C{ETag} and is
        left out for who knows it.
    @ivar may_fail: of a page, whether it may answer 503.
    """

    path: bytes
    methods: tuple[bytes, ...]
    parameters: tuple[p.Parameter[Any], ...] | None
    act: Callable[[Ask], Awaitable[Answer | Page]]
    about: str = ""
    produces: str = "application/json"
    has_revision: bool = False
    may_fail: bool = False

    @property
    def allow(self) -> bytes:
        """The C{Allow} header field."""
        known = self.methods
        if b"GET" in known:
            known = (b"GET", b"HEAD", *(method for method in known if method != b"GET"))
        return b", ".join(known)


class Api:
    """
    Answers requests that are given as plain values.

    @ivar endpoints: the table.
    """

    _log = Logger()

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._by_path = {endpoint.path: endpoint for endpoint in self.endpoints}

    def answer(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        body: bytes,
        header: Header,
        client: str,
    ) -> Deferred[Reply]:
        """
        @param path: as it was sent, without the query.
        @param query: what follows the C{?}.
        @param body: all of it; the front stops reading above L{BODY_LIMIT}.
        @param header: the value of a header field by its lower-case name.
        @param client: the caller's address; empty when it has none.
        @return: never fails.
        """
        given = _Given(method, path, query, body, header, client)
        return Deferred.fromCoroutine(self._answer(given))

    async def _answer(self, given: _Given) -> Reply:
        headers: tuple[tuple[bytes, bytes], ...] = ()
        endpoint = self._by_path.get(given.path)
        try:
            if endpoint is None:
                raise Refused(404, f"Unknown path: {brief(given.path.decode('latin-1'))}")
            if given.plain_method not in endpoint.methods:
                headers = ((b"allow", endpoint.allow),)
                raise Refused(405, f"Method not allowed: {brief(given.method.decode('latin-1'))}")
            given.refuse_strangers()
            outcome = await endpoint.act(given.ask(endpoint))
        except (Refused, StoreError) as error:
            outcome = Answer(str(error), status=_status(error))
        except Exception:  # noqa: BLE001 - a mistake of ours is the caller's 500
            self._log.failure("The API failed at {path}", path=given.path)
            outcome = Answer("Internal error", status=500)
        if isinstance(outcome, Answer):
            outcome = page(outcome, headers)
        return reply(outcome)


@frozen(slots=True)
class _Given:
    """One request as it came; see L{Api.answer}."""

    method: bytes
    path: bytes
    query: bytes
    body: bytes
    header: Header
    client: str

    @property
    def plain_method(self) -> bytes:
        return b"GET" if self.method == b"HEAD" else self.method

    def ask(self, endpoint: Endpoint) -> Ask:
        """@raise Refused: for what cannot be understood."""
        if len(self.body) > BODY_LIMIT:
            raise Refused(TOO_LARGE.status, TOO_LARGE.message)
        fields: dict[str, str] = {}
        if endpoint.parameters is not None:
            body = self.body if self.method == b"POST" else b""
            structured = [each.name for each in endpoint.parameters if each.is_structured]
            repeatable = [each.name for each in endpoint.parameters if each.is_repeatable]
            kind = self.header(b"content-type")
            fields = gather(self.query, body, kind, structured, repeatable)
        return Ask(
            arguments=p.Arguments(endpoint.parameters or (), fields),
            caller=Caller(address=self.client),
            only_at=only_at(self.header(b"if-match")) if self.method == b"POST" else None,
            if_none_match=self.header(b"if-none-match"),
            last_event_id=(self.header(b"last-event-id") or b"").decode("latin-1"),
        )

    def refuse_strangers(self) -> None:
        """
        Browsers let any page send a form to any address that they reach, so
        also to a listener on the loopback interface; they say whose page it is.

        @raise Refused: for an order from a page of somebody else.
        """
        origin = self.header(b"origin")
        if self.method != b"POST" or origin is None:
            return
        theirs = urlsplit(origin).netloc.lower()
        if not theirs or theirs != (self.header(b"host") or b"").lower():
            raise Refused(403, "Orders from pages of another origin are refused")


def _status(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    return _STATUSES.get(type(error), 503)
