"""
Orders about all servers of an upstream at once: thought out from what is there,
carried out in one step if it is still there, else thought out anew.

Knows revisions and who may be faster; refuses to know what is wanted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen

from dynbalance.admin import parameters as p
from dynbalance.admin.answers import Json, Refused
from dynbalance.admin.scene import Ask, Scene
from dynbalance.balancer.upstream import Upstream
from dynbalance.errors import StaleRevision
from dynbalance.log import Logger
from dynbalance.store.changes import Change, Edit
from dynbalance.store.contract import Snapshot

_TRIES = 5
"""How often an order is thought out anew because somebody else was faster."""

Plan = Callable[[Upstream, Snapshot], Awaitable[tuple[Edit, ...]]]
"""From an upstream and what is there to what has to be done."""


@frozen(slots=True, kw_only=True)
class Amended:
    """
    @ivar differences: by upstream, what was changed or would be, and the
        revision.
    @ivar any: whether there is anything to change.
    """

    differences: dict[str, dict[str, Json]]
    any: bool


class Amending:
    """One kind of such orders."""

    _log = Logger()

    def __init__(self, scene: Scene, action: str) -> None:
        """@param action: what the history calls it."""
        self._scene = scene
        self._action = action

    async def carry_out(self, ask: Ask, upstreams: Iterable[Upstream], plan: Plan) -> Amended:
        """
        @param ask: with C{dry_run} nothing is done.
        @raise StaleRevision: it was made for another one, or others are faster
            again and again.
        """
        wanted = tuple(upstreams)
        if ask.only_at is not None and len(wanted) != 1:
            raise Refused(400, "If-Match is for orders about one upstream")
        for tries_left in reversed(range(1 if ask.only_at is not None else _TRIES)):
            try:
                return await self._try(ask, wanted, plan)
            except StaleRevision:
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _try(self, ask: Ask, upstreams: tuple[Upstream, ...], plan: Plan) -> Amended:
        changes: dict[str, Change] = {}
        differences: dict[str, dict[str, Json]] = {}
        for upstream in upstreams:
            snapshot = await self._scene.store.snapshot(upstream.name)
            if ask.only_at not in (None, snapshot.revision):
                raise StaleRevision(snapshot.revision)
            edits = await plan(upstream, snapshot)
            changes[upstream.name] = Change(edits=edits, only_at=snapshot.revision)
            differences[upstream.name] = _differences(snapshot, edits)
        changing = any(change.edits for change in changes.values())
        if changing and not ask.arguments[p.DRY_RUN]:
            by = str(ask.caller)
            revisions = await self._scene.store.amend(changes, by, self._action)
            for upstream in upstreams:
                differences[upstream.name]["revision"] = revisions[upstream.name]
                self._tell(upstream, by, changes[upstream.name])
                await self._scene.see(upstream)
        return Amended(differences=differences, any=changing)

    def _tell(self, upstream: Upstream, by: str, change: Change) -> None:
        if change.edits:
            self._log.info(
                "{count} servers of upstream {upstream} were changed by {action} ({client})",
                count=len(change.edits),
                upstream=upstream.name,
                action=self._action,
                client=by,
            )


def _differences(snapshot: Snapshot, edits: tuple[Edit, ...]) -> dict[str, Json]:
    """What edits add, remove and change, by the servers' addresses."""
    here = {record.order.address for record in snapshot.servers}
    kept = [edit.address for edit in edits if edit.order is not None]
    return {
        "revision": snapshot.revision,
        "added": [address for address in kept if address not in here],
        "removed": [edit.address for edit in edits if edit.order is None],
        "changed": [address for address in kept if address in here],
    }
