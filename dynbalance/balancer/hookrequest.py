"""
What a balancer hook sees of the request or connection that needs a server.

Knows how a request may be changed without becoming two, and how its head is
written down again; refuses to know who reads that, and the connection itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping

from attrs import frozen

from dynbalance.errors import BalancerError

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")
_URI = re.compile(r"(?:/[\x21-\x7e\x80-\xff]*|\*)\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")

_FRAMING = frozenset({"content-length", "transfer-encoding"})

_FIXED = _FRAMING | {
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
}
"""Fields of the connection and of the message's frame, which a hook only reads."""


class Headers(MutableMapping[str, str]):
    """
    The fields of a request's head, by names in any case.  As a mapping it has
    the first field of each name; a name that is set has one field afterwards.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = list(fields)

    def __getitem__(self, name: str) -> str:
        wanted = name.lower()
        for field, value in self._fields:
            if field.lower() == wanted:
                return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of a name, in their order."""
        wanted = name.lower()
        return [value for field, value in self._fields if field.lower() == wanted]

    def __setitem__(self, name: str, value: str) -> None:
        """
        @raise ValueError: the name is no token, the value would not be one
            line, or the field is not a hook's to change.
        """
        _check_field(name, value)
        wanted = name.lower()
        fields: list[tuple[str, str]] = []
        placed = False
        for field in self._fields:
            if field[0].lower() != wanted:
                fields.append(field)
            elif not placed:
                fields.append((name, value))
                placed = True
        if not placed:
            fields.append((name, value))
        self._fields = fields

    def add(self, name: str, value: str) -> None:
        """
        One more field, also of a name that is there already.

        @raise ValueError: as when it is set.
        """
        _check_field(name, value)
        self._fields.append((name, value))

    def __delitem__(self, name: str) -> None:
        """Take out all fields of a name."""
        if name not in self:
            raise KeyError(name)
        wanted = name.lower()
        _check_free(name)
        self._fields = [field for field in self._fields if field[0].lower() != wanted]

    def fields(self) -> list[tuple[str, str]]:
        """All fields in their order."""
        return list(self._fields)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self._fields))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._fields})

    def __repr__(self) -> str:
        return f"<Headers {' '.join(self)}>"


def _check_field(name: str, value: str) -> None:
    if not _TOKEN.match(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    _check_free(name)
    if not _VALUE.match(value):
        raise ValueError(f"the value of {name!r} is not one line of latin-1 text")


def _check_free(name: str) -> None:
    if name.lower() in _FIXED:
        raise ValueError(f"{name!r} belongs to the connection and cannot be changed")


def _no_body() -> bytes | None:
    return b""


class HttpRequest:
    """
    A request; what is changed here reaches a server after
    C{recreate_request()}.  The same object is seen in all attempts.

    @ivar method: any but that HEAD stays HEAD, and nothing else becomes it.
    @ivar uri: path and query.
    @ivar client: the client's address.
    """

    __slots__ = ("_body", "_fields", "_headers", "_host", "_minor", "_read_body", "_was_head",
                 "client", "method", "uri")

    def __init__(
        self,
        *,
        method: bytes,
        target: bytes,
        fields: Iterable[tuple[bytes, bytes]],
        client: str,
        host: bytes = b"",
        minor: int = 1,
        read_body: Callable[[], bytes | None] = _no_body,
    ) -> None:
        """
        @param target: in origin form, or C{*}.
        @param fields: all of the head as it was received.
        @param host: what the head names as its host: its field may say
            something else, when the target was a whole URL.
        @param minor: of the HTTP version.
        @param read_body: gives the whole body without chunks' frames; C{None}
            when it is not here (not yet, or no longer).
        """
        self.method = method.decode("latin-1")
        self.uri = target.decode("latin-1")
        self.client = client
        self._was_head = method == b"HEAD"
        self._fields = fields
        self._headers: Headers | None = None
        self._host = host
        self._minor = minor
        self._read_body = read_body
        self._body: bytes | None = None

    @property
    def headers(self) -> Headers:
        headers = self._headers
        if headers is None:
            # Many hooks never look at them.
            headers = self._headers = Headers(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in self._fields
            )
            if self._host:
                headers["host"] = self._host.decode("latin-1")
        return headers

    @property
    def body(self) -> bytes | None:
        """The whole body; C{None} when it is not here, and cannot be replaced."""
        return self._read_body() if self._body is None else self._body

    @body.setter
    def body(self, body: bytes) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"the body is a {type(body).__name__} and not bytes")
        if self.body is None:
            raise BalancerError("the whole body of the request is not here to be replaced")
        self._body = body

    @property
    def replaced_body(self) -> bytes | None:
        """What the hook set as the body; C{None} when it is as it was."""
        return self._body

    def head(self) -> bytes:
        """
        The head that the request has now, as a client would send it: with the
        empty line at its end.

        @raise BalancerError: method or URI cannot stand in a request line.
        """
        if not _METHOD.match(self.method):
            raise BalancerError(f"{self.method!r} is not a method")
        if (self.method == "HEAD") != self._was_head:
            # The client reads a body after the answer, or does not.
            raise BalancerError("a HEAD request stays one, and no other becomes one")
        if not _URI.match(self.uri):
            raise BalancerError(f"{self.uri!r} is not a path")
        lines = [f"{self.method} {self.uri} HTTP/1.{self._minor}"]
        body = self._body
        lines += [
            f"{name}: {value}"
            for name, value in self.headers.fields()
            if body is None or name.lower() not in _FRAMING
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1")

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.uri} from {self.client}>"


@frozen(slots=True, kw_only=True)
class StreamRequest:
    """
    A connection that wants to be passed on.

    @ivar client: the client's address.
    @ivar local: the address at which it came in.
    @ivar server_name: the name that its TLS ClientHello asks for (SNI);
        C{None} when there is none, or nobody has looked.
    """

    client: str
    client_port: int = 0
    local: str = ""
    local_port: int = 0
    server_name: str | None = None
