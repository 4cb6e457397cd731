"""
What the API answers, and how that looks on the wire.

Knows the envelope; refuses to know what is asked and which front sends it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from dynbalance.errors import DynbalanceError

if TYPE_CHECKING:
    from dynbalance.admin.feed import Stream

Json: TypeAlias = (
    "bool | int | float | str | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"
)

_NOT_MODIFIED = 304

_NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

JSON_TYPE = b"application/json; charset=utf-8"


class Refused(DynbalanceError):
    """
    The request is not carried out, and nothing was changed.

    @ivar status: what HTTP calls it.
    @ivar message: for a person.
    @ivar headers: what else the answer says.
    """

    def __init__(
        self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


@frozen(slots=True)
class Written:
    """JSON that was written already, bit by bit."""

    text: str


@frozen(slots=True)
class Answer:
    """
    An outcome in the API's envelope.

    @ivar status: the HTTP status and the envelope's C{code}.
    @ivar data: C{None} leaves C{data} out.
    @ivar verdict: the envelope's C{status}, which only health has.
    @ivar revision: of the membership that the answer tells; becomes its C{ETag}.
    """

    message: str
    data: Json | Written = None
    status: int = 200
    verdict: str | None = None
    revision: int | None = None


@frozen(slots=True, kw_only=True)
class Reply:
    """
    All that a front sends: the status, the header fields with the length of
    the body among them, and the body, which it leaves out when HEAD asked.

    @ivar stream: what goes on as the body; C{None} for a body that is whole.
    @ivar parts: what follows the body, where all of it together takes long to copy.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    stream: Stream | None = None
    parts: tuple[bytes, ...] = ()


@frozen(slots=True, kw_only=True)
class Page:
    """
    An answer outside the envelope.

    @ivar parts: see L{Reply}; of pages that only the admin listener has.
    """

    content_type: bytes
    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    stream: Stream | None = None
    parts: tuple[bytes, ...] = ()


def etag(revision: int) -> bytes:
    """The revision as the value of a header field."""
    return b'"%d"' % revision


def page(answer: Answer, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Page:
    """
    The answer in compact JSON.  Without a space after the colon: the clients
    that are out there search for C{"code":200}.
    """
    if answer.revision is not None:
        headers = ((b"etag", etag(answer.revision)), *headers)
    if answer.status == _NOT_MODIFIED:
        return Page(content_type=b"", body=b"", status=answer.status, headers=headers)
    envelope: dict[str, Json] = {"code": answer.status, "message": answer.message}
    if answer.verdict is not None:
        envelope["status"] = answer.verdict
    if isinstance(answer.data, Written):
        text = f'{compact(envelope)[:-1]},"data":{answer.data.text}}}'
    else:
        text = compact(envelope if answer.data is None else {**envelope, "data": answer.data})
    return Page(
        content_type=JSON_TYPE, body=text.encode("ascii"), status=answer.status, headers=headers
    )


def compact(value: Json) -> str:
    """
    JSON as the API writes it.

    @raise ValueError: there is a number in it that is none.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def reply(page: Page) -> Reply:
    """The page with the header fields that all pages have."""
    described: tuple[tuple[bytes, bytes], ...] = ((b"content-type", page.content_type),)
    has_policy = any(name == b"content-security-policy" for name, _ in page.headers)
    if page.stream is None:
        length = len(page.body) + sum(map(len, page.parts))
        described += ((b"content-length", b"%d" % length),)
    return Reply(
        status=page.status,
        headers=(
            # What is not sent again is not described anew.
            *(() if page.status == _NOT_MODIFIED else described),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            # What is no page is to be shown as none, and in nobody's frame.
            *(() if has_policy else (_NO_PAGE,)),
            *page.headers,
        ),
        body=page.body,
        stream=page.stream,
        parts=page.parts,
    )
