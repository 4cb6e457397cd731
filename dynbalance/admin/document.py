"""
The document that a backup is: written by an export, read by an import.

Pure.  Knows the document's members, and that the list of servers which
C{GET /upstream/status} tells, the OpenResty set-up's included, is read too;
refuses to know what is there now.  Reading judges everything before anything is
done, and names each mistake by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Refused, compact
from dynbalance.admin.fields import brief
from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer
from dynbalance.errors import BadAddress
from dynbalance.store.changes import Edit
from dynbalance.store.contract import (
    DRAINING,
    HEARTBEAT_TIMEOUT,
    SELF_DRAINING,
    Drain,
    Intent,
    ServerOrder,
    Snapshot,
)

FORMAT = "dynbalance-1"
"""The document's C{format}."""

_TOLD = 20
"""Mistakes that are told at most."""

_ORDER = (
    *(p.WEIGHT, p.MAX_CONNS, p.HEARTBEAT, p.BACKUP),
    *(p.MAX_FAILS, p.FAIL_TIMEOUT, p.SLOW_START),
)
_DRAIN = (p.ACTION, p.DEADLINE, p.THEN)
_NAMES = {"addr", "host", "port", *(each.name for each in (*_ORDER, *_DRAIN))}


def written(snapshots: Mapping[str, Snapshot], servers: Mapping[str, str]) -> str:
    """
    The document of some upstreams: what is ordered, nothing that is observed.

    @param snapshots: by upstream.
    @param servers: likewise, the JSON of their
        L{server_fields<dynbalance.admin.views.server_fields>}.
    """
    upstreams = ",".join(
        f'{compact(name)}:{{"revision":{snapshot.revision},"servers":{servers[name]}}}'
        for name, snapshot in snapshots.items()
    )
    return f'{{"format":{compact(FORMAT)},"upstreams":{{{upstreams}}}}}'


class Reading:
    """
    One document, judged.

    @ivar edits: by upstream, how each server is to be, by address.
    @ivar mistakes: a line for each, beginning with its path.
    """

    def __init__(self, document: object, balancer: Balancer, only: str) -> None:
        """
        @param document: as JSON was read.
        @param only: the upstream that is wanted; empty for all that are there.
        """
        self.edits: dict[str, dict[str, Edit]] = {}
        self.mistakes: list[str] = []
        self._balancer = balancer
        if isinstance(document, list):
            self._read_upstream("data", only or p.UPSTREAM.read(""), document, _told_server)
        else:
            self._read_document(document, only)

    def refuse_mistakes(self) -> None:
        """@raise Refused: there are some."""
        if self.mistakes:
            told = "; ".join(self.mistakes[:_TOLD])
            more = len(self.mistakes) - _TOLD
            raise Refused(400, f"{told}; and {more} more" if more > 0 else told)

    def _read_document(self, document: object, only: str) -> None:
        members = self._members("data", document, {"format", "upstreams"})
        if members.get("format", FORMAT) != FORMAT:
            self._wrong("data.format", f"is not {FORMAT}")
        upstreams = members.get("upstreams")
        if not isinstance(upstreams, dict):
            self._wrong("data.upstreams", "is not an object")
            return
        if only and only not in upstreams:
            self._wrong(f"data.upstreams.{only}", "is missing")
        for name, upstream in upstreams.items():
            if only in ("", name):
                path = f"data.upstreams.{brief(name)}"
                members = self._members(path, upstream, {"revision", "servers"})
                self._read_upstream(
                    f"{path}.servers", name, members.get("servers"), _written_server
                )

    def _read_upstream(self, path: str, name: str, servers: object, read: Any) -> None:
        if name not in self._balancer.upstreams:
            self._wrong(path, f"there is no upstream {brief(name)}")
        elif not isinstance(servers, list):
            self._wrong(path, "is not a list of servers")
        else:
            edits = self.edits[name] = {}
            for number, server in enumerate(servers):
                try:
                    self._read_server(name, edits, read(server))
                except _Wrong as wrong:
                    self._wrong(f"{path}[{number}]{wrong.member}", wrong.why)

    def _read_server(self, upstream: str, edits: dict[str, Edit], edit: Edit | None) -> None:
        if edit is None:
            return
        known = self._balancer.upstream(upstream).server(edit.address)
        if known is not None and known.from_file:
            raise _Wrong("", f"{edit.address} is defined in the configuration file")
        if edit.address in edits:
            raise _Wrong("", f"{edit.address} is there twice")
        edits[edit.address] = edit

    def _members(self, path: str, value: object, names: set[str]) -> dict[str, object]:
        if not isinstance(value, dict):
            self._wrong(path, "is not an object")
            return {}
        for name in value.keys() - names:
            self._wrong(f"{path}.{brief(name)}", "unknown member")
        return value

    def _wrong(self, path: str, why: str) -> None:
        self.mistakes.append(f"{path}: {why}")


class _Wrong(Exception):
    """
    @ivar member: the rest of the path.
    """

    def __init__(self, member: str, why: str) -> None:
        super().__init__(member, why)
        self.member = member
        self.why = why


def _written_server(value: object) -> Edit:
    """A server as an export writes it."""
    members = _server_members(value)
    for name in members.keys() - _NAMES:
        raise _Wrong(f".{brief(name)}", "unknown member")
    order = _order(members)
    intent = _read(p.ACTION, members) if "action" in members else Intent.ENABLE
    drain = Drain(seconds=_read(p.DEADLINE, members), then=_read(p.THEN, members))
    if intent is not Intent.DRAIN and drain != Drain():
        raise _Wrong(".action", "deadline and then are for drain")
    return Edit(address=order.address, order=order, intent=intent, drain=drain)


def _told_server(value: object) -> Edit | None:
    """
    A server as C{GET /upstream/status} tells it, whosever; C{None} for one of a
    configuration file.  Who is out for missing heartbeats was ordered to serve.
    """
    members = _server_members(value)
    if members.get("source") == "file":
        return None
    # There it is how much of its weight it has, not what was ordered.
    ordered = {name: value for name, value in members.items() if name != "slow_start"}
    if ordered.get("weight") == 0:
        # The first deployments stored any weight and used none: 0 served.
        del ordered["weight"]
    order = _order(ordered)
    intent = Intent.ENABLE
    reason = members.get("disabled_reason")
    if members.get("enabled") is False and reason != HEARTBEAT_TIMEOUT:
        draining = reason in (DRAINING, SELF_DRAINING)
        intent = Intent.DRAIN if draining else Intent.DISABLE
    drain = Drain()
    if intent is Intent.DRAIN:
        drain = Drain(then=_read(p.THEN, {"then": members.get("drain_then") or ""}))
    return Edit(address=order.address, order=order, intent=intent, drain=drain)


def _server_members(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _Wrong("", "is not an object")
    return value


def _order(members: Mapping[str, object]) -> ServerOrder:
    address, key = _address(members)
    return ServerOrder(
        address=key,
        host=address.host,
        port=address.port,
        weight=_read(p.WEIGHT, members),
        max_conns=_read(p.MAX_CONNS, members),
        heartbeat=_read(p.HEARTBEAT, members),
        backup=_read(p.BACKUP, members),
        max_fails=_read(p.MAX_FAILS, members),
        fail_timeout=_read(p.FAIL_TIMEOUT, members),
        slow_start=_read(p.SLOW_START, members),
    )


def _address(members: Mapping[str, object]) -> tuple[Address, str]:
    """Where it listens, and what the store calls it."""
    key, host = members.get("addr"), members.get("host")
    try:
        if isinstance(key, str):
            return Address.parse(key), key
        if not isinstance(host, str):
            raise _Wrong("", "has neither addr nor host and port")
        if host.startswith("unix:"):
            address = Address.parse(host)
        else:
            address = Address.of(host, _read(p.PORT, members))
    except BadAddress as error:
        raise _Wrong(".addr" if isinstance(key, str) else ".host", str(error)) from None
    return address, str(address)


def _read(parameter: p.Parameter[p.T], members: Mapping[str, object]) -> p.T:
    """A member by the rules of the parameter with its name."""
    value = members.get(parameter.name)
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif value is None:
        text = ""
    elif isinstance(value, (int, float, str)):
        # JSON has one kind of number: 10.0 is 10.
        whole = isinstance(value, float) and value.is_integer()
        text = str(int(value)) if whole else str(value)
    else:
        raise _Wrong(f".{parameter.name}", "neither text nor number")
    try:
        return parameter.read(text)
    except Refused as refused:
        raise _Wrong(f".{parameter.name}", refused.message) from None
