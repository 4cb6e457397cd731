"""
The membership out as one document, and in again.

Knows what an import leaves alone and what it replaces; refuses to know the
document's members (L{dynbalance.admin.document}).
"""

from __future__ import annotations

from dynbalance.admin import parameters as p
from dynbalance.admin.amending import Amending
from dynbalance.admin.answers import Answer, Written
from dynbalance.admin.document import Reading, written
from dynbalance.admin.scene import Ask, Scene
from dynbalance.admin.views import server_fields
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.changes import Edit
from dynbalance.store.contract import ServerRecord, Snapshot
from dynbalance.store.undo import differ


class Backups:
    """Export and import."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._amending = Amending(scene, "import")

    async def export(self, ask: Ask) -> Answer:
        """The servers of the store; those of the file are in the file."""
        upstream = self._scene.upstream(ask)
        everything = ask.arguments[p.ALL]
        names = list(self._scene.balancer.upstreams) if everything else [upstream.name]
        snapshots = {name: await self._scene.store.snapshot(name) for name in names}
        revision = None if everything else snapshots[upstream.name].revision
        servers = {
            name: await self._scene.list_of(map(server_fields, snapshot.servers))
            for name, snapshot in snapshots.items()
        }
        return Answer("Success", Written(written(snapshots, servers)), revision=revision)

    async def load(self, ask: Ask) -> Answer:
        """
        Each upstream of the document gets the servers that it names, and no
        others.  What a document does not name stays as it is.
        """
        only = ask.arguments[p.ONLY]
        if only:
            self._scene.named(only)
        reading = Reading(ask.arguments[p.DATA], self._scene.balancer, only)
        reading.refuse_mistakes()

        async def plan(upstream: Upstream, snapshot: Snapshot) -> tuple[Edit, ...]:
            return _edits(snapshot, reading.edits[upstream.name])

        upstreams = [self._scene.named(name) for name in reading.edits]
        amended = await self._amending.carry_out(ask, upstreams, plan)
        if ask.arguments[p.DRY_RUN]:
            message = "The import would change this"
        else:
            message = "Imported" if amended.any else "Nothing to import"
        return Answer(message, {"upstreams": amended.differences})


def _edits(snapshot: Snapshot, wanted: dict[str, Edit]) -> tuple[Edit, ...]:
    """What makes the servers that are there into those that are wanted."""
    here = {record.order.address: record for record in snapshot.servers}
    edits = [Edit(address=address, order=None) for address in here if address not in wanted]
    edits += [edit for edit in wanted.values() if differ(here.get(edit.address), _record(edit))]
    return tuple(sorted(edits, key=lambda edit: edit.address))


def _record(edit: Edit) -> ServerRecord | None:
    """The server that an edit makes, as far as it is ordered."""
    if edit.order is None:
        return None
    return ServerRecord(order=edit.order, intent=edit.intent, drain_then=edit.drain.then)
