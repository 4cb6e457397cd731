"""Tests of updates, conditions, the history and rollbacks by the admin API."""

from __future__ import annotations

from typing import Any

from dynbalance.store.changes import Update
from dynbalance.store.contract import Intent
from dynbalance.store.journal import Step
from tests.admin.test_api import ApiCase
from tests.health.stores import order

A, B = "10.0.0.1:80", "10.0.0.2:80"


class ChangingCase(ApiCase):
    """A node whose servers are changed."""

    def order_of(self, host: str = "10.0.0.1", **fields: object) -> dict[str, Any]:
        return self.post("add", host=host, port=80, **fields)

    def change(self, what: str, host: str = "10.0.0.1", **fields: object) -> dict[str, Any]:
        document = self.post(what, host=host, port=80, **fields)
        self.assertEqual(document["code"], 200, document)
        return document

    def statuses(self) -> dict[str, Any]:
        return {server["addr"]: server for server in self.get("status")["data"]}

    def told(self, target: str = "history") -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.get(target)["data"]
        return told


class UpdateTests(ChangingCase):
    """Servers are changed while they serve."""

    def test_update(self) -> None:
        """What is named changes at once, and nothing else."""
        self.order_of(weight=2, backup=1)
        server = self.upstream.server(A)
        document = self.change("update", weight=7, max_conns=5)
        self.assertEqual(document["message"], "Server updated successfully")
        self.assertEqual(
            document["data"],
            {
                "addr": A,
                "host": "10.0.0.1",
                "port": 80,
                "weight": 7,
                "max_conns": 5,
                "heartbeat": True,
                "backup": True,
                "max_fails": 1,
                "fail_timeout": 10,
                "slow_start": 0,
                "action": "enable",
            },
        )
        assert server is not None
        self.assertIs(self.upstream.server(A), server)
        self.assertEqual((server.weight, server.max_conns, server.backup), (7, 5, True))

    def test_refused(self) -> None:
        """An update of nothing, of nobody, of the file's, or out of range is refused."""
        self.order_of()
        self.refused(
            self.post("update", host="10.0.0.1", port=80),
            400,
            "Nothing to update: name what is to change",
        )
        self.refused(
            self.post("update", host="10.0.0.9", port=80, weight=2),
            404,
            "Server not found: 10.0.0.9:80",
        )
        self.refused(
            self.post("update", host="127.0.0.1", port=7001, upstream="api", weight=2),
            400,
            "Server is defined in the configuration file: 127.0.0.1:7001",
        )
        self.refused(
            self.post("update", host="10.0.0.1", port=80, weight=0),
            400,
            "Invalid weight: 0 is not 1-65535",
        )


class SaidByServersTests(ChangingCase):
    """What a server says of itself with its heartbeat."""

    def beat(self, **more: object) -> dict[str, Any]:
        self.change("refresh", **more)
        status: dict[str, Any] = self.statuses()[A]
        return status

    def test_weight(self) -> None:
        """Another weight is taken; the same one is no change."""
        self.order_of()
        self.assertEqual(self.beat(weight=4)["weight"], 4)
        self.assertEqual(self.beat(weight=4)["weight"], 4)
        self.assertEqual(self.beat()["weight"], 4)
        self.assertEqual(len(self.told()), 2)

    def test_draining(self) -> None:
        """A server that wants no new work gets none until it wants it again."""
        self.order_of()
        status = self.beat(draining="true")
        self.assertEqual(status["state"], "draining")
        self.assertEqual(status["disabled_reason"], "self_draining")
        self.assertEqual(self.beat()["state"], "draining")
        self.assertEqual(self.beat(draining=1)["state"], "draining")
        self.assertEqual(self.beat(draining=0)["state"], "up")
        self.assertEqual(self.beat(draining=0)["state"], "up")
        self.assertEqual(len(self.told()), 3)

    def test_persons_first(self) -> None:
        """What a person has ordered no heartbeat undoes."""
        self.order_of()
        for action, state in (("drain", "draining"), ("disable", "disabled")):
            self.change("toggle", action=action)
            self.assertEqual(self.beat(draining=0)["state"], state)
            self.assertEqual(self.beat(draining=1)["state"], state)
        self.assertEqual(len(self.told()), 3)

    def test_same_moment(self) -> None:
        """Also if that comes between the heartbeat and what it is to change."""
        self.order_of()
        self.beat(draining=1)
        inner = self.store.inner
        set_intent = inner.set_intent

        def late(*arguments: Any, **more: Any) -> Any:
            self.successResultOf(set_intent("default", A, Intent.DISABLE, "ann"))
            return set_intent(*arguments, **more)

        self.patch(inner, "set_intent", late)
        self.assertEqual(self.beat(draining=0)["state"], "disabled")


class ConditionTests(ChangingCase):
    """The revision as an entity tag."""

    def test_etag(self) -> None:
        """The status has its revision as a tag, and is not told again to who knows it."""
        self.order_of()
        reply = self.ask("GET", "/upstream/status")
        self.assertIn((b"etag", b'"1"'), reply.headers)
        for known in (b'"1"', b'W/"1"', b'"7", "1"', b"*"):
            again = self.ask("GET", "/upstream/status", if_none_match=known)
            self.assertEqual((again.status, again.body), (304, b""))
            self.assertEqual(dict(again.headers)[b"etag"], b'"1"')
            self.assertNotIn(b"content-length", dict(again.headers))
        other = self.ask("GET", "/upstream/status", if_none_match=b'"0"')
        self.assertEqual(other.status, 200)

    def test_stale(self) -> None:
        """Every order for another revision is a conflict and changes nothing."""
        self.order_of()
        self.order_of("10.0.0.2")
        before = self.statuses()
        for what, more in (
            ("add", b"&host=10.0.0.3"),
            ("update", b"&weight=3"),
            ("remove", b""),
            ("remove", b"&drain=9"),
            ("toggle", b"&action=disable"),
            ("toggle", b"&action=drain"),
            ("refresh", b""),
        ):
            body = b"port=80" + (more if b"host" in more else b"&host=10.0.0.1" + more)
            reply = self.ask("POST", f"/upstream/{what}", body, if_match=b'"1"')
            self.refused(
                self.read(reply), 409, "The membership has changed: its revision is 2"
            )
        for what, body in (("reset", b""), ("cleanup", b""), ("rollback", b"revision=1")):
            reply = self.ask("POST", f"/upstream/{what}", body, if_match=b'"1"')
            self.assertEqual(reply.status, 409)
        self.assertEqual(self.statuses(), before)

    def test_fresh(self) -> None:
        """An order for this revision, or for any, is carried out."""
        self.order_of()
        for tag, weight in ((b'"1"', 2), (b' "2" ', 3), (b"*", 4)):
            body = b"host=10.0.0.1&port=80&weight=%d" % weight
            reply = self.ask("POST", "/upstream/update", body, if_match=tag)
            self.assertEqual(reply.status, 200)
        self.assertEqual(self.statuses()[A]["weight"], 4)

    def test_no_tag(self) -> None:
        """What is no tag of ours is refused."""
        for tag in (b"1", b'W/"1"', b'"x"', b'"1", "2"', b""):
            reply = self.ask("POST", "/upstream/cleanup", if_match=tag)
            self.refused(
                self.read(reply),
                400,
                'Invalid If-Match: not a revision in quotes, such as "17"',
            )


class OverviewTests(ChangingCase):
    """All upstreams at a glance."""

    def test_upstreams(self) -> None:
        """Names, policies, states and counts."""
        self.order_of()
        self.order_of("10.0.0.2")
        self.change("toggle", action="disable")
        lease = self.upstream.choose()
        first, second = self.get("upstreams")["data"]
        self.assertEqual(
            first,
            {
                "name": "default",
                "policy": "least_conn",
                "revision": 3,
                "servers": 2,
                "usable": 1,
                "states": {"disabled": 1, "up": 1},
                "connections": 1,
                "node_connections": 1,
                "waiting": 0,
                "panic": False,
            },
        )
        self.assertEqual((second["name"], second["states"]), ("api", {"down": 1, "up": 1}))
        assert lease is not None
        lease.release()


class HistoryTests(ChangingCase):
    """Who changed what."""

    def test_lines(self) -> None:
        """Each line says when, who, what, before and after; the newest comes first."""
        self.order_of(weight=2)
        self.clock.advance(5)
        self.change("update", weight=3)
        updated, added = self.told()
        self.assertEqual(
            (updated["revision"], updated["by"], updated["action"], updated["address"]),
            (2, "192.0.2.7", "update", A),
        )
        self.assertEqual(updated["time"] - added["time"], 5)
        self.assertEqual((updated["before"]["weight"], updated["after"]["weight"]), (2, 3))
        self.assertEqual(updated["after"]["action"], "enable")
        self.assertNotIn("before", added)
        self.assertNotIn("cause", added)

    def test_observations(self) -> None:
        """Expiries and health checks are told, with what was found."""
        self.order_of()
        self.clock.pump([1.0] * 31)
        self.post("cleanup")
        self.successResultOf(self.store.inner.claim_checks("default", "one", [A], 9.0))
        self.successResultOf(self.store.inner.conclude_check("default", "one", A, "status 500"))
        check, expiry, _ = self.told()
        self.assertEqual((check["action"], check["cause"]), ("unhealthy", "status 500"))
        self.assertEqual((expiry["by"], expiry["action"]), ("heartbeat", "expire"))
        self.assertTrue(expiry["after"]["expired"])
        self.assertNotIn("expired", expiry["before"])

    def test_parts(self) -> None:
        """The lines are read in parts, and those of one server alone."""
        self.order_of()
        self.order_of("10.0.0.2")
        for weight in range(2, 7):
            self.change("update", weight=weight)
        self.assertEqual([line["revision"] for line in self.told("history?limit=2")], [7, 6])
        last = self.told("history?limit=2")[-1]["id"]
        older = self.told(f"history?limit=3&before={last}")
        self.assertEqual([line["revision"] for line in older], [5, 4, 3])
        self.assertEqual(
            [line["revision"] for line in self.told(f"history?address={B}")], [2]
        )
        self.refused(
            self.get("history?before=x"), 400, "Invalid before: x is no id of a line"
        )

    def test_long(self) -> None:
        """More lines than are read at once are all found."""
        self.order_of()
        for weight in range(1, 1200):
            update = Update(weight=weight % 7 + 1)
            self.successResultOf(self.store.inner.update("default", A, update, "x"))
        self.assertEqual(len(self.told("history?limit=1000")), 1000)
        self.order_of("10.0.0.2")
        (line,) = self.told(f"history?address={B}")
        self.assertEqual(line["action"], "add")
        self.assertEqual(len(self.told(f"history?limit=1000&address={A}")), 1000)


class RollbackTests(ChangingCase):
    """Back to an earlier revision."""

    def back(self, revision: int, **more: object) -> dict[str, Any]:
        document = self.post("rollback", revision=revision, **more)
        self.assertEqual(document["code"], 200, document)
        return document

    def scene(self) -> dict[str, Any]:
        """Revision 3 with two servers, then four changes."""
        self.order_of(weight=2)
        self.order_of("10.0.0.2")
        self.change("toggle", "10.0.0.2", action="disable")
        before = self.statuses()
        self.change("update", weight=9)
        self.change("remove", "10.0.0.2")
        self.change("add", "10.0.0.3")
        self.change("toggle", action="drain")
        return before

    def test_back(self) -> None:
        """Servers come back as they were, new ones go; one new revision says so."""
        before = self.scene()
        self.clock.advance(7)
        document = self.back(3)
        self.assertEqual(document["message"], "Rolled back to revision 3")
        self.assertEqual(
            document["data"],
            {"revision": 8, "added": [B], "removed": ["10.0.0.3:80"], "changed": [A]},
        )
        after = self.statuses()
        self.assertEqual(set(after), {A, B})
        for address, was in before.items():
            for name in ("weight", "max_conns", "enabled", "state"):
                self.assertEqual(after[address].get(name), was.get(name), (address, name))
        self.assertEqual(after[B]["time_since_heartbeat"], 0)
        self.assertEqual(after[A]["time_since_heartbeat"], 7)
        lines = self.told("history?limit=3")
        self.assertEqual({(line["revision"], line["action"]) for line in lines}, {(8, "rollback")})

    def test_undo_the_undone(self) -> None:
        """A rollback is a change like others, and can be undone."""
        self.scene()
        there = self.statuses()
        self.back(3)
        self.back(7)
        for address, was in there.items():
            for name in ("weight", "max_conns", "enabled", "state"):
                self.assertEqual(self.statuses()[address].get(name), was.get(name))

    def test_to_nothing(self) -> None:
        """Revision 0 is the upstream before its first server."""
        self.scene()
        self.back(0)
        self.assertEqual(self.statuses(), {})

    def test_dry_run(self) -> None:
        """What would change is told, and is not changed."""
        self.scene()
        document = self.back(3, dry_run=1)
        self.assertEqual(
            document["data"],
            {"revision": 7, "added": [B], "removed": ["10.0.0.3:80"], "changed": [A]},
        )
        self.assertEqual(set(self.statuses()), {A, "10.0.0.3:80"})

    def test_observations_stay(self) -> None:
        """An expiry is not undone, and heartbeats and counts are not touched."""
        self.order_of(weight=2)
        self.order_of("10.0.0.2")
        self.clock.pump([1.0] * 31)
        self.post("refresh", host="10.0.0.2", port=80)
        self.post("cleanup")
        self.change("update", weight=5)
        self.back(2)
        status = self.statuses()[A]
        self.assertEqual(
            (status["weight"], status["state"], status["disabled_reason"]),
            (2, "expired", "heartbeat_timeout"),
        )
        self.assertEqual(self.told("history?limit=1")[0]["address"], A)

    def test_nothing_to_do(self) -> None:
        """Where only observations came after it, there is nothing to undo."""
        self.order_of()
        self.clock.pump([1.0] * 31)
        self.post("cleanup")
        for revision in (1, 2):
            self.assertEqual(self.back(revision)["message"], "Nothing to roll back")
        self.assertEqual(len(self.told()), 2)

    def test_too_far(self) -> None:
        """A revision to come, and one that the history has forgotten, are refused."""
        self.refused(
            self.post("rollback", revision=1),
            400,
            "Invalid revision: 1 is newer than 0, the last one",
        )
        self.order_of()
        for weight in range(1, 10_005):
            update = Update(weight=weight % 7 + 1)
            self.successResultOf(self.store.inner.update("default", A, update, "x"))
        first = self.successResultOf(self.store.inner.snapshot("default")).revision - 9_999
        self.refused(
            self.post("rollback", revision=first - 2),
            400,
            f"The history does not reach back to revision {first - 2}:"
            f" it begins with revision {first}",
        )
        self.assertEqual(self.post("rollback", revision=first - 1)["code"], 200)
        self.refused(self.post("rollback"), 400, "Missing required parameter: revision")

    def test_blind(self) -> None:
        """Nobody can go back behind a change of which nobody knows what it was."""
        self.order_of()
        self.change("update", weight=5)
        journal = self.store.inner.roster("default").journal
        journal.write(Step("by hand", 1000.0), "repair", "")
        self.change("update", weight=6)
        self.back(3)
        self.assertEqual(self.statuses()[A]["weight"], 5)
        self.refused(
            self.post("rollback", revision=2),
            400,
            "The history does not reach back to revision 2:"
            " at revision 3 (repair, by hand) it does not know what was",
        )

    def test_somebody_was_faster(self) -> None:
        """A change in between is seen: the rollback is thought out anew."""
        self.order_of()
        self.change("update", weight=5)
        amend = self.store.inner.amend
        racing = [order(9000), order(9001)]

        def slow(*arguments: Any) -> Any:
            if racing:
                self.successResultOf(self.store.inner.add("default", racing.pop(), "else"))
            return amend(*arguments)

        self.patch(self.store.inner, "amend", slow)
        document = self.back(1)
        self.assertEqual(document["data"]["revision"], 5)
        self.assertEqual(set(self.statuses()), {A})
        racing += [order(9000 + n) for n in range(9)]
        self.assertEqual(self.post("rollback", revision=2)["code"], 409)

    def test_away(self) -> None:
        """While the store is away nothing is told and nothing changed."""
        self.order_of()
        self.store.lose()
        self.assertEqual(self.get("history")["code"], 503)
        self.assertEqual(self.post("rollback", revision=0)["code"], 503)

    def test_drain_again(self) -> None:
        """A drain that comes back has its whole time again."""
        self.order_of()
        self.change("toggle", action="drain", deadline=60, then="disable")
        self.clock.advance(40)
        self.change("toggle", action="enable")
        self.back(2)
        status = self.statuses()[A]
        self.assertEqual((status["drain_remaining"], status["drain_then"]), (60, "disable"))
