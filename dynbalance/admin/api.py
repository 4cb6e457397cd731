"""
The way from a request's plain values to a reply.

Knows paths, methods and refusals; refuses to know which endpoints there are
(L{dynbalance.admin.table}) and what carries the request: the admin site and the
traffic listeners' own HTTP channel call the same function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from attrs import field, frozen
from twisted.internet.defer import Deferred

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Page, Refused, Reply, page, reply
from dynbalance.admin.caller import Caller, Role
from dynbalance.admin.certificate import Certificate
from dynbalance.admin.conditions import only_at
from dynbalance.admin.fields import brief, gather
from dynbalance.admin.guard import OPEN, Guard, Shown, Wrong, refuse_strangers, require
from dynbalance.admin.scene import Ask
from dynbalance.admin.trail import NO_TRAIL, Deed, Trail
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
    @ivar needs: the role of those who may; C{None} for everybody.
    @ivar is_routine: of an order, whether it comes all the time; the audit trail
        does without it.
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
    needs: Role | None = field(kw_only=True)
    is_routine: bool = False
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

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        guard: Guard = OPEN,
        trail: Trail = NO_TRAIL,
    ) -> None:
        """
        @param guard: says who may.
        @param trail: is told who did.
        """
        self.endpoints = tuple(endpoints)
        self._by_path = {endpoint.path: endpoint for endpoint in self.endpoints}
        self._guard = guard
        self._trail = trail

    def answer(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        body: bytes,
        header: Header,
        client: str,
        certificate: Certificate | None = None,
    ) -> Deferred[Reply]:
        """
        @param path: as it was sent, without the query.
        @param query: what follows the C{?}.
        @param body: all of it; the front stops reading above L{BODY_LIMIT}.
        @param header: the value of a header field by its lower-case name.
        @param client: the caller's address; empty when it has none.
        @param certificate: that the caller has shown, and that was found good.
        @return: never fails.
        """
        given = _Given(method, path, query, body, header, client, certificate)
        return Deferred.fromCoroutine(self._answer(given))

    async def _answer(self, given: _Given) -> Reply:
        deed = Deed(path=given.path, address=given.client)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        outcome: Answer | Page
        try:
            outcome = await self._act(given, deed)
        except (Refused, StoreError) as error:
            outcome = Answer(str(error), status=_status(error))
            if isinstance(error, Refused):
                headers = error.headers
            if isinstance(error, Wrong):
                deed.wrong, deed.claimed = True, error.claimed
        except Exception:  # noqa: BLE001 - a mistake of ours is the caller's 500
            self._log.failure("The API failed at {path}", path=given.path)
            outcome = Answer("Internal error", status=500)
        if isinstance(outcome, Answer):
            await self._trail.end(deed, outcome.status, outcome.message)
            outcome = page(outcome, headers)
        return reply(outcome)

    async def _act(self, given: _Given, deed: Deed) -> Answer | Page:
        """@raise Refused: by whatever stands before the act, or by itself."""
        guard, header = self._guard, given.header
        guard.admit(given.client)
        guard.check_host(given.client, header(b"host"))
        endpoint = deed.endpoint = self._by_path.get(given.path)
        if endpoint is None:
            raise Refused(404, f"Unknown path: {brief(given.path.decode('latin-1'))}")
        if given.plain_method not in endpoint.methods:
            name = brief(given.method.decode("latin-1"))
            raise Refused(405, f"Method not allowed: {name}", ((b"allow", endpoint.allow),))
        if endpoint.needs is None:
            caller = Caller(address=given.client, role=Role.READ)
        else:
            caller = deed.caller = await guard.identify(given.shown)
            require(caller, endpoint.needs, given.path.decode("ascii"))
            if endpoint.needs is not Role.READ:
                origin, site = header(b"origin"), header(b"sec-fetch-site")
                refuse_strangers(origin, site, header(b"host"))
        ask = deed.ask = given.ask(endpoint, caller)
        await self._trail.begin(deed)
        return await endpoint.act(ask)


@frozen(slots=True)
class _Given:
    """One request as it came; see L{Api.answer}."""

    method: bytes
    path: bytes
    query: bytes
    body: bytes
    header: Header
    client: str
    certificate: Certificate | None

    @property
    def shown(self) -> Shown:
        """Of the caller."""
        return Shown(
            address=self.client,
            authorization=self.header(b"authorization"),
            certificate=self.certificate,
        )

    @property
    def plain_method(self) -> bytes:
        return b"GET" if self.method == b"HEAD" else self.method

    def ask(self, endpoint: Endpoint, caller: Caller) -> Ask:
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
            caller=caller,
            only_at=only_at(self.header(b"if-match")) if self.method == b"POST" else None,
            if_none_match=self.header(b"if-none-match"),
            last_event_id=(self.header(b"last-event-id") or b"").decode("latin-1"),
        )


def _status(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    return _STATUSES.get(type(error), 503)
