"""
A client stays with its server by a cookie, over any policy.

Knows the cookie; refuses to know how a server is chosen for a client that has
none, or whose server cannot serve it.
"""

from __future__ import annotations

from attrs import evolve

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.config.upstream import StickyConfig
from dynbalance.http.request import RequestHead
from dynbalance.http.response import ResponseHead
from dynbalance.http.variables import cookie


class Sticky:
    """@param settings: the C{sticky} table."""

    def __init__(self, settings: StickyConfig) -> None:
        self._name = settings.cookie.encode()
        attributes = ["Path=/"]
        if settings.max_age:
            attributes.append(f"Max-Age={settings.max_age}")
        if settings.secure:
            attributes.append("Secure")
        if settings.httponly:
            attributes.append("HttpOnly")
        attributes.append(f"SameSite={settings.samesite.capitalize()}")
        self._attributes = "; ".join(attributes).encode()

    def lease(
        self, upstream: Upstream, head: RequestHead, tried: tuple[Server, ...]
    ) -> Lease | None:
        """A slot on the server that the request's cookie names, if it may get one."""
        server = self.server(upstream, head)
        return None if server is None else upstream.choose_this(server, tried)

    def server(self, upstream: Upstream, head: RequestHead) -> Server | None:
        """The server that the request's cookie names."""
        route = self.route(head)
        return upstream.by_route(route) if route else None

    def marked(self, request: RequestHead, head: ResponseHead, server: Server) -> ResponseHead:
        """The response, with a cookie if the client does not have that of C{server}."""
        if self.route(request) == server.route:
            return head
        forward = head.forward + b"Set-Cookie: %b=%b; %b\r\n" % (
            self._name,
            server.route.encode(),
            self._attributes,
        )
        return evolve(head, forward=forward, whole=forward + b"\r\n", unchanged=False)

    def route(self, head: RequestHead) -> str:
        """What the request's cookie names; empty without one."""
        return cookie(head, self._name).decode("latin-1")
