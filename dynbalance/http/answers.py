"""
The answers that are dynbalance's own: short, plain, and the same each time.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def reason_phrase(status: int) -> str:
    """The standard phrase of a status, or C{"Unknown"}."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


@lru_cache(maxsize=256)
def answer(status: int, minor: int, keep: bool, head_only: bool) -> bytes:
    """
    A whole response.

    @param minor: of the client's HTTP version.
    @param keep: whether the connection stays open.
    @param head_only: the request was HEAD.
    """
    body = f"{status} {reason_phrase(status)}\n".encode()
    return response(status, b"text/plain; charset=utf-8", (), body, minor, keep, head_only)


def response(
    status: int,
    content_type: bytes,
    fields: tuple[tuple[bytes, bytes], ...],
    body: bytes,
    minor: int,
    keep: bool,
    head_only: bool,
) -> bytes:
    """Write a response of our own with any body."""
    lines = [b"HTTP/1.1 %d %b" % (status, reason_phrase(status).encode())]
    if status != HTTPStatus.NOT_MODIFIED:
        # What is not sent again is not described anew (RFC 9110, section 15.4.5).
        lines += [b"Content-Type: " + content_type, b"Content-Length: %d" % len(body)]
    lines += [b"%b: %b" % field for field in fields]
    if not keep:
        lines.append(b"Connection: close")
    elif minor == 0:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)
