"""The waiting line: first come, first served, one for one slot."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.contract import Intent, ServerOrder
from tests.balancer.building import only, order, record, snapshot, taken


class Waiting:
    """A waiter that keeps what it gets; and does something then, if told so."""

    def __init__(self, then: str = "") -> None:
        self.lease: Lease | None = None
        self.then = then

    def granted(self, lease: Lease) -> None:
        """The lease is here."""
        assert self.lease is None
        self.lease = lease
        if self.then == "release":
            lease.release()
        elif self.then == "raise":
            raise ZeroDivisionError
        elif self.then == "release and raise":
            lease.release()
            raise ZeroDivisionError


class QueueTests(TestCase):
    """An upstream whose servers have one slot each."""

    POLICIES = ("least_conn", "round_robin", "random_two", "hash", "ip_hash", "ewma")

    def setUp(self) -> None:
        self.clock = Clock()

    def full(
        self, letters: str = "a", policy: str = "least_conn", queue: int = 100
    ) -> tuple[Upstream, list[Lease]]:
        """An upstream, and the leases that fill it."""
        made = Upstream(
            "api",
            policy,
            (),
            self.clock.seconds,
            Random(1).random,
            UpstreamOptions(queue=queue),
        )
        made.apply(snapshot(*(order(letter, max_conns=1) for letter in letters)))
        leases = [taken(made) for _ in letters]
        self.assertIsNone(made.choose())
        return made, leases

    def test_released_slot_goes_to_the_first(self) -> None:
        """Each release serves one, in the order in which they came."""
        for policy in self.POLICIES:
            made, [lease] = self.full(policy=policy)
            waiters = [Waiting() for _ in range(3)]
            for waiter in waiters:
                self.assertTrue(made.wait(waiter))
            for index, waiter in enumerate(waiters):
                lease.release()
                self.assertEqual(
                    [w.lease is not None for w in waiters], [n <= index for n in range(3)]
                )
                self.assertIsNone(made.choose())
                assert waiter.lease is not None
                lease = waiter.lease
            self.assertEqual(lease.server.held, 1)
            lease.release()
            self.assertEqual((made.waiting, lease.server.held), (0, 0))

    def test_off_and_full(self) -> None:
        """A queue of no places takes nobody, one of two takes two."""
        for places in (0, 2):
            made, _ = self.full(queue=places)
            self.assertEqual(
                [made.wait(Waiting()) for _ in range(3)], [n < places for n in range(3)]
            )

    def test_only_for_full_servers(self) -> None:
        """Where no server is merely full there is nothing to wait for."""
        made, _ = self.full()
        made.apply(
            snapshot(record(order("a", max_conns=1), intent=Intent.DISABLE), revision=2)
        )
        self.assertFalse(made.wait(Waiting()))
        made.apply(snapshot(record(order("a", max_conns=1), expired=True), revision=3))
        self.assertFalse(made.wait(Waiting()))
        made.apply(snapshot(order("a", max_conns=1), revision=4))
        self.assertFalse(made.wait(Waiting(), (only(made, "a"),)))
        self.assertTrue(made.wait(Waiting()))

    def test_leaving(self) -> None:
        """Who has left is passed over; leaving twice, or unasked, is nothing."""
        made, [lease] = self.full()
        first, second = Waiting(), Waiting()
        made.wait(first)
        made.wait(second)
        made.leave_queue(first)
        made.leave_queue(first)
        lease.release()
        self.assertIsNone(first.lease)
        self.assertIsNotNone(second.lease)

    def test_waiting_twice_keeps_the_place(self) -> None:
        """Who waits already does not lose the place, nor take another."""
        made, [lease] = self.full(queue=2)
        first, second = Waiting(), Waiting()
        made.wait(first)
        made.wait(second)
        self.assertTrue(made.wait(first))
        self.assertEqual(made.waiting, 2)
        lease.release()
        self.assertIsNotNone(first.lease)

    def test_tried_servers(self) -> None:
        """Who has tried a server does not get its slot, and those behind do."""
        made, leases = self.full("ab")
        a, b = only(made, "a"), only(made, "b")
        by_server = {lease.server: lease for lease in leases}
        choosy, other, third = Waiting(), Waiting(), Waiting()
        self.assertTrue(made.wait(choosy, (a,)))
        made.wait(other)
        made.wait(third)
        by_server[a].release()
        self.assertIsNone(choosy.lease)
        assert other.lease is not None
        self.assertIs(other.lease.server, a)
        by_server[b].release()
        assert choosy.lease is not None
        self.assertIs(choosy.lease.server, b)
        self.assertIsNone(third.lease)

    def test_passed_over_keep_their_order(self) -> None:
        """Those who were passed over are still first, in the order in which they came."""
        made, leases = self.full("ab")
        a = only(made, "a")
        by_server = {lease.server: lease for lease in leases}
        first, second, other, last = (Waiting() for _ in range(4))
        made.wait(first, (a,))
        made.wait(second, (a,))
        made.wait(other)
        made.wait(last)
        by_server[a].release()
        self.assertIsNotNone(other.lease)
        by_server[only(made, "b")].release()
        self.assertIsNotNone(first.lease)
        self.assertEqual((second.lease, last.lease), (None, None))

    def test_many_choosy_waiters(self) -> None:
        """One slot is not offered to everybody: the rest is free for all."""
        made, leases = self.full("ab")
        a = only(made, "a")
        for _ in range(50):
            made.wait(Waiting(), (a,))
        last = Waiting()
        made.wait(last)
        next(lease for lease in leases if lease.server is a).release()
        self.assertIsNone(last.lease)
        self.assertIs(taken(made).server, a)
        self.assertEqual(made.waiting, 51)

    def test_key_is_kept(self) -> None:
        """A waiter with a key gets the server of its key when that is free."""
        made, leases = self.full("ab", policy="hash")
        probe = Upstream("api", "hash", (), self.clock.seconds, Random(1).random)
        probe.apply(snapshot(order("a"), order("b")))
        wanted = probe.choose((), b"key")
        assert wanted is not None
        waiter = Waiting()
        made.wait(waiter, (), b"key")
        next(x for x in leases if x.server.key == wanted.server.key).release()
        assert waiter.lease is not None
        self.assertEqual(waiter.lease.server.key, wanted.server.key)

    def test_no_recursion(self) -> None:
        """A thousand waiters that give their slot back at once are served in a row."""
        made, [lease] = self.full(queue=5000)
        waiters = [Waiting("release") for _ in range(5000)]
        for waiter in waiters:
            made.wait(waiter)
        lease.release()
        self.assertTrue(all(waiter.lease is not None for waiter in waiters))
        self.assertEqual((made.waiting, only(made, "a").held), (0, 0))

    def test_waiter_that_raises(self) -> None:
        """Its lease is given back, the next one is served, the mistake is told."""
        for then in ("raise", "release and raise"):
            made, [lease] = self.full()
            broken, fine = Waiting(then), Waiting()
            made.wait(broken)
            made.wait(fine)
            self.assertRaises(ZeroDivisionError, lease.release)
            assert broken.lease is not None
            self.assertTrue(broken.lease.released)
            assert fine.lease is not None
            self.assertFalse(fine.lease.released)
            self.assertEqual(only(made, "a").held, 1)
            fine.lease.release()

    def test_waiting_again_from_within(self) -> None:
        """Who waits again at once is served again, but not without end in one go."""
        made, [lease] = self.full()
        test = self

        class Again:
            """Gives back and waits again, always."""

            count = 0

            def granted(self, lease: Lease) -> None:
                """Again."""
                self.count += 1
                lease.release()
                test.assertTrue(made.wait(self))

        again = Again()
        made.wait(again)
        lease.release()
        self.assertEqual(again.count, 1)
        made.tick()
        self.assertEqual(again.count, 2)

    def becoming_usable(self, how: str) -> Waiting:
        """A waiter on a full upstream; then something happens."""
        made, [lease] = self.full()
        waiter = Waiting()
        made.wait(waiter)
        one = order("a", max_conns=1)
        if how == "added":
            made.apply(snapshot(one, order("b"), revision=2))
        elif how == "limit raised":
            made.apply(snapshot(order("a", max_conns=2), revision=2))
        elif how == "enabled":
            disabled = record(order("b"), intent=Intent.DISABLE)
            made.apply(snapshot(one, disabled, revision=2))
            self.assertIsNone(waiter.lease)
            made.apply(snapshot(one, order("b"), revision=3))
        elif how == "checked up":
            made.set_checked("a:80", True, "503")
            lease.release()
            self.assertIsNone(waiter.lease)
            made.set_checked("a:80", False, "200")
        elif how == "probe due":
            made.apply(snapshot(one, order("b", max_conns=1), revision=2))
            assert waiter.lease is not None
            failing, waiter = waiter.lease, Waiting()
            made.wait(waiter)
            made.failed(failing.server)
            failing.release()
            self.clock.advance(10.1)
            self.assertIsNone(waiter.lease)
            made.tick()
        elif how == "recovered":
            waiter = Waiting()
            made, _ = self.full("ab")
            server = only(made, "a")
            made.failed(server)
            limits = (order("a", max_conns=3), order("b", max_conns=1))
            made.apply(snapshot(*limits, revision=2))
            self.clock.advance(10.1)
            self.assertIs(taken(made).server, server)
            self.assertTrue(made.wait(waiter))
            self.assertIsNone(waiter.lease)
            made.succeeded(server)
        else:
            lease.release()
            assert waiter.lease is not None
            made.acknowledge(made.report())
            made.apply_totals({"a:80": 3})
            waiter.lease.release()
            waiter = Waiting()
            made.wait(waiter)
            self.assertIsNone(waiter.lease)
            made.acknowledge(made.report())
            made.apply_totals({"a:80": 0})
        return waiter

    def test_every_way_to_become_usable(self) -> None:
        """Whatever makes a server usable serves those who wait."""
        for how in (
            "added", "limit raised", "enabled", "checked up", "probe due", "recovered",
            "others gave back",
        ):  # fmt: skip
            self.assertIsNotNone(self.becoming_usable(how).lease, how)

    def test_first_in_line_gets_the_probe(self) -> None:
        """A newcomer who finds a probe due does not take it from those who wait."""
        servers: list[ServerOrder] = [order("a", max_conns=1), order("b", max_conns=1)]
        made, leases = self.full("ab")
        made.apply(snapshot(*servers, revision=2))
        made.failed(leases[0].server)
        leases[0].release()
        waiter = Waiting()
        made.wait(waiter)
        self.clock.advance(10.1)
        self.assertIsNone(made.choose())
        self.assertIsNotNone(waiter.lease)
