"""
What the variables of the configuration stand for in a request.

The syntax is L{dynbalance.config.template}'s.  Knows requests and where they
came from; refuses to know what the texts are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dynbalance.config.template import Variable, parse_template
from dynbalance.http.routes import bare_host

if TYPE_CHECKING:
    from dynbalance.http.forwarded import Origin
    from dynbalance.http.request import RequestHead

Value = Callable[["RequestHead", "Origin"], bytes]
"""What a variable stands for; empty where the request has nothing of it."""


class Template:
    """
    A text with variables, ready to be filled in for many requests.

    @param text: such as C{"$scheme://$host"}.
    @param allowed: the variables that it may hold.
    """

    __slots__ = ("_pieces", "_text")

    def __init__(self, text: str, allowed: tuple[str, ...]) -> None:
        """@raise ValueError: it holds another one."""
        self._text = text
        self._pieces = tuple(
            piece.encode() if isinstance(piece, str) else _value(piece)
            for piece in parse_template(text, allowed)
        )

    def fill(self, head: RequestHead, origin: Origin) -> bytes:
        """The text for one request."""
        return b"".join(
            [
                piece if isinstance(piece, bytes) else piece(head, origin)
                for piece in self._pieces
            ]
        )

    def __repr__(self) -> str:
        return f"<Template {self._text!r}>"


_VALUES: dict[str, Value] = {
    "remote_addr": lambda head, origin: origin.client.encode(),
    "proxy_add_x_forwarded_for": lambda head, origin: origin.forwarded_for,
    "scheme": lambda head, origin: origin.scheme,
    "host": lambda head, origin: bare_host(head.host),
    "request_uri": lambda head, origin: head.target,
}


def _value(variable: Variable) -> Value:
    if not variable.member:
        return _VALUES[variable.name]
    member = variable.member.encode()
    if variable.name == "http":
        field = member.replace(b"_", b"-")
        return lambda head, origin: head.get(field) or b""
    if variable.name == "cookie":
        return lambda head, origin: cookie(head, member)
    return lambda head, origin: _argument(head.target, member)


def cookie(head: RequestHead, name: bytes) -> bytes:
    """
    The value of a request's first cookie of that name, as it was sent; empty
    when there is none.
    """
    for field, value in head.fields:
        if field == b"cookie":
            for pair in value.split(b";"):
                key, _, content = pair.partition(b"=")
                if key.strip(b" \t") == name:
                    return content.strip(b" \t")
    return b""


def _argument(target: bytes, name: bytes) -> bytes:
    """The first argument of that name, as it was sent, in any case, as nginx has it."""
    for pair in target.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key.lower() == name:
            return value
    return b""
