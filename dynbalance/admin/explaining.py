"""
Why a described request would go where it would go.

Makes the request that is described and tells what the balancer foresees for it;
refuses to know how a choice is made.  Nothing is chosen, counted or drawn.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Answer, Json, Refused
from dynbalance.admin.crew import Crew, Matter
from dynbalance.admin.scene import Ask, Scene
from dynbalance.admin.views import present
from dynbalance.balancer.explain import Decided, Explanation, Outlook, explain
from dynbalance.balancer.upstream import Upstream
from dynbalance.http.fields import BadMessage
from dynbalance.http.forwarded import Origin
from dynbalance.http.request import RequestHead, parse_request

if TYPE_CHECKING:
    from dynbalance.balancer.hookrun import Hook
    from dynbalance.http.sticky import Sticky


class Way(Protocol):
    """
    What of a request matters to the choice of a server;
    L{dynbalance.http.upstream.HttpUpstream} knows.
    """

    hook: Hook | None
    sticky: Sticky | None

    def key(self, head: RequestHead, origin: Origin) -> bytes:
        """What the policy goes by, where it goes by a key."""


Ways = Callable[[str], "Way | None"]
"""By the upstream's name; C{None} where only its policy matters."""


def no_way(upstream: str) -> Way | None:
    """Only policies matter."""
    return None


class Explaining:
    """Answers to "why there?" and "why not there?"."""

    def __init__(self, scene: Scene, ways: Ways = no_way, crew: Crew | None = None) -> None:
        """@param crew: who chooses, if it is not this process."""
        self._scene = scene
        self._ways = ways
        self._crew = crew

    async def explain(self, ask: Ask) -> Answer:
        """On this node, now; by one worker, where there are several."""
        upstream = self._scene.upstream(ask)
        way = self._ways(upstream.name)
        client = _client(ask)
        head = _head(ask)
        origin = Origin(client=client, forwarded_for=client.encode(), scheme=b"http")
        key, route = b"", ""
        if upstream.wants_key:
            key = client.encode() if way is None else way.key(head, origin)
        if way is not None and way.sticky is not None:
            route = way.sticky.route(head)
        hooked = way is not None and way.hook is not None
        matter = Matter(upstream.name, key, route, hooked)
        told = None if self._crew is None else await self._crew.foretell(matter)
        return told or foretell(upstream, matter)


def foretell(upstream: Upstream, matter: Matter) -> Answer:
    """What this process would do."""
    explanation = explain(upstream, matter.key, matter.route, matter.hooked)
    return Answer(_message(upstream, explanation), _told(upstream, explanation, matter.key))


def _client(ask: Ask) -> str:
    client = ask.arguments[p.CLIENT] or ask.caller.address
    if not client or client == ask.caller.address:
        return client
    try:
        return str(ipaddress.ip_address(client))
    except ValueError:
        raise Refused(400, "Invalid client: not an IP address") from None


def _head(ask: Ask) -> RequestHead:
    """@raise Refused: what is described is no request."""
    fields = ask.arguments[p.HEADER]
    if not any(field.lower().startswith("host:") for field in fields):
        fields = ("Host: localhost", *fields)
    lines = [f"GET {ask.arguments[p.URI]} HTTP/1.1", *fields, "", ""]
    try:
        return parse_request("\r\n".join(lines).encode("latin-1"))
    except UnicodeEncodeError:
        raise Refused(400, "Invalid uri or header: it holds what no request can") from None
    except BadMessage as error:
        raise Refused(400, f"Invalid uri or header: {error}") from None


def _message(upstream: Upstream, explanation: Explanation) -> str:
    chosen = explanation.chosen
    if explanation.decided is Decided.NOBODY:
        return upstream.why_none()
    if explanation.decided is Decided.HOOK:
        return "A balancer hook decides; it was not asked"
    if explanation.decided is Decided.PANIC:
        return "No server is good: two of those that were good last are drawn"
    if chosen is None:
        return "Chance decides"
    why = "its cookie says so" if explanation.decided is Decided.COOKIE else upstream.policy
    return f"{chosen.key} would be chosen: {why}"


def _told(upstream: Upstream, explanation: Explanation, key: bytes) -> Json:
    chosen = explanation.chosen
    return present(
        policy=upstream.policy,
        decided_by=explanation.decided.value,
        key=key.decode("latin-1") if key else None,
        chosen=chosen.key if chosen is not None else None,
        servers=[_server(outlook) for outlook in explanation.outlooks],
    )


def _server(outlook: Outlook) -> Json:
    server = outlook.server
    return present(
        addr=server.key,
        state=server.state.value,
        eligible=server.usable,
        why=outlook.why_not,
        score=_rounded(outlook.score),
        chance=_rounded(outlook.chance),
        weight=server.weight,
        slow_start=_rounded(server.slow),
        connections=server.load,
        node_connections=server.held,
        max_conns=server.max_conns,
        backup=server.backup,
        fails=server.fails,
    )


def _rounded(number: float | None) -> Json:
    return None if number is None else round(number, 6)
