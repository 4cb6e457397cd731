"""
The calls of the contract, as scripts.

Knows which script is each call and what goes in and comes out; refuses to know
how a script is run: over whose connection, with what deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred

from dynbalance.errors import ServerExists, ServerNotFound, StoreUnavailable
from dynbalance.log import Logger
from dynbalance.slices import Slices
from dynbalance.store import codec, serverjson
from dynbalance.store.changes import Change, History, Update
from dynbalance.store.codec import Reply
from dynbalance.store.contract import (
    ENDLESS,
    Drain,
    Drained,
    Expiry,
    Intent,
    ServerOrder,
    ServerRecord,
    Snapshot,
)
from dynbalance.store.keys import upstream_keys
from dynbalance.store.reading import Reading
from dynbalance.store.reports import Granted, Report, SyncAnswer, Wish

_T = TypeVar("_T")


class Calls:
    """A L{Store <dynbalance.store.contract.Store>} but for how it is reached."""

    _log = Logger()

    def __init__(self, prefix: str, slices: Slices) -> None:
        """
        @param prefix: of all keys.
        @param slices: in which long answers are read.
        """
        self._prefix = prefix
        self._slices = slices
        self._readings: dict[str, Reading] = {}
        self._broken: dict[str, dict[str, str]] = {}

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        """
        Run a script.

        @param read: makes the answer of the reply, or raises what it means.
        """
        raise NotImplementedError

    def snapshot(self, upstream: str) -> Deferred[Snapshot]:
        return Deferred.fromCoroutine(self._snapshot(upstream))

    async def _snapshot(self, upstream: str) -> Snapshot:
        reply: Reply = await self._on(upstream, "snapshot", (), lambda reply: reply)
        reading = Reading(self._readings.get(upstream))
        try:
            await self._slices.run(reading.pieces(reply))
        except (ValueError, TypeError) as error:
            raise senseless("snapshot", error) from error
        self._readings[upstream] = reading
        self._report_broken(upstream, reading.broken)
        return reading.snapshot

    def add(
        self, upstream: str, order: ServerOrder, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        def read(reply: Reply) -> ServerRecord:
            if reply is None:
                raise ServerExists(order.address)
            return serverjson.server(order.address, reply)

        args = (order.address, serverjson.order_text(order), by, _at(only_at))
        return self._on(upstream, "add", args, read)

    def remove(
        self, upstream: str, address: str, by: str, only_at: int | None = None
    ) -> Deferred[None]:
        def read(reply: Reply) -> None:
            if reply is None:
                raise ServerNotFound(address)

        return self._on(upstream, "remove", (address, by, _at(only_at)), read)

    def set_intent(
        self,
        upstream: str,
        address: str,
        intent: Intent,
        by: str,
        drain: Drain = ENDLESS,
        only_at: int | None = None,
    ) -> Deferred[ServerRecord]:
        args = [address, intent.value, by, repr(drain.seconds), drain.then.value, _at(only_at)]
        args.append("1" if drain.own else "")
        return self._on(upstream, "intent", args, _server_reader(address))

    def update(
        self, upstream: str, address: str, update: Update, by: str, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        args = (address, serverjson.update_text(update), by, _at(only_at))
        return self._on(upstream, "update", args, _server_reader(address))

    def amend(
        self, changes: Mapping[str, Change], by: str, action: str
    ) -> Deferred[Mapping[str, int]]:
        keys = [key for name in changes for key in upstream_keys(self._prefix, name)]
        args = [by, action]
        for change in changes.values():
            args += [_at(change.only_at), str(len(change.edits))]
            for edit in change.edits:
                args += codec.edit_words(edit)
        return self.call(
            "amend",
            keys,
            args,
            lambda reply: dict(zip(changes, map(int, reply), strict=True)),
        )

    def history(self, upstream: str, limit: int, before: str = "") -> Deferred[History]:
        return self._on(upstream, "history", ("before", before, str(limit)), codec.history)

    def news(self, upstream: str, limit: int, after: str) -> Deferred[History]:
        return self._on(upstream, "history", ("after", after, str(limit)), codec.history)

    def finish_drains(self, upstream: str, settle: float) -> Deferred[tuple[Drained, ...]]:
        return self._on(upstream, "drained", (repr(settle),), codec.drained)

    def beat(
        self, upstream: str, address: str, reenable: bool, only_at: int | None = None
    ) -> Deferred[ServerRecord]:
        args = (address, "1" if reenable else "0", _at(only_at))
        return self._on(upstream, "beat", args, _server_reader(address))

    def expire(self, upstream: str, ttl: float, only_at: int | None = None) -> Deferred[Expiry]:
        return self._on(upstream, "expire", (repr(ttl), _at(only_at)), codec.expiry)

    def sync(
        self, node: str, lease: float, reports: Mapping[str, Report]
    ) -> Deferred[Mapping[str, SyncAnswer]]:
        keys, args = codec.sync_call(self._prefix, node, lease, reports)
        return self.call("sync", keys, args, lambda reply: codec.sync_answers(reports, reply))

    def grant(
        self, upstream: str, node: str, number: int, seen: int, wishes: Sequence[Wish]
    ) -> Deferred[Granted]:
        keys, args = codec.grant_call(self._prefix, upstream, node, number, seen, wishes)
        return self.call("grant", keys, args, codec.granted)

    def restore(self, upstream: str, snapshot: Snapshot, by: str) -> Deferred[int | None]:
        return self._on(
            upstream, "restore", codec.restore_args(snapshot, by), lambda reply: reply
        )

    def leave(self, node: str, upstreams: Iterable[str]) -> Deferred[None]:
        keys, args = codec.leave_call(self._prefix, node, upstreams)
        return self.call("leave", keys, args, lambda reply: None)

    def claim_checks(
        self, upstream: str, node: str, addresses: Collection[str], lease: float
    ) -> Deferred[frozenset[str]]:
        return self._on(
            upstream,
            "probe",
            (node, repr(lease), *addresses),
            lambda reply: frozenset(map(serverjson.text, reply)),
        )

    def conclude_check(
        self, upstream: str, node: str, address: str, cause: str
    ) -> Deferred[bool]:
        return self._on(
            upstream, "verdict", (node, address, serverjson.found_text(cause, node)), bool
        )

    def recount(self, upstream: str, only_at: int | None = None) -> Deferred[int]:
        return self._on(upstream, "recount", (_at(only_at),), int)

    def _on(
        self, upstream: str, name: str, args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        return self.call(name, upstream_keys(self._prefix, upstream), args, read)

    def _report_broken(self, upstream: str, broken: dict[str, str]) -> None:
        if broken == self._broken.get(upstream, {}):
            return
        self._broken[upstream] = broken
        for address, why in broken.items():
            self._log.error(
                "What the store has as server {address} of upstream {upstream} is left out: {why}",
                address=address,
                upstream=upstream,
                why=why,
            )


def senseless(name: str, error: Exception) -> StoreUnavailable:
    """What to make of an answer that cannot be read."""
    return StoreUnavailable(f"the store's answer to {name} makes no sense: {error}")


def _at(only_at: int | None) -> str:
    return "" if only_at is None else str(only_at)


def _server_reader(address: str) -> Callable[[Reply], ServerRecord]:
    def read(reply: Reply) -> ServerRecord:
        if reply is None:
            raise ServerNotFound(address)
        return serverjson.server(address, reply)

    return read
