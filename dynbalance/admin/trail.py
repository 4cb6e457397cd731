"""
The audit trail: who ordered what, from where, and what came of it, one JSON
object a line.

What an order has changed is taken from the store's history, which the store
writes in the same step.  Knows what is worth a line; refuses to know how orders
are carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from attrs import define, field

from dynbalance.accesslog import Out
from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Json, Refused
from dynbalance.admin.caller import Caller, Role
from dynbalance.admin.fields import brief
from dynbalance.admin.scene import Ask, Scene
from dynbalance.admin.views import line_fields
from dynbalance.errors import DynbalanceError, StoreError
from dynbalance.log import Logger
from dynbalance.store.changes import Line

if TYPE_CHECKING:
    from dynbalance.admin.api import Endpoint

_PART = 500
"""Lines of the history that are read of one order; what is beyond stays there."""


@define(slots=True, kw_only=True)
class Deed:
    """
    One request, as far as it has come.

    @ivar path: that was asked for.
    @ivar address: of the caller.
    @ivar claimed: who the caller says it is, when that is not so.
    @ivar wrong: credentials were shown that are nobody's.
    @ivar marks: where the history of each upstream ended before.
    """

    path: bytes
    address: str
    endpoint: Endpoint | None = None
    caller: Caller | None = None
    claimed: str = ""
    wrong: bool = False
    ask: Ask | None = None
    marks: dict[str, str] = field(factory=dict)


class Trail:
    """
    @param out: where the lines go; C{None} for nowhere.
    @param wall: seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self, out: Out | None, wall: Callable[[], float], scene: Scene | None = None
    ) -> None:
        self._out = out
        self._wall = wall
        self._scene = scene

    def __repr__(self) -> str:
        return f"<Trail to {self._out!r}>"

    async def begin(self, deed: Deed) -> None:
        """An order is about to be carried out."""
        if self._out is None or self._scene is None or not _is_order(deed) or _is_routine(deed):
            return
        try:
            for name in _upstreams(deed, self._scene):
                newest = await self._scene.store.history(name, 1)
                deed.marks[name] = newest.lines[0].id if newest.lines else "0-0"
        except (StoreError, DynbalanceError):
            # Then the order will say so.
            deed.marks.clear()

    async def end(self, deed: Deed, status: int, message: str) -> None:
        """What came of it; never fails."""
        if self._out is None or not _is_told(deed, status):
            return
        entry = self._entry(deed, status, message)
        try:
            entry |= _told(await self._changes(deed))
        except (StoreError, DynbalanceError) as error:
            entry["changes"] = f"not known: {error}"
        try:
            self._out.write(json.dumps(entry, separators=(",", ":")) + "\n")
            self._out.flush()
        except OSError as failed:
            self._log.error("The audit log takes no line: {why}", why=failed.strerror)

    def _entry(self, deed: Deed, status: int, message: str) -> dict[str, Json]:
        caller = deed.caller
        entry: dict[str, Json] = {
            "time": datetime.fromtimestamp(self._wall(), timezone.utc).isoformat(),
            "who": caller.name if caller is not None else brief(deed.claimed),
            "role": caller.role.value if caller is not None else None,
            "from": deed.address,
            "what": deed.path.rpartition(b"/")[2].decode("latin-1"),
            "code": status,
            "message": message,
        }
        if deed.ask is not None and deed.endpoint is not None:
            entry |= self._about(deed.ask, deed.endpoint)
        return entry

    def _about(self, ask: Ask, endpoint: Endpoint) -> dict[str, Json]:
        """The upstream, the server, and what else was asked for."""
        about: dict[str, Json] = {}
        asked: dict[str, Json] = {}
        for parameter in endpoint.parameters or ():
            value = ask.arguments[parameter]
            if parameter is p.UPSTREAM or parameter is p.ONLY:
                about["upstream"] = brief(str(value))
            elif parameter not in (p.HOST, p.PORT, p.DATA, p.CODE, p.MESSAGE):
                plain = getattr(value, "value", value)
                # Zero is something.
                if plain is not None and plain is not False and plain != "":
                    asked[parameter.name] = plain
        if p.PORT in (endpoint.parameters or ()):
            host = ask.arguments[p.HOST] or ask.caller.address
            about["server"] = brief(f"{host}:{ask.arguments[p.PORT]}")
            if self._scene is not None:
                with suppress(Refused):
                    about["server"] = self._scene.target(ask).key
        return about | {"asked": asked} if asked else about

    async def _changes(self, deed: Deed) -> list[tuple[str, Line]]:
        """Lines that the caller has brought about since, by the upstreams' names."""
        if self._scene is None or deed.caller is None:
            return []
        found = []
        for name, mark in deed.marks.items():
            news = await self._scene.store.news(name, _PART, mark)
            found += [(name, line) for line in news.lines if line.by == str(deed.caller)]
        return found


def _told(changes: list[tuple[str, Line]]) -> dict[str, Json]:
    """One change stands beside the rest, several in a list."""
    told: list[dict[str, Json]] = []
    for name, line in changes:
        fields = line_fields(line)
        names = ("revision", "before", "after")
        kept: dict[str, Json] = {each: fields[each] for each in names if each in fields}
        told.append({"upstream": name, "server": line.address, **kept})
    if len(told) == 1:
        return told[0]
    return {"changes": tuple(told)} if told else {}


def _upstreams(deed: Deed, scene: Scene) -> list[str]:
    """Those that an order may be about and that there are."""
    assert deed.endpoint is not None and deed.ask is not None
    known = list(scene.balancer.upstreams)
    if p.UPSTREAM in (deed.endpoint.parameters or ()):
        return [name for name in known if name == deed.ask.arguments[p.UPSTREAM]]
    return known


def _is_order(deed: Deed) -> bool:
    endpoint = deed.endpoint
    return endpoint is not None and endpoint.needs in (Role.AGENT, Role.ADMIN)


def _is_routine(deed: Deed) -> bool:
    return deed.endpoint is not None and deed.endpoint.is_routine


def _is_told(deed: Deed, status: int) -> bool:
    if deed.wrong:
        return True
    if not _is_order(deed) or status == 429:
        return False
    return not _is_routine(deed) or status in (401, 403)


NO_TRAIL = Trail(None, lambda: 0.0)
"""Writes nothing."""
