"""
The corpus as values.

Texts stand for bytes, each character for the byte with its number (Latin-1),
so that a file says exactly what is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from attrs import field, frozen

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HERE = Path(__file__).parent
OPEN, CLOSED, WAITS = "open", "closed", "waits"


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


@frozen
class Asked:
    """
    A request as a server got it.

    @ivar fields: names in lower case and values.
    """

    method: bytes
    target: bytes
    body: bytes
    fields: tuple[tuple[bytes, bytes], ...] = field(default=(), eq=False)


@frozen(kw_only=True)
class RequestCase:
    """
    What a client sends, and what becomes of it.

    @ivar rfc: where it is said; C{-} where no RFC says it.
    @ivar why: what is said there.
    @ivar methods: of its requests, in this order; the last one holds for all
        that follow.
    @ivar answers: the statuses of what the client gets, 1xx included.
    @ivar seen: what the server gets.
    @ivar end: whether the connection is C{open} for more, C{closed}, or
        C{waits} for the rest of a message.
    @ivar absent: names of fields that the server must not see.
    @ivar present: lines that it must see.
    @ivar http: options of the listener.
    """

    name: str
    rfc: str
    why: str
    sent: bytes
    methods: tuple[str, ...] = ("GET",)
    answers: tuple[int, ...] = ()
    seen: tuple[Asked, ...] = ()
    end: str = CLOSED
    absent: tuple[bytes, ...] = ()
    present: tuple[bytes, ...] = ()
    http: dict[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, table: dict[str, Any]) -> RequestCase:
        sent = _bytes(table.pop("sent"))
        repeated, times = table.pop("repeat", ["", 0])
        return cls(
            sent=sent.replace(b"REPEAT", _bytes(repeated) * times),
            methods=tuple(table.pop("methods", ("GET",))),
            answers=tuple(table.pop("answers", ())),
            seen=tuple(Asked(*map(_bytes, each)) for each in table.pop("seen", ())),
            absent=tuple(map(_bytes, table.pop("absent", ()))),
            present=tuple(map(_bytes, table.pop("present", ()))),
            **table,
        )


@frozen(kw_only=True)
class ResponseCase:
    """
    What a server answers, and what its client gets.

    @ivar rfc: as L{RequestCase}'s, and so is C{why}.
    @ivar request: what the client asks.
    @ivar then: the server C{keep}s the connection open, or C{close}s it.
    @ivar status: of what the client gets.
    @ivar body: likewise.
    @ivar whole: whether the client gets all that was announced to it.
    @ivar informed: the statuses that come before it.
    @ivar reused: whether the connection to the server gets another request.
    @ivar absent: names of fields that the client must not see.
    """

    name: str
    rfc: str
    why: str
    sent: bytes
    request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    then: str = "keep"
    status: int = 502
    body: bytes = b"502 Bad Gateway\n"
    whole: bool = True
    informed: tuple[int, ...] = ()
    reused: bool = False
    absent: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, table: dict[str, Any]) -> ResponseCase:
        repeated, times = table.pop("repeat", ["", 0])
        for name in ("sent", "request", "body"):
            if name in table:
                table[name] = _bytes(table[name]).replace(b"REPEAT", _bytes(repeated) * times)
        return cls(
            informed=tuple(table.pop("informed", ())),
            absent=tuple(map(_bytes, table.pop("absent", ()))),
            **table,
        )


@frozen(kw_only=True)
class FieldsCase:
    """
    What a client of HTTP/2 sends in one stream.

    @ivar rfc: as L{RequestCase}'s, and so is C{why}.
    @ivar fields: of its head, as they are sent.
    @ivar body: C{None} for none.
    @ivar trailers: of its end.
    @ivar verdict: a status, C{reset} for the end of the stream, or C{over} for
        that of the connection.
    @ivar seen: what the server gets.
    @ivar absent: as L{RequestCase}'s.
    """

    name: str
    rfc: str
    why: str
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes | None = None
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    verdict: str = "400"
    seen: Asked | None = None
    absent: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, table: dict[str, Any]) -> FieldsCase:
        seen = table.pop("seen", None)
        return cls(
            fields=_pairs(table.pop("fields")),
            body=_bytes(table.pop("body")) if "body" in table else None,
            trailers=_pairs(table.pop("trailers", ())),
            seen=seen and Asked(*map(_bytes, seen)),
            absent=tuple(map(_bytes, table.pop("absent", ()))),
            **table,
        )


def _pairs(lists: list[list[str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((_bytes(name), _bytes(value)) for name, value in lists)


def document(name: str) -> dict[str, Any]:
    """A file of the corpus."""
    return tomllib.loads((_HERE / name).read_text())


def _tables(name: str) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = document(name)["case"]
    return tables


REQUESTS = tuple(map(RequestCase.of, _tables("requests.toml")))
RESPONSES = tuple(map(ResponseCase.of, _tables("responses.toml")))
STREAMS = tuple(map(FieldsCase.of, _tables("streams.toml")))
