"""
What a policy goes by: the value of C{hash_key} for a request.

Knows the variables; refuses to know what is done with the key.
"""

from __future__ import annotations

from dynbalance.config.template import KEY_VARIABLES, Variable, parse_template
from dynbalance.http.request import RequestHead
from dynbalance.http.routes import bare_host


class RequestKey:
    """@param text: such as C{"$remote_addr$request_uri"}."""

    def __init__(self, text: str) -> None:
        self._pieces = parse_template(text, KEY_VARIABLES)

    def of(self, head: RequestHead, client: str) -> bytes:
        """
        @param client: the client's address.
        @return: empty when nothing that the key is made of is there.
        """
        return b"".join(
            piece.encode() if isinstance(piece, str) else _value(piece, head, client)
            for piece in self._pieces
        )


def _value(variable: Variable, head: RequestHead, client: str) -> bytes:
    name, member = variable.name, variable.member
    if name == "remote_addr":
        return client.encode()
    if name == "request_uri":
        return head.target
    if name == "host":
        return bare_host(head.host)
    if name == "http":
        return head.get(member.replace("_", "-").encode()) or b""
    if name == "cookie":
        return cookie(head, member.encode())
    return _argument(head.target, member.encode())


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
