"""Tiers, retries, membership by identity, and the counts of other nodes."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import TestCase

from dynbalance.balancer.server import Server, State
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.errors import BadAddress, LeaseError
from dynbalance.store.contract import (
    HEARTBEAT_TIMEOUT,
    MANUAL,
    Intent,
    ServerOrder,
    ServerRecord,
)
from tests.balancer.building import (
    letters,
    only,
    order,
    record,
    snapshot,
    taken,
    upstream,
)


class LeaseTests(TestCase):
    """A slot on a server."""

    def test_counts_while_held(self) -> None:
        """A lease counts one connection from the choice to the release."""
        made = upstream(order("a"))
        lease = taken(made)
        self.assertEqual((lease.server.held, lease.server.picks), (1, 1))
        lease.release()
        self.assertEqual((lease.server.held, lease.server.picks), (0, 1))

    def test_second_release_is_an_error(self) -> None:
        """A lease released twice raises, and counts once."""
        made = upstream(order("a"))
        other, lease = taken(made), taken(made)
        lease.release()
        error = self.assertRaises(LeaseError, lease.release)
        self.assertIn("a:80", str(error))
        self.assertEqual(other.server.held, 1)

    def test_repr(self) -> None:
        """A lease shows its server and whether it is held."""
        lease = taken(upstream(order("a")))
        self.assertEqual(repr(lease), "<Lease on a:80 held>")
        lease.release()
        self.assertEqual(repr(lease), "<Lease on a:80 released>")


class TierTests(TestCase):
    """Primaries first, then backups; nobody twice for one request."""

    def test_backup_waits(self) -> None:
        """A backup gets nothing while a primary can take it."""
        made = upstream(order("a"), order("b", 100, backup=True))
        self.assertEqual(letters(made, 20, hold=True), 20 * "a")

    def test_backup_when_primaries_are_full(self) -> None:
        """A backup serves when every primary is full, and no longer."""
        made = upstream(order("a", max_conns=1), order("b", backup=True))
        lease = taken(made)
        self.assertEqual(letters(made, 2), "bb")
        lease.release()
        self.assertEqual(letters(made, 1), "a")

    def test_backup_within_the_same_request(self) -> None:
        """When the primaries were tried, the backup is next; then there is none."""
        for policy in ("least_conn", "round_robin"):
            made = upstream(
                order("a"), order("b"), order("c", backup=True), policy=policy
            )
            tried: list[Server] = []
            while (lease := made.choose(tried)) is not None:
                tried.append(lease.server)
                lease.release()
            self.assertEqual("".join(sorted(s.key[0] for s in tried[:2])), "ab")
            self.assertEqual([s.key for s in tried[2:]], ["c:80"])
            self.assertIn("3 tried", made.why_none(tried))

    def test_tried_servers_come_back(self) -> None:
        """Passing over a server for one request leaves it to the others."""
        for policy in ("least_conn", "round_robin"):
            made = upstream(order("a"), order("b"), policy=policy)
            for _ in range(20):
                self.assertEqual(taken(made, only(made, "a")).server.key, "b:80")
            self.assertIn("a", letters(made, 20))

    def test_tries(self) -> None:
        """A request has as many tries as there are servers that are not ordered out."""
        made = upstream(
            order("a"),
            order("b", backup=True),
            file=(FileServer(order=order("f"), down=True), FileServer(order=order("g"))),
        )
        self.assertEqual(made.tries, 3)
        made.apply(
            snapshot(record(order("a"), intent=Intent.DISABLE), record(order("b"), expired=True))
        )
        self.assertEqual(made.tries, 1)

    def test_nobody_there(self) -> None:
        """An upstream without servers says so."""
        made = upstream()
        self.assertIs(made.choose(), None)
        self.assertEqual(made.why_none(), "no live upstreams: there are no servers")

    def test_becoming_a_backup(self) -> None:
        """A server changes its tier while it carries a connection."""
        for policy in ("least_conn", "round_robin"):
            made = upstream(order("a"), order("b"), policy=policy)
            lease = taken(made, only(made, "b"))
            made.apply(snapshot(order("a", backup=True), order("b"), revision=2))
            self.assertEqual(letters(made, 5, hold=True), "bbbbb")
            lease.release()
            self.assertEqual(only(made, "a").held, 0)
            made.apply(snapshot(order("a", backup=True), revision=3))
            self.assertEqual(letters(made, 2), "aa")


class MembershipTests(TestCase):
    """The store's servers, applied as differences."""

    def test_what_changed_is_told(self) -> None:
        """The answer names what was added, changed, removed and refused."""
        made = upstream(order("a"), order("b"), order("c"))
        applied = made.apply(
            snapshot(
                order("b", 3),
                order("c"),
                order("d"),
                order("e", weight=0),
                ServerRecord(order=ServerOrder(address="bad host:1", host="bad host", port=1)),
                revision=7,
            )
        )
        self.assertEqual(applied.added, ("d:80",))
        self.assertEqual(applied.changed, ("b:80",))
        self.assertEqual(applied.removed, ("a:80",))
        self.assertEqual(
            applied.refused,
            (
                "e:80: weight 0 is not positive",
                "bad host:1: 'bad host' is not a host name or an IP address",
            ),
        )
        self.assertEqual(made.revision, 7)
        self.assertEqual([s.key for s in made.servers], ["b:80", "c:80", "d:80"])

    def test_identity_is_kept(self) -> None:
        """Counts and statistics outlive a change of every field."""
        made = upstream(order("a"))
        server = only(made, "a")
        lease = taken(made)
        server.responses[2] += 5
        made.apply(
            snapshot(order("a", 9, 50, backup=True, max_fails=4, fail_timeout=2.0), revision=2)
        )
        self.assertIs(only(made, "a"), server)
        self.assertEqual((server.held, server.picks, server.responses[2]), (1, 1, 5))
        self.assertEqual(
            (server.weight, server.max_conns, server.backup, server.max_fails, server.fail_timeout),
            (9, 50, True, 4, 2.0),
        )
        lease.release()

    def test_orders_and_observations(self) -> None:
        """Disabled and expired servers get nothing, and are back when they are not."""
        made = upstream(order("a"), order("b"))
        disabled = ServerRecord(order=order("a"), intent=Intent.DISABLE, disabled_reason=MANUAL)
        made.apply(snapshot(disabled, order("b"), revision=2))
        self.assertEqual(letters(made, 5), "bbbbb")
        self.assertIs(only(made, "a").state, State.DISABLED)
        self.assertEqual(only(made, "a").disabled_reason, MANUAL)
        self.assertEqual(only(made, "a").why_not, "an operator disabled it")
        silent = evolve(disabled, disabled_reason=HEARTBEAT_TIMEOUT)
        made.apply(snapshot(silent, order("b"), revision=2))
        self.assertEqual(only(made, "a").disabled_reason, HEARTBEAT_TIMEOUT)
        made.apply(snapshot(record(order("a"), expired=True), order("b"), revision=3))
        self.assertIs(only(made, "a").state, State.EXPIRED)
        self.assertEqual(letters(made, 5), "bbbbb")
        made.apply(snapshot(order("a"), order("b"), revision=4))
        self.assertIs(only(made, "a").state, State.UP)
        self.assertIs(only(made, "a").why_not, None)
        self.assertIn("a", letters(made, 30))

    def test_new_heartbeat_is_no_change(self) -> None:
        """A record that differs in times alone changes nothing but the record."""
        made = upstream(order("a"))
        later = ServerRecord(order=order("a"), last_heartbeat=5.0)
        self.assertEqual(made.apply(snapshot(later)).changed, ())
        self.assertIs(only(made, "a").record, later)

    def test_removed_server_releases_cleanly(self) -> None:
        """A lease outlives its server."""
        made = upstream(order("a"), order("b"))
        lease = taken(made, only(made, "b"))
        made.apply(snapshot(order("b"), revision=2))
        self.assertIs(made.server("a:80"), None)
        self.assertIs(lease.server.state, State.REMOVED)
        lease.release()
        self.assertEqual(lease.server.held, 0)
        self.assertEqual(letters(made, 3), "bbb")

    def test_removed_and_added_again(self) -> None:
        """A server that comes back while its connections run has their count."""
        made = upstream(order("a", max_conns=2), order("b"))
        server = only(made, "a")
        leases = [taken(made, only(made, "b")) for _ in range(2)]
        made.apply(snapshot(order("b"), revision=2))
        made.apply(snapshot(order("a", max_conns=2), order("b"), revision=3))
        self.assertIs(only(made, "a"), server)
        self.assertEqual(server.held, 2)
        self.assertEqual(letters(made, 3), "bbb")
        leases[0].release()
        self.assertEqual(taken(made, only(made, "b")).server, server)

    def test_unusable_record_is_no_server(self) -> None:
        """A server whose record turns to nonsense is gone, not half there."""
        made = upstream(order("a"), order("b"))
        self.assertEqual(made.apply(snapshot(order("a", 0), order("b"))).removed, ("a:80",))
        self.assertEqual(letters(made, 3), "bbb")

    def test_key_is_the_stores(self) -> None:
        """An address that others wrote in another form keeps their form as key."""
        loud = ServerOrder(address="WEB-1:80", host="WEB-1", port=80)
        six = ServerOrder(address="0::1:81", host="0::1", port=81)
        made = upstream(loud, six)
        self.assertEqual([s.key for s in made.servers], ["WEB-1:80", "0::1:81"])
        self.assertEqual([str(s.address) for s in made.servers], ["web-1:80", "[::1]:81"])

    def test_unix_socket(self) -> None:
        """A unix socket is a server too."""
        made = upstream(ServerOrder(address="unix:/run/web", host="unix:/run/web", port=0))
        self.assertEqual(taken(made).server.address.path, "/run/web")


class FileServerTests(TestCase):
    """Servers that the configuration file names."""

    def test_stay_whatever_the_store_says(self) -> None:
        """The store neither removes nor changes a server of the file."""
        made = upstream(file=(FileServer(order=order("f", 3)),))
        applied = made.apply(
            snapshot(record(order("f", 9), intent=Intent.DISABLE), order("a"), revision=2)
        )
        self.assertEqual((applied.added, applied.changed), (("a:80",), ()))
        self.assertEqual([s.key for s in made.servers], ["f:80", "a:80"])
        self.assertEqual((only(made, "f").weight, only(made, "f").state), (3, State.UP))
        self.assertTrue(only(made, "f").from_file)
        self.assertFalse(only(made, "a").from_file)

    def test_down(self) -> None:
        """A server that the file says is down is never chosen."""
        down = FileServer(order=order("f"), down=True)
        made = upstream(file=(down, FileServer(order=order("g"))))
        self.assertEqual(letters(made, 20), 20 * "g")
        self.assertIs(only(made, "f").state, State.DOWN)

    def test_bad_address(self) -> None:
        """An address that is none is refused at once."""
        bad = FileServer(order=ServerOrder(address="x:0", host="x", port=0))
        self.assertRaises(BadAddress, upstream, file=(bad,))


class CountTests(TestCase):
    """The exchange of counts with the store."""

    def exchange(
        self, made: Upstream, totals: dict[str, int], full: bool = False
    ) -> dict[str, int]:
        """One good sync; what was reported."""
        report = made.report(full)
        made.acknowledge(report)
        made.apply_totals(totals)
        return dict(report)

    def test_only_differences_are_reported(self) -> None:
        """A report has the absolute numbers that the store does not know yet."""
        made = upstream(order("a"), order("b"))
        self.assertEqual(made.report(), {})
        leases = [taken(made, only(made, "b")) for _ in range(2)]
        self.assertEqual(self.exchange(made, {"a:80": 2}), {"a:80": 2})
        self.assertEqual(made.report(), {})
        leases.pop().release()
        leases.append(taken(made, only(made, "b")))
        self.assertEqual(made.report(), {})
        leases.pop().release()
        self.assertEqual(made.report(), {"a:80": 1})
        leases.pop().release()
        self.assertEqual(self.exchange(made, {"a:80": 0}), {"a:80": 0})
        self.assertEqual(made.report(), {})

    def test_unacknowledged_is_reported_again(self) -> None:
        """A report that the store did not take is due again, as it then stands."""
        made = upstream(order("a"))
        lease = taken(made)
        self.assertEqual(made.report(), {"a:80": 1})
        taken(made)
        self.assertEqual(made.report(), {"a:80": 2})
        lease.release()
        self.assertEqual(made.report(), {"a:80": 1})

    def test_full_report(self) -> None:
        """A full report has every server with a connection, and no other."""
        made = upstream(order("a"), order("b"), order("c"))
        taken(made, only(made, "b"), only(made, "c"))
        self.exchange(made, {"a:80": 1})
        taken(made, only(made, "a"), only(made, "c"))
        self.assertEqual(made.report(full=True), {"a:80": 1, "b:80": 1})

    def test_full_report_takes_back(self) -> None:
        """A number that the store has and that is 0 now is in a full report too."""
        made = upstream(order("a"))
        lease = taken(made)
        self.exchange(made, {"a:80": 1})
        lease.release()
        self.assertEqual(self.exchange(made, {"a:80": 0}, full=True), {"a:80": 0})
        self.assertEqual(made.report(), {})

    def test_lapse_with_the_same_total(self) -> None:
        """When this node's part is gone and the total is not less, others have it."""
        made = upstream(order("a"))
        taken(made)
        self.exchange(made, {"a:80": 4})
        made.lapsed()
        made.apply_totals({})
        self.assertEqual((only(made, "a").others, only(made, "a").load), (4, 5))

    def test_others_are_the_rest(self) -> None:
        """What other nodes hold is the total less what the store has from this one."""
        made = upstream(order("a"))
        leases = [taken(made) for _ in range(3)]
        self.exchange(made, {"a:80": 10})
        leases.append(taken(made))
        self.assertEqual((only(made, "a").others, only(made, "a").load), (7, 11))
        self.exchange(made, {"a:80": 12})
        self.assertEqual((only(made, "a").others, only(made, "a").load), (8, 12))

    def test_same_total_of_other_parts(self) -> None:
        """When others dropped what this node took up, the rest is smaller."""
        made = upstream(order("a"))
        self.exchange(made, {"a:80": 5})
        taken(made)
        self.exchange(made, {})
        self.assertEqual((only(made, "a").others, only(made, "a").load), (4, 5))

    def test_changes_during_the_call(self) -> None:
        """Connections that begin while the store answers are counted once."""
        made = upstream(order("a"))
        taken(made)
        report = made.report()
        taken(made)
        made.acknowledge(report)
        made.apply_totals({"a:80": 4})
        self.assertEqual((only(made, "a").others, only(made, "a").load), (3, 5))
        self.assertEqual(made.report(), {"a:80": 2})

    def test_complete_totals(self) -> None:
        """After a fresh start of the store, what is not named is nowhere."""
        made = upstream(order("a"), order("b"))
        self.exchange(made, {"a:80": 5, "b:80": 5, "x:80": 5})
        made.acknowledge({})
        made.apply_totals({"b:80": 2}, complete=True)
        self.assertEqual((only(made, "a").others, only(made, "b").others), (0, 2))

    def test_total_before_the_server(self) -> None:
        """A total that is heard before the server's addition is not lost."""
        made = upstream()
        self.exchange(made, {"a:80": 5})
        made.apply(snapshot(order("a", max_conns=5)))
        self.assertEqual(only(made, "a").others, 5)
        self.assertIs(made.choose(), None)

    def test_removed_server_is_reported_until_nothing_is_left(self) -> None:
        """Connections of a removed server are told until the last has ended."""
        made = upstream(order("a"), order("b"))
        leases = [taken(made, only(made, "b")) for _ in range(2)]
        made.apply(snapshot(order("b"), revision=2))
        self.assertEqual(self.exchange(made, {"a:80": 2}), {"a:80": 2})
        leases.pop().release()
        self.assertEqual(self.exchange(made, {}), {"a:80": 1})
        self.assertEqual(made.report(full=True), {"a:80": 1})
        leases.pop().release()
        self.assertIn("leaving=1", repr(made))
        self.assertEqual(self.exchange(made, {"a:80": 0}), {"a:80": 0})
        self.assertIn("leaving=0", repr(made))
        self.assertEqual(made.report(full=True), {})

    def test_removed_while_the_report_is_under_way(self) -> None:
        """A number that is just being told is taken back, though the server is gone."""
        made = upstream(order("a"), order("b"))
        lease = taken(made, only(made, "b"))
        report = made.report()
        lease.release()
        made.apply(snapshot(order("b"), revision=2))
        made.acknowledge(report)
        made.apply_totals({"a:80": 1})
        self.assertEqual(self.exchange(made, {"a:80": 0}), {"a:80": 0})
        self.assertIn("leaving=0", repr(made))

    def test_lapse(self) -> None:
        """When the store has forgotten this node, all is told again."""
        made = upstream(order("a", max_conns=6))
        taken(made)
        self.exchange(made, {"a:80": 4})
        made.lapsed()
        made.apply_totals({"a:80": 3})
        self.assertEqual(only(made, "a").load, 4)
        self.assertEqual(self.exchange(made, {"a:80": 4}, full=True), {"a:80": 1})
        self.assertEqual(only(made, "a").load, 4)

    def test_total_smaller_than_our_share(self) -> None:
        """A total that cannot be is never taken for fewer than this node's own."""
        made = upstream(order("a", max_conns=2))
        taken(made)
        taken(made)
        self.exchange(made, {"a:80": 0})
        self.assertEqual(only(made, "a").load, 2)
        self.assertIs(made.choose(), None)


class ReprTests(TestCase):
    """What logs and a debugger show."""

    def test_server(self) -> None:
        """One line with what decides about the server."""
        made = upstream(order("a", 2, 5))
        taken(made)
        made.apply_totals({"a:80": 3})
        self.assertEqual(
            repr(only(made, "a")),
            "<Server a:80 up weight=2 held=1 others=3 max_conns=5 fails=0>",
        )

    def test_upstream(self) -> None:
        """One line with name, policy and size."""
        self.assertEqual(
            repr(upstream(order("a"))),
            "<Upstream api least_conn servers=1 leaving=0 revision=1>",
        )
