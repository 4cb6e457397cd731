"""
What holds for each parser whatever it is given.

A target takes bytes and ends without a word, or raises: an exception that the
parser is not said to raise, or an AssertionError where its answer cannot be
right.  Chance, time and whoever makes the bytes are elsewhere.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from io import BytesIO
from random import Random

from attrs import frozen
from hpack import Decoder, HPACKError
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from dynbalance.admin import parameters
from dynbalance.admin.answers import Refused
from dynbalance.admin.credentials import Password, Unreadable, credentials_of
from dynbalance.admin.document import Reading
from dynbalance.admin.fields import gather
from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.configfile import build, document_of, parse
from dynbalance.errors import BadAddress, ConfigError
from dynbalance.http.chunked import LAST, ChunkedDecoder, chunk
from dynbalance.http.fields import MAX_FIELDS, BadMessage
from dynbalance.http.http2fields import request_block, response_fields
from dynbalance.http.http2frames import PREFACE, BadFrames, FrameReader
from dynbalance.http.request import compose, is_hopeless, parse_request
from dynbalance.http.response import UNTIL_CLOSE, parse_response
from dynbalance.net.clienthello import MAX_HELLO, NotTls, read_hello
from dynbalance.net.proxyprotocol import PrefaceReader, header
from dynbalance.store import codec, serverjson, snapshotfile
from dynbalance.store.contract import ServerRecord
from dynbalance.store.reading import Reading as SnapshotReading
from tests.fuzz import connections
from tests.http.test_readings import (
    Reading as Message,
)
from tests.http.test_readings import (
    cut_body,
    our_reading,
    reading_of_h11,
    reading_of_llhttp,
    response_of_h11,
)
from tests.net.prefacing import outcome

SUFFIX = b"X-Real-IP: 192.0.2.1\r\n\r\n"


def _pieces(data: bytes) -> list[bytes]:
    """C{data} in pieces that it chooses itself."""
    chance, pieces, at = Random(data), [], 0
    while at < len(data):
        end = at + chance.choice((1, 1, 2, 3, 7, 64, 4096))
        pieces.append(data[at:end])
        at = end
    return pieces


# HTTP/1.1


def request(data: bytes) -> None:
    """Whoever reads a request reads ours, or none; what is passed on is one request."""
    end = data.find(b"\r\n\r\n") + 4
    if end >= 4:
        try:
            head = parse_request(data[:end])
        except BadMessage as bad:
            assert 400 <= bad.status < 600, bad
        else:
            assert not any(map(is_hopeless, (data[: end // 2], data[:end]))), data
            # What we add may be one line too many for ourselves.
            lines = [line for _, line in head.kept[: MAX_FIELDS - 8]]
            host = head.host or b"h"
            start = (head.method, head.target, host, lines, head.length, head.upgrade)
            sent = compose(*start) + SUFFIX
            again = parse_request(sent)
            assert (again.method, again.target, again.length, again.upgrade) == (
                head.method, head.target, head.length, head.upgrade,
            ), sent  # fmt: skip
            assert [line for _, line in again.kept] == lines, sent
    ours = our_reading(data)
    if ours is not None:
        for theirs in (reading_of_h11(data), reading_of_llhttp(data, ours.rest)):
            assert theirs in (None, ours), (theirs, ours)
        _passed_on(data, ours)


def _passed_on(data: bytes, ours: Message) -> None:
    head = parse_request(data[: data.find(b"\r\n\r\n") + 4])
    if len(head.fields) > MAX_FIELDS - 8:
        return
    body = ours.body
    if head.length < 0:
        body = (chunk(body) if body else b"") + LAST
    sent = (head.forward if head.host else head.compose(b"h", frozenset())) + SUFFIX + body
    meant = Message(head.method, head.target, ours.body, b"")
    assert our_reading(sent) == meant, sent
    theirs = reading_of_h11(sent)
    assert theirs == meant or (theirs is None and any(byte > 0x7F for byte in head.target)), sent
    assert reading_of_llhttp(sent, b"") in (meant, None), sent


def response(data: bytes) -> None:
    """Likewise of responses."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return
    try:
        head = parse_response(data[:end])
        length = 0 if head.bodyless else head.length
        cut = (data[end:], b"") if length == UNTIL_CLOSE else cut_body(length, data[end:])
    except BadMessage:
        return
    for name, value in response_fields(head.status, head.forward):
        assert not set(b"\r\n\0") & set(name + value), head.forward
    again = parse_response(head.whole)
    assert again.status == head.status
    if cut is None or head.status < 200:
        return
    body, rest = cut
    assert response_of_h11(data) in (None, (head.status, body, rest)), data
    if length >= 0:
        sent = head.whole + body
    else:
        sent = head.forward + b"Transfer-Encoding: chunked\r\n\r\n"
        sent += (chunk(body) if body else b"") + LAST
    # h11 knows no statuses from 600 on.
    theirs = response_of_h11(sent)
    assert theirs == (head.status, body, b"") or (theirs is None and head.status > 599), sent


def chunked(data: bytes) -> None:
    """A chunked body is the same in any pieces, and never longer than what came."""

    def outcome(pieces: list[bytes]) -> tuple[bytes, int, bool] | str:
        decoder, payload, used = ChunkedDecoder(), b"", 0
        try:
            for piece in pieces:
                got, taken = decoder.feed(piece)
                payload += got
                used += taken
                if decoder.done:
                    break
                assert taken == len(piece)
        except BadMessage:
            return "refused"
        return payload, used, decoder.done

    whole = outcome([data])
    assert outcome(_pieces(data)) == whole
    if not isinstance(whole, str):
        payload, used, done = whole
        assert len(payload) <= used <= len(data)
        if done:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            theirs = reading_of_h11(head + data)
            if theirs is not None:
                assert (theirs.body, theirs.rest) == (payload, data[used:])


# HTTP/2


def http2_fields(data: bytes) -> None:
    """The fields of a stream become one head of HTTP/1.1 that says the same."""
    try:
        fields = [(bytes(name), bytes(value)) for name, value in Decoder().decode(data, raw=True)]
    except (HPACKError, OverflowError, IndexError, UnicodeDecodeError):
        return
    for has_body in (False, True):
        try:
            block = request_block(fields, has_body)
            head = parse_request(block)
        except BadMessage:
            continue
        assert block.find(b"\r\n\r\n") + 4 == len(block), block
        said = dict(fields)
        assert head.method == said[b":method"], block
        assert (head.length != 0) <= has_body, block
        assert said.get(b":path", b"").endswith(head.target.lstrip(b"/")), block
        # The start of it, and Host; the rest is there line by line.
        plain = [name for name, _ in fields if not name.startswith(b":") and name != b"host"]
        assert len(head.fields) <= len(plain) + 2, block


def http2_frames(data: bytes) -> None:
    """Frames are cut at the same places, however they come."""

    def outcome(pieces: list[bytes]) -> tuple[list[bytes], str]:
        reader, frames = FrameReader(4096, lambda: 0.0), []
        try:
            for piece in pieces:
                for frame in reader.feed(piece):
                    frames.append(frame.whole)  # noqa: PERF401 - those before a bad one count
        except BadFrames as bad:
            return frames, str(bad)
        return frames, ""

    data = PREFACE + data
    whole = outcome([data])
    assert outcome(_pieces(data)) == whole
    assert data[len(PREFACE) :].startswith(b"".join(whole[0]))


# Whole connections


def http1_client(data: bytes) -> None:
    connections.http1_client(data, _pieces(data))


def http2_client(data: bytes) -> None:
    connections.http2_client(data, _pieces(data))


def server(data: bytes) -> None:
    connections.server(data, _pieces(data))


# What comes before a connection's own bytes


def proxy(data: bytes) -> None:
    """A PROXY header is the same in any pieces, and Twisted's parsers read no other one."""
    whole, cut = outcome([data]), outcome(_pieces(data))
    # With which words it is refused may depend on the pieces.
    assert cut == whole or (isinstance(cut, str) and isinstance(whole, str))
    if not isinstance(whole, tuple):
        return
    source, destination, rest = whole
    assert data.endswith(rest)
    used = data[: len(data) - len(rest)]
    theirs = _ends_by_twisted(used)
    if theirs is not None and source is not None:
        assert _ends(source, destination) == theirs, data
    for version in (1, 2):
        if getattr(source, "port", None) is not None:
            again = PrefaceReader().feed(header(version, source, destination))
            assert again is not None and again.rest == b""
            assert again.source is not None and again.source.port == source.port


def _ends(*places: object) -> list[tuple[object, int]]:
    return [
        (ipaddress.ip_address(place.host), place.port)
        for place in places
        if hasattr(place, "port")
    ]


def _ends_by_twisted(used: bytes) -> list[tuple[object, int]] | None:
    parser = V1Parser if used.startswith(b"PROXY") else V2Parser
    line = used[:-2] if parser is V1Parser else used
    try:
        info = parser.parse(line)
        return _ends(info.source, info.destination)
    except (InvalidProxyHeader, ValueError):
        return None


_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_TLS.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED


def name_by_openssl(data: bytes) -> str | None:
    """
    @return: the server that OpenSSL finds named; empty for none; C{None} where
        it does not come so far.
    """
    heard: list[str] = []

    def asked(_: object, name: str | None, __: object) -> int:
        heard.append(name or "")
        return ssl.ALERT_DESCRIPTION_ACCESS_DENIED

    _TLS.sni_callback = asked
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with suppress(ssl.SSLError):
        _TLS.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    return heard[0].lower() if heard else None


def hello(data: bytes) -> None:
    """The answer to a ClientHello stays, and OpenSSL finds the same name."""

    def answer(part: bytes) -> object:
        try:
            return read_hello(part)
        except NotTls:
            return NotTls

    data = data[:MAX_HELLO]
    whole, at = answer(data), 0
    for piece in _pieces(data):
        at += len(piece)
        part = answer(data[:at])
        assert part in (None, whole), (part, whole)
    if whole is not None and whole is not NotTls:
        assert name_by_openssl(data) in (None, whole.server_name), whole


# Text


def config(data: bytes) -> None:
    """A file is a configuration, which can be written again, or a list of mistakes."""
    try:
        made = parse(data.decode("utf-8", "replace"))
    except ConfigError as error:
        assert error.problems and "\n" not in "".join(error.problems), error.problems
        return
    assert build(document_of(made)) == made


_BALANCER = Balancer([UpstreamOrder(name="default")], lambda: 0.0, Random(1).random)
_KINDS = (None, b"application/json", b"application/x-www-form-urlencoded", b"text/plain")
_PARAMETERS = [each for each in vars(parameters).values() if isinstance(each, parameters.Parameter)]


def admin_fields(data: bytes) -> None:
    """Fields of the API have meanings, or are refused in words that can be sent."""
    kind = _KINDS[data[0] % 4] if data else None
    query, _, body = data[1:].partition(b"\n\n")
    try:
        fields = gather(query, body, kind, ("data",), ("header",))
        for parameter in _PARAMETERS:
            if parameter.name in fields:
                _admin_field(parameter, fields[parameter.name])
        Address.of(fields.get("host", "a"), 80)
    except Refused as refused:
        assert 400 <= refused.status < 500
        json.dumps(refused.message).encode("ascii")
    except BadAddress as bad:
        json.dumps(str(bad)).encode("ascii")


def _admin_field(parameter: parameters.Parameter[object], text: str) -> None:
    try:
        value = parameter.read(text)
    except Refused as refused:
        assert refused.status == 400
        return
    if parameter is parameters.DATA:
        _document(value)


def _document(value: object) -> None:
    reading = Reading(value, _BALANCER, "")
    for mistake in reading.mistakes:
        json.dumps(mistake).encode("ascii")
    for edits in reading.edits.values():
        for edit in edits.values():
            # So it goes to the store.
            " ".join(codec.edit_words(edit)).encode()


def admin_document(data: bytes) -> None:
    """A backup is understood, or refused with a line for each mistake."""
    try:
        value = parameters.DATA.read(data.decode("utf-8", "replace"))
    except Refused:
        return
    _document(value)


def credentials(data: bytes) -> None:
    """Credentials are understood, and then not shown, or they are not."""
    try:
        shown = credentials_of(data)
    except Unreadable:
        return
    if isinstance(shown, Password):
        assert repr(shown) == f"Password(name={shown.name!r})"
    else:
        assert repr(shown) == "Token()"


# The store


def store_server(data: bytes) -> None:
    """What anybody wrote of one server is read, and hides no other's."""
    meta, _, beat = data.partition(b"\n\n")
    good = serverjson.record_text(serverjson.server("10.0.0.1:80", (b"{}", None, None))).encode()
    metas = [b"10.0.0.1:80", good, b"10.0.0.2:80", meta, beat, good]
    beats = [b"10.0.0.1:80", b"1", b"10.0.0.2:80", beat]
    found = [b"10.0.0.1:80", meta]
    reply = [b"7", b"1.5", metas, beats, [b"10.0.0.1:80", b"2"], found, b"e"]
    reading = SnapshotReading()
    for _ in reading.pieces(reply):
        pass
    servers = reading.snapshot.servers
    assert "10.0.0.1:80" in {record.order.address for record in servers}, reading.broken
    for record in servers:
        _written_again(record)


def _written_again(record: ServerRecord) -> None:
    meta = serverjson.record_text(record).encode()
    if b"\\ud" in meta:
        # Halves of characters, and bytes that are none, may become one.
        return
    beat = None if record.last_heartbeat is None else repr(record.last_heartbeat).encode()
    count = str(record.connections).encode()
    assert serverjson.server(record.order.address, (meta, beat, count)) == record, meta


def _opened(content: bytes, *_: object) -> BytesIO:
    return BytesIO(content)


def snapshot_file(data: bytes) -> None:
    """A file of a snapshot is read or refused, also when its checksum is right."""
    last = b'{"sha256":"%b"}\n' % sha256(data + b"\n").hexdigest().encode()
    for content in (data, data + b"\n" + last):
        # Nothing but the reading counts here.
        snapshotfile.open = partial(_opened, content)  # type: ignore[attr-defined]
        try:
            snapshotfile.read("-", None)
        except snapshotfile.SnapshotRefused as refused:
            json.dumps(str(refused)).encode("ascii")
        finally:
            del snapshotfile.open  # type: ignore[attr-defined]


@frozen
class Target:
    """
    @ivar run: takes bytes.
    @ivar words: what is worth saying to it, for a fuzzer's dictionary.
    """

    run: Callable[[bytes], None]
    words: Sequence[bytes] = ()


_HTTP_WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"HTTP/1.1", b"HTTP/1.0",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: ", b"Upgrade: x\r\n",
    b"Host: a\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"POST / ", b"http://a/", b"OPTIONS * ",
    b"chunked", b"Expect: 100-continue\r\n", b";x=y", b"\x85", b"\xff",
)  # fmt: skip
_JSON_WORDS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"1e999", b"NaN", b"-1", b"1.5",
    b'"\\ud800"', b'"host"', b'"port"', b'"weight"', b'"upstreams"', b'"servers"', b'"addr"',
    b'"format":"dynbalance-1"', b'"created_at"', b'"intent"', b'"data"', b"[" * 3000,
    b"9" * 400, b"9" * 5000,
)  # fmt: skip

TARGETS = {
    "request": Target(request, _HTTP_WORDS),
    "response": Target(response, _HTTP_WORDS),
    "chunked": Target(chunked, _HTTP_WORDS),
    "http2_fields": Target(http2_fields),
    "http2_frames": Target(http2_frames),
    "http1_client": Target(http1_client, _HTTP_WORDS),
    "http2_client": Target(http2_client),
    "server": Target(server, _HTTP_WORDS),
    "proxy": Target(
        proxy, (b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"::1", b"1.2.3.4", b" 80", b"\r\n")
    ),
    "hello": Target(hello, (b"\0\0", b"\x16\x03\x01", b"\0\x0e\0\0\x0b", b"a.example")),
    "config": Target(
        config,
        (
            b"[[http]]\n", b"[[stream]]\n", b"[upstreams.a]\n", b"listen = ", b'"tcp:80"', b"= [",
            b"servers = [{address = ", b"tls = {", b"[store]\n", b'url = "redis://', b"inf", b"nan",
            b"routes = [{", b"[admin]\n", b"sticky = {", b'health_check = {type = "http"}',
        ),
    ),
    "admin_fields": Target(admin_fields, (*_JSON_WORDS, b"host=", b"port=", b"&", b"%ff", b"\n\n")),
    "admin_document": Target(admin_document, _JSON_WORDS),
    "credentials": Target(credentials, (b"Basic ", b"Bearer ", b"=", b"Og==", b"\xff")),
    "store_server": Target(store_server, (*_JSON_WORDS, b"\n\n", b"inf", b"nan", b"1_0")),
    "snapshot_file": Target(snapshot_file, (*_JSON_WORDS, b"\n", b'"unhealthy"', b'"era"')),
}  # fmt: skip
