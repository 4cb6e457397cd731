"""
The client's side of an exchange, whatever the client's protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dynbalance.http.response import ResponseHead
    from dynbalance.net.transport import ServerTransport


class Front(Protocol):
    """The client's side of an exchange."""

    def respond(
        self, head: ResponseHead, length: int, data: bytes, at: int, last: bool
    ) -> None:
        """
        The response begins.

        @param length: of the body that follows, or C{CHUNKED} or
            C{UNTIL_CLOSE}.
        @param data: body from C{at} on.  While the length is known, what
            stands before C{at} is the head as the server sent it.
        @param last: that is all of the body.
        """

    def response_body(self, data: bytes, last: bool) -> None:
        """More of the body."""

    def bulk_target(self) -> ServerTransport | None:
        """
        @return: where more of the body may be written beside this; C{None}
            where it has to be told by L{response_body}.
        """

    def passed(self, size: int) -> None:
        """So many bytes of the body were, or soon will be, written there."""

    def informational(self, head: ResponseHead) -> None:
        """A 1xx response."""

    def ends(self) -> tuple[Any, Any]:
        """
        Where the client's connection comes from and where it came to, as
        L{IAddress}es.
        """

    def request_wanted(self) -> None:
        """The server is reached: a client that waits for 100 may go on."""

    def answer(self, status: int) -> None:
        """There will be no response: answer with one of our own."""

    def abort(self) -> None:
        """The response broke off; the client must notice."""

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        """The server switched protocols; from now on there are only bytes."""

    def tunnel_data(self, data: bytes) -> None:
        """Bytes of the new protocol."""

    def tunnel_closed(self) -> None:
        """The server ended it."""

    def ended(self) -> None:
        """The exchange is over; it is the last call."""

    def pause_request(self) -> None:
        """Send no more of the request's body for now."""

    def resume_request(self) -> None:
        """Send on."""


class NoBareSocket:
    """
    Of fronts whose clients have something between them and the socket.

    They cannot switch protocols: an upgrade is refused before an exchange
    begins, and a server cannot switch unasked.
    """

    __slots__ = ()

    def bulk_target(self) -> None:
        """Nothing goes beside."""

    def passed(self, size: int) -> None:
        raise AssertionError("nothing goes beside")

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        raise AssertionError("no upgrade was asked for")

    def tunnel_data(self, data: bytes) -> None:
        raise AssertionError("there is no tunnel")

    def tunnel_closed(self) -> None:
        raise AssertionError("there is no tunnel")


class Attempt:
    """
    For the access log: what became of one try.

    @ivar status: of the response; 0 for none.
    @ivar cause: why it failed; empty when it did not.
    """

    __slots__ = ("begun", "cause", "connected", "ended", "header", "server", "status")

    def __init__(self, server: str, now: float) -> None:
        self.server = server
        self.begun = now
        self.connected: float | None = None
        self.header: float | None = None
        self.ended: float | None = None
        self.status = 0
        self.cause = ""
