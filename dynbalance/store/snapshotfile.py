"""
What the nodes know, as a file: how it is written and read.

Knows the format and how a file is replaced whole; refuses to know when that is
done.  The file is lines of JSON: a head, for each upstream a line and one for
each of its servers, and the SHA-256 of all that is above it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice

from attrs import frozen

from dynbalance.errors import DynbalanceError
from dynbalance.store import serverjson
from dynbalance.store.contract import ServerRecord, Snapshot

VERSION = 1
_KIND = "dynbalance snapshot"
_SENSELESS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading lines raises that are JSON and nothing else that they should be."""

CHUNK = 64
"""Lines that are written at once: other threads get their turn after each write."""


class SnapshotRefused(DynbalanceError):
    """The file is not what it should be; the text says why."""


@frozen(slots=True, kw_only=True)
class Kept:
    """
    What a file says.

    @ivar written: when it was written, in seconds since the epoch.
    @ivar snapshots: by upstream.
    """

    written: float
    snapshots: Mapping[str, Snapshot]


def write(path: str, store: str, snapshots: Mapping[str, Snapshot], now: float) -> None:
    """
    Replace the file.  Whoever reads it meanwhile, and whatever ends this process
    or the machine, finds the old one or the new one.

    @param store: which store it is of, without secrets.
    @param now: seconds since the epoch.
    @raise OSError: it is as it was.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # Two daemons may have the same directory.
    fresh = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb", buffering=0) as out:
            digest = hashlib.sha256()
            for chunk in _chunks(_lines(store, snapshots, now)):
                digest.update(chunk)
                _write_all(out.fileno(), chunk)
            _write_all(out.fileno(), _line({"sha256": digest.hexdigest()}))
            os.fsync(descriptor)
        os.replace(fresh, path)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)
        raise
    place = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def sweep(path: str) -> None:
    """
    Take away what processes have left that were killed while they wrote.

    @raise OSError: the directory cannot be read or changed.
    """
    directory, name = os.path.split(path)
    if not os.path.isdir(directory):
        return
    for left in os.listdir(directory):
        stem, _, owner = left.rpartition(".")
        if stem == name and owner.isdigit() and not _lives(int(owner)):
            os.unlink(os.path.join(directory, left))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Somebody else's.
        return True
    return process != os.getpid()


def read(path: str, store: str | None) -> Kept | None:
    """
    @param store: which store it has to be of; C{None} for any.
    @return: C{None} if there is no file.
    @raise SnapshotRefused: it is damaged or foreign.
    @raise OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    head, _, _ = content.partition(b"\n")
    _check_head(_fields(head), store)
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    if _fields(last).get("sha256") != hashlib.sha256(body + b"\n").hexdigest():
        raise SnapshotRefused("it is damaged: the checksum is not that of its content")
    try:
        return _kept(body)
    except _SENSELESS as error:
        raise SnapshotRefused(f"it makes no sense: {error!r}") from error


def _lines(store: str, snapshots: Mapping[str, Snapshot], now: float) -> Iterator[bytes]:
    yield _line({"kind": _KIND, "version": VERSION, "store": store, "written": now})
    for name, snapshot in snapshots.items():
        yield _line(
            {
                "upstream": name,
                "era": snapshot.era,
                "revision": snapshot.revision,
                "now": snapshot.now,
                "unhealthy": dict(snapshot.unhealthy),
                "servers": len(snapshot.servers),
            }
        )
        for record in snapshot.servers:
            address = json.dumps(record.order.address)
            beat = json.dumps(record.last_heartbeat)
            yield f"[{address},{beat},{serverjson.record_text(record)}]\n".encode("ascii")


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    chunk: list[bytes] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == CHUNK:
            yield b"".join(chunk)
            chunk = []
    yield b"".join(chunk)


def _write_all(descriptor: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def _fields(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else {}


def _check_head(head: Mapping[str, object], store: str | None) -> None:
    if head.get("kind") != _KIND:
        raise SnapshotRefused("it is no snapshot of dynbalance")
    if head.get("version") != VERSION:
        raise SnapshotRefused(f"its version is {head.get('version')!r} and not {VERSION}")
    if store is not None and head.get("store") != store:
        raise SnapshotRefused(f"it is of the store {head.get('store')!r} and not of {store!r}")


def _kept(body: bytes) -> Kept:
    lines = iter(body.split(b"\n"))
    written = float(json.loads(next(lines))["written"])
    snapshots = {}
    for line in lines:
        fields = json.loads(line)
        servers = tuple(map(_server, islice(lines, fields["servers"])))
        if len(servers) < fields["servers"]:
            raise ValueError(f"{fields['upstream']} has too few servers")
        snapshots[str(fields["upstream"])] = Snapshot(
            revision=int(fields["revision"]),
            era=str(fields["era"]),
            now=float(fields["now"]),
            unhealthy={str(k): str(v) for k, v in fields["unhealthy"].items()},
            servers=servers,
        )
    return Kept(written=written, snapshots=snapshots)


def _server(line: bytes) -> ServerRecord:
    address, beat, meta = json.loads(line)
    heard = None if beat is None else repr(float(beat)).encode()
    return serverjson.server(address, (json.dumps(meta).encode(), heard, None))
