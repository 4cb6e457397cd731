"""
The table of endpoints, and the way from a request's plain values to a reply.

Knows paths, methods and which parameters each endpoint takes; refuses to know
what carries the request: the admin site and the traffic listeners' own HTTP
channel call the same function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Page, Refused, Reply, page, reply
from dynbalance.admin.fields import brief, gather
from dynbalance.admin.operations import Ask, Operations
from dynbalance.errors import ServerExists, ServerNotFound, StoreUnavailable
from dynbalance.log import Logger

BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body that are read; 413 above it."""

TOO_LARGE = Answer("Request body too large", status=413)


@frozen(slots=True)
class Endpoint:
    """
    One line of the table.

    @ivar methods: HEAD is understood wherever GET is.
    @ivar parameters: in the order in which they are judged; C{None} for a page
        that does not look at what it is given.
    @ivar act: does it.
    """

    path: bytes
    methods: tuple[bytes, ...]
    parameters: tuple[p.Parameter[Any], ...] | None
    act: Callable[[Ask], Awaitable[Answer | Page]]

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
        content_type: bytes | None,
        client: str,
        origin: bytes | None = None,
        host: bytes | None = None,
    ) -> Deferred[Reply]:
        """
        @param path: as it was sent, without the query.
        @param query: what follows the C{?}.
        @param body: all of it; the front stops reading above L{BODY_LIMIT}.
        @param client: the caller's address; empty when it has none.
        @param origin: the C{Origin} header field, if there is one.
        @param host: the C{Host} header field.
        @return: never fails.
        """
        given = _Given(method, path, query, body, content_type, client, origin, host)
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
        except (Refused, ServerExists, ServerNotFound, StoreUnavailable) as error:
            outcome = Answer(str(error), status=_status(error))
        except Exception:  # noqa: BLE001 - a mistake of ours is the caller's 500
            self._log.failure("The API failed at {path}", path=given.path)
            outcome = Answer("Internal error", status=500)
        if isinstance(outcome, Answer):
            outcome = page(outcome, headers)
        return reply(outcome)


class UpstreamApi(Api):
    """What is served under C{/upstream/}."""

    def __init__(self, operations: Operations) -> None:
        get, post, both = (b"GET",), (b"POST",), (b"GET", b"POST")
        one = (p.UPSTREAM,)
        server = (p.PORT, p.HOST, p.UPSTREAM)
        added = (p.WEIGHT, p.MAX_CONNS, p.HEARTBEAT, p.BACKUP, p.MAX_FAILS, p.FAIL_TIMEOUT)
        toggled = (p.ACTION, p.DEADLINE, p.THEN)
        super().__init__(
            (
                Endpoint(b"/upstream/status", get, one, operations.status),
                Endpoint(b"/upstream/add", post, (*server, *added, p.SLOW_START), operations.add),
                Endpoint(b"/upstream/remove", post, (*server, p.DRAIN), operations.remove),
                Endpoint(b"/upstream/toggle", post, (*server, *toggled), operations.toggle),
                Endpoint(b"/upstream/refresh", post, server, operations.refresh),
                Endpoint(b"/upstream/reset", post, one, operations.reset),
                Endpoint(b"/upstream/health", get, one, operations.health),
                Endpoint(b"/upstream/cleanup", both, one, operations.cleanup),
            )
        )


@frozen(slots=True)
class _Given:
    """One request as it came; see L{Api.answer}."""

    method: bytes
    path: bytes
    query: bytes
    body: bytes
    content_type: bytes | None
    client: str
    origin: bytes | None
    host: bytes | None

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
            fields = gather(self.query, body, self.content_type)
        return Ask(arguments=p.Arguments(endpoint.parameters or (), fields), client=self.client)

    def refuse_strangers(self) -> None:
        """
        Browsers let any page send a form to any address that they reach, so
        also to a listener on the loopback interface; they say whose page it is.

        @raise Refused: for an order from a page of somebody else.
        """
        if self.method != b"POST" or self.origin is None:
            return
        theirs = urlsplit(self.origin).netloc.lower()
        if not theirs or theirs != (self.host or b"").lower():
            raise Refused(403, "Orders from pages of another origin are refused")


def _status(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, ServerExists):
        return 400
    return 404 if isinstance(error, ServerNotFound) else 503
