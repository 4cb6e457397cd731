"""
Bytes to begin with, for each target: messages that are right, or nearly so.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hpack import Encoder

import dynbalance
from dynbalance.store import serverjson, snapshotfile
from dynbalance.store.contract import Snapshot
from tests.hostile.corpus import REQUESTS, RESPONSES, STREAMS
from tests.hostile.openings import HELLOS, PREFACES
from tests.hostile.test_streams import frames
from tests.http import test_framing
from tests.net import test_clienthello, test_proxyprotocol

_EXAMPLE = Path(dynbalance.__file__).parents[1] / "etc" / "dynbalance.toml"
_SHORT = 2000
_BODIES = (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n")


def _requests() -> list[bytes]:
    blocks = [each[0] for each in test_framing.ACCEPTED]
    blocks += [each[1] for each in test_framing.REFUSED]
    return [block + _BODIES[at % 4] for at, block in enumerate(blocks) if len(block) < 2000]


def _responses() -> list[bytes]:
    blocks = [each[0] for each in test_framing.ACCEPTED_ANSWERS] + [*test_framing.REFUSED_ANSWERS]
    return [block + _BODIES[at % 4] for at, block in enumerate(blocks) if len(block) < 2000]


def _chunked() -> list[bytes]:
    good = [data for data, _ in test_framing.ChunkedTests.GOOD]
    return [data for data in (*good, *test_framing.ChunkedTests.BAD) if len(data) < 500]


_FIELDS = (
    [(":method", "GET"), (":path", "/a"), (":scheme", "https"), (":authority", "a")],
    [(":method", "POST"), (":path", "/"), (":authority", "a"), ("content-length", "5")],
    [(":method", "CONNECT"), (":authority", "a"), ("host", "a"), ("cookie", "a=b")],
    [(":method", "OPTIONS"), (":path", "*"), ("host", "a"), ("transfer-encoding", "chunked")],
    [(":path", "/\r\nX: y"), (":method", "GET / HTTP/1.1\r\n"), ("x-a:", "b\r\n\r\n")],
)


def _http2_fields() -> list[bytes]:
    return [
        Encoder().encode(fields, huffman=huffman) for fields in _FIELDS for huffman in (True, False)
    ]


def _http2_frames() -> list[bytes]:
    frames = [
        len(block).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + block
        for block in _http2_fields()[:2]
        for kind, flags in ((1, 5), (1, 0), (9, 4), (0, 1))
    ]
    frames += [b"\0\0\0\4\0\0\0\0\0", b"\0\0\4\x03\0\0\0\0\1\0\0\0\0"]
    frames.append(b"\0\0\x08\6\0\0\0\0\0" + b"p" * 8)
    return [*frames, b"".join(frames)]


def _streams() -> list[bytes]:
    return [
        frames(case, Encoder(), continued) for case in STREAMS for continued in (False, True)
    ] + _http2_frames()


def _prefaces() -> list[bytes]:
    cases = [case.sent for case in PREFACES if len(case.sent) < _SHORT]
    return [*test_proxyprotocol.GOOD, *test_proxyprotocol.BROKEN, *cases]


def _hellos() -> list[bytes]:
    t = test_clienthello
    whole = t.message(t.sni(b"a.example"))
    return [
        *map(t.real, ("a.example", "b-c.example", None)),
        t.real("a.example", True),
        t.records(whole),
        t.records(whole, 7),
        t.records(t.message(t.extension(43, b"\x02\x03\x04") + t.sni(b"A.example", kind=0))),
        t.records(t.message(None)),
        *(case.sent for case in HELLOS if len(case.sent) < _SHORT),
    ]


def _configs() -> list[bytes]:
    text = _EXAMPLE.read_bytes()
    tables = [b"[" + table for table in text.split(b"\n[")]
    bare = b"\n".join(line for line in text.splitlines() if not line.startswith(b"#"))
    return [text, bare, *tables, b"workers = 2\n[admin]\nusers = []\n", b""]


def _admin_fields() -> list[bytes]:
    return [
        b"\0upstream=a\n\nhost=10.0.0.1&port=80&weight=2&max_conns=0&heartbeat=false&backup=1",
        b"\0action=drain&deadline=5.5&then=remove&limit=5&before=1-0\n\n",
        b'\1\n\n{"host":"a.example","port":80,"weight":"3","backup":true,"slow_start":1.5}',
        b'\1\n\n{"data":[{"addr":"10.0.0.1:80","weight":0}],"dry_run":1}',
        b'\1\n\n{"data":{"format":"dynbalance-1","upstreams":{}}}',
        b"\0uri=/a%20b&client=::1&header=X:%20y&header=Z:%20a\n\n",
        b"\3\n\nhello",
    ]


_SERVER = (
    b'{"addr":"10.0.0.1:80","host":"10.0.0.1","port":80,"weight":1,"max_conns":10,'
    b'"heartbeat":true,"backup":false,"max_fails":1,"fail_timeout":10.0,"slow_start":0,'
    b'"action":"drain","deadline":5,"then":"remove"}'
)


def _admin_documents() -> list[bytes]:
    return [
        b'{"format":"dynbalance-1","upstreams":{"default":{"servers":[%b]}}}' % _SERVER,
        b'[{"addr":"10.0.0.1:80","weight":0,"enabled":false,"disabled_reason":"draining"}]',
        b'[{"host":"unix:/run/a","enabled":true,"source":"file"},{"host":"a","port":1}]',
    ]


def _records() -> list[bytes]:
    record = serverjson.server("10.0.0.1:80", (b'{"host":"a"}', b"1.5", b"2"))
    return [
        serverjson.record_text(record).encode() + b"\n\n1.5",
        b'{"host":"10.0.0.1","port":"80","weight":2.0,"enabled":false,"created_at":1e9}\n\n1',
        b'{"intent":"drain","enabled":false,"drain_deadline":5,"drain_then":"remove"}\n\n',
        b'{"cause":"unhealthy","node":"a"}\n\n0',
    ]


def _snapshots() -> list[bytes]:
    record = serverjson.server("10.0.0.1:80", (b'{"host":"a"}', b"1.5", b"2"))
    snapshot = Snapshot(revision=3, now=1.5, servers=(record,), unhealthy={"a": "b"}, era="e")
    lines = partial(snapshotfile._lines, "redis://h", now=5.0)
    return [
        b"".join(lines({"default": snapshot, "b": snapshot}))[:-1],
        b"".join(lines({}))[:-1],
    ]


SEEDS = {
    "request": _requests,
    "response": _responses,
    "chunked": _chunked,
    "http2_fields": _http2_fields,
    "http2_frames": _http2_frames,
    "http1_client": lambda: [case.sent for case in REQUESTS if len(case.sent) < 500],
    "http2_client": _streams,
    "server": lambda: [case.sent for case in RESPONSES if len(case.sent) < 500],
    "proxy": _prefaces,
    "hello": _hellos,
    "config": _configs,
    "admin_fields": _admin_fields,
    "admin_document": _admin_documents,
    "credentials": lambda: [b"Basic b3BzOnNlY3JldA==", b"Bearer abc.def.ghi", b"Digest x", b""],
    "store_server": _records,
    "snapshot_file": _snapshots,
}
