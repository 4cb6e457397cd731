"""
The part of the store's contract that tells and undoes changes, as tests that
every implementation runs.
"""

from __future__ import annotations

from dynbalance.errors import ServerNotFound, StaleRevision
from dynbalance.store.changes import Change, Edit, Line, Update
from dynbalance.store.contract import Drain, Intent, ServerRecord, Then
from dynbalance.store.reports import Report
from tests.store.contract_suite import A, B, OfAStore, order


class HistoryContract(OfAStore):
    """Updates, edits, their conditions, and what is remembered of them."""

    async def here(self, address: str = A) -> ServerRecord:
        """One server as the store has it."""
        servers = (await self.store.snapshot("default")).servers
        return next(record for record in servers if record.order.address == address)

    async def lines(self, limit: int = 100, before: str = "") -> tuple[Line, ...]:
        return (await self.store.history("default", limit, before)).lines

    # Updates.

    async def test_update(self) -> None:
        """An update changes what it names and nothing else."""
        await self.store.add("default", order(weight=2, backup=True), "ann")
        updated = await self.store.update("default", A, Update(weight=5, max_conns=7), "bob")
        self.assertEqual(order(weight=5, max_conns=7, backup=True), updated.order)
        record = await self.here()
        self.assertEqual(updated, record)
        self.assertEqual((Intent.ENABLE, False), (record.intent, record.expired))
        self.assertTrue(record.updated_at is not None)
        every = Update(
            weight=1,
            max_conns=0,
            heartbeat=False,
            backup=False,
            max_fails=3,
            fail_timeout=2.5,
            slow_start=9.0,
        )
        await self.store.update("default", A, every, "bob")
        self.assertEqual(order(**dict(every.items())), (await self.here()).order)

    async def test_update_of_nothing(self) -> None:
        """An update that changes nothing is no revision; one of no server fails."""
        await self.store.add("default", order(weight=2), "ann")
        same = await self.store.update("default", A, Update(weight=2, fail_timeout=10.0), "bob")
        self.assertEqual(2, same.order.weight)
        await self.store.update("default", A, Update(), "bob")
        self.assertEqual(1, (await self.store.snapshot("default")).revision)
        await self.assertFailure(
            self.store.update("default", B, Update(weight=2), "bob"), ServerNotFound
        )

    async def test_update_of_heartbeats(self) -> None:
        """Who needs no heartbeats any more is not expired; who needs them has time."""
        await self.store.add("default", order(), "ann")
        await self.elapse(40)
        await self.store.expire("default", 30.0)
        record = await self.store.update("default", A, Update(heartbeat=False), "bob")
        self.assertEqual((False, None), (record.expired, record.disabled_reason))
        await self.elapse(100)
        await self.store.update("default", A, Update(heartbeat=True), "bob")
        self.assertEqual(0, (await self.store.expire("default", 30.0)).expired_count)

    # Conditions.

    async def test_only_at(self) -> None:
        """A change for another revision is refused whole, and one for this is made."""
        await self.store.add("default", order(), "ann", 0)
        store = self.store
        for stale in (
            lambda: store.add("default", order(B), "ann", 0),
            lambda: store.remove("default", A, "ann", 2),
            lambda: store.set_intent("default", A, Intent.DISABLE, "ann", only_at=0),
            lambda: store.update("default", A, Update(weight=9), "ann", 7),
            lambda: store.beat("default", A, True, 0),
            lambda: store.expire("default", 30.0, 0),
            lambda: store.recount("default", 0),
            lambda: store.amend(
                {"default": Change(edits=(Edit(address=A, order=None),), only_at=0)}, "ann", "x"
            ),
        ):
            before = await store.snapshot("default")
            error = await self.assertFailure(stale(), StaleRevision)
            self.assertEqual(1, error.revision)
            after = await store.snapshot("default")
            self.assertEqual(before.servers, after.servers)
        self.assertTrue(store.available)
        await store.update("default", A, Update(weight=9), "ann", 1)
        await store.set_intent("default", A, Intent.DRAIN, "ann", Drain(), 2)
        await store.beat("default", A, True, 3)
        await store.remove("default", A, "ann", 3)
        self.assertEqual(4, (await store.snapshot("default")).revision)

    # The history.

    async def test_history(self) -> None:
        """Each change is a line: who, what, before, after; the newest first."""
        await self.store.add("default", order(), "ann")
        await self.store.update("default", A, Update(weight=3), "bob")
        await self.store.set_intent("default", A, Intent.DISABLE, 'o"ps ü\n')
        await self.store.remove("default", A, "ann")
        lines = await self.lines()
        self.assertEqual(
            [
                (4, 1, "ann", "remove"),
                (3, 1, 'o"ps ü\n', "disable"),
                (2, 1, "bob", "update"),
                (1, 1, "ann", "add"),
            ],
            [(line.revision, line.part, line.by, line.action) for line in lines],
        )
        self.assertEqual({A}, {line.address for line in lines})
        removed, disabled, updated, added = lines
        self.assertEqual((None, None), (added.before, removed.after))
        self.assertEqual((1, 3), (updated.before.order.weight, updated.after.order.weight))  # type: ignore[union-attr]
        self.assertEqual(Intent.DISABLE, removed.before.intent)  # type: ignore[union-attr]
        self.assertEqual(disabled.after.order, removed.before.order)  # type: ignore[union-attr]
        now = (await self.store.snapshot("default")).now
        self.assertApproximates(now, removed.at, 5.0)

    async def test_pages(self) -> None:
        """The history is read in parts, backwards and forwards, by the lines' ids."""
        for weight in range(1, 6):
            await self.store.amend(
                {"default": Change(edits=(Edit(address=A, order=order(weight=weight)),))}, "x", "y"
            )
        everything = await self.lines()
        self.assertEqual([5, 4, 3, 2, 1], [line.revision for line in everything])
        ids = [line.id for line in everything]
        first = await self.store.history("default", 2)
        self.assertEqual((everything[:2], ids[-1]), (first.lines, first.oldest))
        self.assertEqual(everything[2:4], await self.lines(2, first.lines[-1].id))
        self.assertEqual((), await self.lines(2, ids[-1]))
        news = await self.store.news("default", 2, ids[3])
        self.assertEqual((everything[2], everything[1]), news.lines)
        self.assertEqual((), (await self.store.news("default", 2, ids[0])).lines)
        self.assertEqual(5, len((await self.store.news("default", 9, "0-0")).lines))

    async def test_empty_history(self) -> None:
        """Where nothing ever happened there is nothing to tell."""
        part = await self.store.history("default", 10)
        self.assertEqual(((), ""), (part.lines, part.oldest))

    async def test_history_of_observations(self) -> None:
        """Expiries, returns and health checks are told, too; beats are not."""
        await self.store.add("default", order(), "ann")
        await self.elapse(40)
        await self.store.expire("default", 30.0)
        await self.store.beat("default", A, True)
        await self.store.beat("default", A, True)
        await self.store.claim_checks("default", "one", [A], 10.0)
        await self.store.conclude_check("default", "one", A, "status 500")
        await self.store.conclude_check("default", "one", A, "")
        lines = await self.lines()
        self.assertEqual(
            [
                ("health_check", "healthy", "status 500"),
                ("health_check", "unhealthy", "status 500"),
                ("heartbeat", "return", ""),
                ("heartbeat", "expire", ""),
                ("ann", "add", ""),
            ],
            [(line.by, line.action, line.cause) for line in lines],
        )
        self.assertEqual((None, None), (lines[1].before, lines[1].after))
        self.assertEqual((False, True), (lines[3].before.expired, lines[3].after.expired))  # type: ignore[union-attr]

    async def test_history_of_drains(self) -> None:
        """What ends a drain is told, and what it ended in."""
        await self.store.add("default", order(), "ann")
        await self.store.set_intent("default", A, Intent.DRAIN, "ann", Drain(then=Then.REMOVE))
        await self.store.finish_drains("default", -1.0)
        line = (await self.lines(1))[0]
        self.assertEqual(("drain", "remove", None), (line.by, line.action, line.after))

    async def test_own_drain(self) -> None:
        """A drain that the server itself asked for is told from an operator's."""
        await self.store.add("default", order(), "ann")
        own = await self.store.set_intent("default", A, Intent.DRAIN, A, Drain(own=True))
        self.assertEqual((Intent.DRAIN, "self_draining"), (own.intent, own.disabled_reason))
        record = await self.store.set_intent("default", A, Intent.DRAIN, "ann")
        self.assertEqual("draining", record.disabled_reason)

    async def test_together(self) -> None:
        """What one step changes has one revision, and a line for each server."""
        await self.store.add("default", order(), "ann")
        await self.store.add("default", order(B), "ann")
        await self.elapse(40)
        await self.store.expire("default", 30.0)
        lines = await self.lines(2)
        self.assertEqual(
            [(3, 2, B), (3, 1, A)], [(line.revision, line.part, line.address) for line in lines]
        )

    # Edits.

    async def test_amend(self) -> None:
        """Servers are added, changed and removed in one revision."""
        await self.store.add("default", order(weight=2), "ann")
        await self.store.add("default", order(B), "ann")
        new = "10.0.0.3:80"
        edits = (
            Edit(address=A, order=order(weight=5), intent=Intent.DISABLE),
            Edit(address=B, order=None),
            Edit(
                address=new,
                order=order(new, max_conns=3),
                intent=Intent.DRAIN,
                drain=Drain(seconds=60.0, then=Then.REMOVE),
            ),
            Edit(address="10.0.0.9:80", order=None),
        )
        revisions = await self.store.amend(
            {"default": Change(edits=edits, only_at=2), "api": Change(edits=())}, "bob", "import"
        )
        self.assertEqual({"default": 3, "api": 0}, revisions)
        snapshot = await self.store.snapshot("default")
        first, second = snapshot.servers
        self.assertEqual(
            (order(weight=5), Intent.DISABLE, "manual"),
            (first.order, first.intent, first.disabled_reason),
        )
        self.assertEqual(
            (order(new, max_conns=3), Intent.DRAIN, Then.REMOVE, "draining"),
            (second.order, second.intent, second.drain_then, second.disabled_reason),
        )
        self.assertApproximates(snapshot.now + 60.0, second.drain_deadline, 5.0)
        self.assertApproximates(snapshot.now, second.last_heartbeat, 5.0)
        told = [(line.action, line.by, line.revision, line.part) for line in await self.lines(3)]
        self.assertEqual([("import", "bob", 3, part) for part in (3, 2, 1)], told)

    async def test_amend_keeps_what_was_observed(self) -> None:
        """An edit touches neither expiry nor counts; enabling does not forgive here."""
        await self.store.add("default", order(), "ann")
        await self.store.sync("one", 60.0, {"default": Report(held={A: 4}, full=True)})
        await self.elapse(40)
        await self.store.expire("default", 30.0)
        await self.store.set_intent("default", A, Intent.DISABLE, "ann")
        enabled = Change(edits=(Edit(address=A, order=order(weight=2)),))
        await self.store.amend({"default": enabled}, "bob", "rollback")
        record = await self.here()
        self.assertEqual(
            (Intent.ENABLE, True, "heartbeat_timeout", 4, 2),
            (
                record.intent,
                record.expired,
                record.disabled_reason,
                record.connections,
                record.order.weight,
            ),
        )

    async def test_amend_several(self) -> None:
        """If one upstream has another revision, no upstream is changed."""
        await self.store.add("api", order(), "ann")
        changes = {
            "default": Change(edits=(Edit(address=A, order=order()),), only_at=0),
            "api": Change(edits=(Edit(address=A, order=None),), only_at=0),
        }
        await self.assertFailure(self.store.amend(changes, "bob", "import"), StaleRevision)
        self.assertEqual((), (await self.store.snapshot("default")).servers)
        changes["api"] = Change(edits=(Edit(address=A, order=None),), only_at=1)
        self.assertEqual(
            {"default": 1, "api": 2}, await self.store.amend(changes, "bob", "import")
        )
        self.assertEqual((), (await self.store.snapshot("api")).servers)
        self.assertEqual(A, (await self.here()).order.address)
