"""
Reading what the store says of all servers of an upstream, in pieces, and no more
than is new: of thousands of servers a change concerns few, and their JSON is what
takes long to read.

Knows the shape of the answer, and what was read before; refuses to know connections
and the JSON (L{dynbalance.store.serverjson}).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from attrs import frozen

from dynbalance.store.codec import Reply
from dynbalance.store.contract import ServerRecord, Snapshot
from dynbalance.store.serverjson import cause_of, score, seconds, server, text


@frozen(slots=True)
class _Read:
    """A server as the store had it, and what that means."""

    meta: bytes
    beat: bytes | None
    count: bytes | None
    record: ServerRecord


class Reading:
    """
    One answer of C{snapshot.lua}.

    @ivar broken: address -> why it is no server.
    """

    def __init__(self, former: Reading | None = None) -> None:
        """@param former: of the same upstream; what it has read is not read again."""
        self.broken: dict[str, str] = {}
        self._known: Mapping[bytes, _Read] = {} if former is None else former._read
        self._read: dict[bytes, _Read] = {}
        self._snapshot = Snapshot(revision=0, now=0.0)

    @property
    def snapshot(self) -> Snapshot:
        """What could be read, when all pieces are."""
        return self._snapshot

    def pieces(self, reply: Reply) -> Iterator[None]:
        """
        Read an answer.

        @raise ValueError: it is none.
        """
        revision, now, metas, beats, counts, unhealthy, era = reply
        meta_of = _pairs(metas)
        yield
        beat_of = _pairs(beats)
        yield
        count_of = _pairs(counts)
        yield
        # Those that are known come in their order already.
        known = (raw for raw in self._known if raw in meta_of)
        for raw in chain(known, (raw for raw in meta_of if raw not in self._known)):
            self._read_one(raw, meta_of[raw], beat_of.get(raw), count_of.get(raw))
            yield
        self._known = {}
        found = {}
        for raw, cause in _pairs(unhealthy).items():
            found[text(raw)] = cause_of(cause)
            yield
        in_order = sorted(self._read.items(), key=lambda each: each[1].record.order.address)
        yield
        self._read = dict(in_order)
        self._snapshot = Snapshot(
            revision=int(revision),
            now=float(now),
            servers=tuple(read.record for _, read in in_order),
            unhealthy=found,
            era=text(era),
        )

    def _read_one(self, raw: bytes, meta: bytes, beat: bytes | None, count: bytes | None) -> None:
        known = self._known.get(raw)
        if known is not None and known.meta == meta:
            if known.beat == beat and known.count == count:
                self._read[raw] = known
                return
            record = _again(known.record, beat, count)
        else:
            address = text(raw)
            try:
                record = server(address, (meta, beat, count))
            except ValueError as error:
                self.broken[address] = str(error)
                return
        self._read[raw] = _Read(meta, beat, count, record)


def _again(record: ServerRecord, beat: bytes | None, count: bytes | None) -> ServerRecord:
    # evolve would take three times as long, and this is done for every heartbeat.
    return ServerRecord(
        order=record.order,
        intent=record.intent,
        expired=record.expired,
        connections=score(count or b"0"),
        created_at=record.created_at,
        updated_at=record.updated_at,
        disabled_at=record.disabled_at,
        disabled_reason=record.disabled_reason,
        last_heartbeat=seconds(beat),
        drain_deadline=record.drain_deadline,
        drain_then=record.drain_then,
    )


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
