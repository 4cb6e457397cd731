"""
The head of a request: read once, strictly, and kept ready to be passed on.

Pure.  The same bytes always give the same L{RequestHead}, so heads that a
client repeats (as kept-alive clients do) are read from a small cache.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from dynbalance.http.fields import (
    HOP_BY_HOP,
    BadMessage,
    Field,
    content_length,
    read_request_fields,
    split_lines,
    tokens,
)

_START = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])\Z"
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)\Z", re.DOTALL)
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{1,5})?\Z"
)
_ONCE = frozenset(
    {
        b"host",
        b"expect",
        b"authorization",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
    }
)
"""Fields that nginx refuses to see twice."""

_OURS = frozenset(
    {b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto", b"content-length", b"expect", b"host"}
)
"""Fields that are written anew; the rest is passed on as it came."""

_BROKEN = re.compile(rb"(?:^|[^\r])\n|\r[^\n]|\x00")
_KEPT = 2048


@frozen(slots=True, kw_only=True)
class RequestHead:
    """
    A request without its body.

    @ivar target: in origin form (or C{*}), as the server will get it.
    @ivar host: of the Host field or of an absolute target; may be empty in
        HTTP/1.0.
    @ivar minor: 0 for HTTP/1.0, 1 for HTTP/1.1.
    @ivar fields: all of them, in their order.
    @ivar length: bytes of the body; 0 for none; -1 when it is chunked.
    @ivar keep_alive: whether the client wants the connection to stay.
    @ivar expect: the client waits for 100 (RFC 9110 section 10.1.1).
    @ivar upgrade: the protocols it asks for properly, or empty.  It may be
        ignored (RFC 9110 section 7.8), and is in a request with a body: not
        all servers agree whether that is still HTTP.
    @ivar forwarded_for: what X-Forwarded-For said, joined by comma.
    @ivar kept: name and whole line of each field that is passed on as it is.
    @ivar forward: the start of the request to the server: request line, Host,
        the kept lines and the framing, without the closing empty line.
    @ivar block: all of it, as it came; empty if that was long.
    """

    method: bytes
    target: bytes
    host: bytes
    minor: int
    fields: tuple[Field, ...]
    length: int
    keep_alive: bool
    expect: bool
    upgrade: bytes
    forwarded_for: bytes
    kept: tuple[Field, ...]
    forward: bytes
    block: bytes

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    def get(self, name: bytes) -> bytes | None:
        """@return: the first field C{name} (in lower case)."""
        for field, value in self.fields:
            if field == name:
                return value
        return None

    def compose(self, host: bytes, without: frozenset[bytes]) -> bytes:
        """
        As L{forward}, with another Host and without some fields.

        @param host: empty for none.
        @param without: names in lower case.
        """
        return compose(
            self.method,
            self.target,
            b"" if b"host" in without else host,
            [line for name, line in self.kept if name not in without],
            self.length,
            self.upgrade,
        )


def compose(
    method: bytes, target: bytes, host: bytes, lines: list[bytes], length: int, upgrade: bytes
) -> bytes:
    """Write the start of a request to a server; all lines but the empty one."""
    head = [b"%b %b HTTP/1.1" % (method, target)]
    if host:
        head.append(b"Host: " + host)
    head += lines
    if length < 0:
        head.append(b"Transfer-Encoding: chunked")
    elif length or method in (b"POST", b"PUT", b"PATCH"):
        head.append(b"Content-Length: %d" % length)
    if upgrade:
        head.append(b"Connection: upgrade\r\nUpgrade: " + upgrade)
    head.append(b"")
    return b"\r\n".join(head)


def parse_request(block: bytes) -> RequestHead:
    """
    @param block: a head with the empty line at its end, and no more.
    @raise BadMessage: with the status to answer.
    """
    return _remembered(block) if len(block) <= _KEPT else _parse(block)


def is_hopeless(data: bytes) -> bool:
    """
    Whether no more bytes can make a head of the beginning C{data}: then there
    is no use in waiting for its end.
    """
    if _BROKEN.search(data):
        return True
    line, ended, _ = data.partition(b"\r\n")
    return bool(ended) and _START.match(line) is None


def _parse(block: bytes) -> RequestHead:
    lines = split_lines(block)
    start = _START.match(lines[0])
    if start is None:
        raise BadMessage("malformed request line")
    method, target, major, minor_digit = start.groups()
    if major != b"1":
        raise BadMessage("HTTP version not supported", 505)
    minor = 1 if minor_digit != b"0" else 0
    fields = read_request_fields(block[len(lines[0]) + 2 :], len(lines) - 1)

    seen: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in seen:
            if name in _ONCE:
                raise BadMessage(f"duplicate {name.decode()}")
            seen[name].append(value)
        else:
            seen[name] = [value]

    length = _framing(seen, minor)
    target, host = _target_and_host(method, target, seen, minor)
    connection = tokens(seen.get(b"connection", []))
    keep_alive = b"close" not in connection and (minor == 1 or b"keep-alive" in connection)
    upgrade = b""
    if b"upgrade" in seen and b"upgrade" in connection and minor == 1 and not length:
        upgrade = _upgrade(seen[b"upgrade"])
    dropped = HOP_BY_HOP.union(connection)
    kept = tuple(
        (name, line)
        for (name, _), line in zip(fields, lines[1:], strict=True)
        if name not in _OURS and name not in dropped
    )
    return RequestHead(
        method=method,
        target=target,
        host=host,
        minor=minor,
        fields=tuple(fields),
        length=length,
        keep_alive=keep_alive,
        expect=minor == 1 and _expects_continue(seen),
        upgrade=upgrade,
        forwarded_for=b", ".join(seen.get(b"x-forwarded-for", [])),
        kept=kept,
        forward=compose(method, target, host, [line for _, line in kept], length, upgrade),
        block=block if len(block) <= _KEPT else b"",
    )


_remembered = lru_cache(maxsize=1024)(_parse)


def _framing(seen: dict[bytes, list[bytes]], minor: int) -> int:
    length = content_length(seen.get(b"content-length", []))
    codings = seen.get(b"transfer-encoding")
    if codings is None:
        return length or 0
    if length is not None:
        raise BadMessage("both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise BadMessage("Transfer-Encoding in HTTP/1.0")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise BadMessage("unknown transfer coding", 501)
    return -1


def _target_and_host(
    method: bytes, target: bytes, seen: dict[bytes, list[bytes]], minor: int
) -> tuple[bytes, bytes]:
    """RFC 9112 section 3.2: the forms of a target, and the Host they need."""
    if method in (b"CONNECT", b"TRACE"):
        raise BadMessage(f"{method.decode()} is not allowed", 405)
    hosts = seen.get(b"host")
    if hosts is None and minor == 1:
        raise BadMessage("no Host")
    host = hosts[0] if hosts else b""
    if hosts and not _HOST.match(host):
        raise BadMessage("bad Host")
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None or not _HOST.match(absolute[1]):
            raise BadMessage("malformed target")
        host, target = absolute[1], absolute[2]
        if not target and method == b"OPTIONS":
            # RFC 9112 section 3.2.4.
            target = b"*"
        elif not target.startswith(b"/"):
            target = b"/" + target
    if b"#" in target:
        raise BadMessage("a fragment in the target")
    return target, host


def _upgrade(values: list[bytes]) -> bytes:
    """
    The protocols to ask the server for.

    Not h2c: the answer to the request itself would come in frames that nobody
    here reads, past all routes and limits (RFC 9113 does without it, too).
    """
    protocols = [protocol.strip(b" \t") for value in values for protocol in value.split(b",")]
    return b", ".join(name for name in protocols if name and name.lower() != b"h2c")


def _expects_continue(seen: dict[bytes, list[bytes]]) -> bool:
    expect = seen.get(b"expect")
    if expect is None:
        return False
    if expect[0].lower() != b"100-continue":
        raise BadMessage("unknown expectation", 417)
    return True


def without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: empty lines before a request mean nothing."""
    at = 0
    while data.startswith(b"\r\n", at):
        at += 2
    return data[at:]
