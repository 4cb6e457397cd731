"""
The balancer as a resource of twisted.web, to be mounted in any site.

Another door to the same exchange: L{twisted.web} reads the request, HTTP/2
included, and writes the response; what lies between is decided as for
L{dynbalance.http.channel}.  A request is passed on once its body is here, as
twisted.web has it.  Upgrades need the connection itself, which a resource does
not have: asking for one is answered with 501.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from dynbalance.http.answers import reason_phrase
from dynbalance.http.buffered import BufferedExchange
from dynbalance.http.exchange import Exchange
from dynbalance.http.fields import BadMessage
from dynbalance.http.forwarded import Forwarding, Network
from dynbalance.http.front import NoBareSocket
from dynbalance.http.hooked import hooked
from dynbalance.http.request import RequestHead, parse_request
from dynbalance.http.response import ResponseHead
from dynbalance.http.upstream import HttpUpstream

_PIECE = 65536
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"expect"})
"""Fields of a body on its way; ours is a body that has arrived."""


@implementer(IResource)
class ReverseProxyResource(Resource):
    """
    Passes every request at and below its place on to an upstream, with the
    whole path.

    @ivar to: the upstream.
    """

    isLeaf = True

    def __init__(self, to: HttpUpstream, trusted_proxies: Iterable[Network] = ()) -> None:
        """@param trusted_proxies: whose X-Forwarded-For is believed."""
        super().__init__()
        self.to = to
        self._forwarding = Forwarding(trusted_proxies)

    def __repr__(self) -> str:
        return f"<ReverseProxyResource to {self.to.upstream.name}>"

    def render(self, request: IRequest) -> int:
        """
        Begin; the response is written later, or at once for one of our own.
        """
        web: Any = request
        # The server says what its answers are, and who it is.
        web.defaultContentType = None
        web.responseHeaders.removeHeader(b"server")
        size = size_of(web.content)
        try:
            head = parse_request(composed(web, size))
        except BadMessage as bad:
            answer_with(web, bad.status)
            web.finish()
            return NOT_DONE_YET
        limit = self.to.settings.client_max_body_size
        if head.upgrade or size > limit > 0:
            answer_with(web, 501 if head.upgrade else 413)
            web.finish()
        else:
            # The request did not come by the hub, which may have slept.
            self.to.hub.now = self.to.deadlines.now()
            relayed = Relayed(web)
            relayed.start(self._exchange(relayed, head, web), size > 0)
        return NOT_DONE_YET

    def _exchange(self, relayed: Relayed, head: RequestHead, web: Any) -> Exchange:
        """Say what the server gets, and by what it is chosen."""
        peer = getattr(web.getClientAddress(), "host", "") or "127.0.0.1"
        scheme = b"https" if web.isSecure() else b"http"
        origin = self._forwarding.origin(peer, scheme, head.forwarded_for)

        def write(head: RequestHead) -> bytes:
            return head.compose(self.to.host(head, origin), frozenset()) + origin.fields

        if self.to.hook is not None:
            return hooked(relayed, self.to, head, origin, write)
        kind = BufferedExchange if head.length and self.to.spool is not None else Exchange
        exchange = kind(relayed, self.to, head, write(head))
        if self.to.upstream.wants_key:
            exchange.key = self.to.key(head, origin)
        return exchange


@implementer(IPushProducer)
class Relayed(NoBareSocket):
    """
    The front of one exchange: a request of twisted.web, and the producer of
    its response.
    """

    def __init__(self, web: Any) -> None:
        self._web = web
        self._exchange: Exchange | None = None
        self._paused = False
        self._feeding = False
        self._aborted = False

    def start(self, exchange: Exchange, has_body: bool) -> None:
        self._exchange = exchange
        self._web.notifyFinish().addErrback(self._gone)
        self._web.registerProducer(self, True)
        if has_body:
            self._feed()
        exchange.start()

    def _gone(self, reason: Failure) -> None:
        self._aborted = True
        if self._exchange is not None:
            self._exchange.client_gone()

    # The request's body

    def _feed(self) -> None:
        """Hand the body on, as far as it is taken."""
        if self._feeding:
            # Called back from the loop below.
            return
        self._feeding = True
        while self._exchange is not None and not self._paused:
            data = self._web.content.read(_PIECE)
            if not data:
                # Nothing is left to be fed, ever.
                self._exchange.body_ended()
                return
            self._exchange.body(data)
        self._feeding = False

    def ends(self) -> tuple[Any, Any]:
        return self._web.getClientAddress(), self._web.getHost()

    def request_wanted(self) -> None:
        """The body is here already."""

    def pause_request(self) -> None:
        self._paused = True

    def resume_request(self) -> None:
        self._paused = False
        self._feed()

    # The response

    def respond(self, head: ResponseHead, length: int, data: bytes, at: int, last: bool) -> None:
        web = self._web
        line, *fields = head.forward.split(b"\r\n")[:-1]
        web.setResponseCode(head.status, line[len(b"HTTP/1.1 200 ") :])
        by_name: dict[bytes, list[bytes]] = {}
        for field in fields:
            name, _, value = field.partition(b":")
            by_name.setdefault(name.lower(), []).append(value.strip(b" \t"))
        for name, values in by_name.items():
            web.responseHeaders.setRawHeaders(name, values)
        # Even an empty body has the head sent.
        web.write(data[at:])

    def response_body(self, data: bytes, last: bool) -> None:
        if data:
            self._web.write(data)

    def informational(self, head: ResponseHead) -> None:
        """twisted.web has no way to send them, and clients can do without."""

    def answer(self, status: int) -> None:
        answer_with(self._web, status)

    def abort(self) -> None:
        self._aborted = True
        channel = self._web.channel
        # A stream of HTTP/2 ends alone; otherwise it is the connection.
        end = getattr(channel, "abortConnection", None) or channel.transport.abortConnection
        end()

    def ended(self) -> None:
        self._exchange = None
        if not self._aborted:
            self._web.unregisterProducer()
            self._web.finish()

    # What twisted.web sees of the response's producer

    def pauseProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_response()

    def resumeProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_response()

    def stopProducing(self) -> None:
        """The client is going; C{notifyFinish} says so, too."""


def size_of(content: Any) -> int:
    """Bytes of a body, which is left at its beginning."""
    size: int = content.seek(0, 2)
    content.seek(0)
    return size


def composed(web: Any, size: int) -> bytes:
    """
    The head of a request, written anew to be read like any other.

    @param size: of its body.
    """
    # HTTP/2 is told like HTTP/1.1: all that differs is how it came.
    version = b"HTTP/1.0" if web.clientproto == b"HTTP/1.0" else b"HTTP/1.1"
    lines = [b"%b %b %b" % (web.method, web.uri, version)]
    for name, values in web.requestHeaders.getAllRawHeaders():
        if name.lower() not in _FRAMING:
            lines += [name + b": " + value for value in values]
    if size:
        lines.append(b"Content-Length: %d" % size)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def answer_with(web: Any, status: int) -> None:
    """An answer of our own; C{finish} is left to the caller."""
    phrase = reason_phrase(status)
    body = f"{status} {phrase}\n".encode()
    web.setResponseCode(status, phrase.encode())
    web.setHeader(b"content-type", b"text/plain; charset=utf-8")
    web.setHeader(b"content-length", b"%d" % len(body))
    web.write(body)
