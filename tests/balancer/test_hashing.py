"""
The same key leads to the same server as behind nginx.

The words were made by nginx 1.22: for each key the servers that it tried one
after the other while none of them listened.
"""

from __future__ import annotations

from random import Random
from zlib import crc32

from twisted.trial.unittest import TestCase

from dynbalance.balancer import hashing, ring
from dynbalance.balancer.address import Address
from dynbalance.balancer.hashing import POINTS, ConsistentHash, WeightHash
from dynbalance.balancer.means import Means
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.ring import Ring
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent, ServerOrder
from tests.balancer.building import only, order, record, snapshot, taken, upstream

KEYS = [*map(str, range(1, 25)), "127.0.0.1", "user@example", 50 * "x"]

CLIENTS = [
    *(f"127.0.{n}.2" for n in range(1, 13)),
    "10.1.2.3", "192.168.255.7", "203.0.113.9",
    "2001:db8::1", "2001:db8::2", "::1", "fe80::1234:5678",
]  # fmt: skip


MANY = [b"10.%d.%d.1" % (n >> 8, n & 255) for n in range(3000)]


def four(policy: str, consistent: bool = True, down: str = "") -> tuple[Upstream, dict[str, str]]:
    """
    The upstream of which nginx was asked: a, b, c, d of weights 1, 2, 1, 3.

    @return: it, and the letters of its keys.
    """
    third, fourth = "127.0.0.1:19083", "127.0.0.1:19084"
    if policy == "hash" and consistent:
        third, fourth = "[::1]:19083", "unix:/run/d-19084"
    addresses = ("127.0.0.1:19081", "127.0.0.1:19082", third, fourth)
    made = Upstream(
        "four",
        policy,
        [
            FileServer(order=plain_order(text, weight), down=letter in down)
            for letter, text, weight in zip("abcd", addresses, (1, 2, 1, 3), strict=True)
        ],
        lambda: 0.0,
        Random(1).random,
        UpstreamOptions(hash_consistent=consistent),
    )
    return made, dict(zip(addresses, "abcd", strict=True))


def plain_order(text: str, weight: int = 1) -> ServerOrder:
    """An order without limits."""
    address = Address.parse(text)
    return ServerOrder(
        address=text,
        host=address.host,
        port=address.port,
        weight=weight,
        max_conns=0,
        max_fails=0,
    )


def ring_of(made: Upstream) -> Ring:
    """That of the primaries."""
    policy = made._primaries
    assert isinstance(policy, ConsistentHash)
    return policy._ring


def owners(made: Upstream) -> list[tuple[int, str]]:
    """The points of its ring in their order, and whose they are."""
    return [(point, server.key) for point, server in ring_of(made).owned.items()]


def walks(made: Upstream, letters: dict[str, str], keys: list[str]) -> str:
    """For each key the servers that are tried until there is none."""
    words = []
    for key in keys:
        tried: list[Server] = []
        while (lease := made.choose(tried, key.encode())) is not None:
            tried.append(lease.server)
            lease.release()
        words.append("".join(letters[server.key] for server in tried))
    return " ".join(words)


def keyed(policy: str, consistent: bool = True, servers: str = "ab") -> Upstream:
    """An upstream with servers of weight 1."""
    made = Upstream(
        "api",
        policy,
        (),
        lambda: 0.0,
        Random(1).random,
        UpstreamOptions(hash_consistent=consistent),
    )
    made.apply(snapshot(*map(order, servers)))
    return made


class Ticking:
    """A clock; to look at it takes half a millisecond."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += 0.0005
        return self.at


def led_key(made: Upstream, key: bytes) -> str:
    """The server that a key leads to."""
    lease = made.choose((), key)
    assert lease is not None
    lease.release()
    return lease.server.key


def led(made: Upstream, keys: list[bytes]) -> str:
    """The servers that the keys lead to."""
    letters = ""
    for key in keys:
        lease = made.choose((), key)
        assert lease is not None
        letters += lease.server.key[0]
        lease.release()
    return letters


class NginxTests(TestCase):
    """Word for word what nginx does, first tries, retries and the way out."""

    def test_plain(self) -> None:
        """hash without consistent."""
        self.assertEqual(
            walks(*four("hash", consistent=False), KEYS),
            "bdca bcad bcda dbca dbca dbac dabc dcba cbda bdca abdc abdc acbd dbac bdac adbc"
            " bdac adbc dbca dabc cdba badc badc dcab dbac bdac badc",
        )

    def test_plain_with_some_down(self) -> None:
        """Two of the servers are down: their part of the keys goes to the others."""
        self.assertEqual(
            walks(*four("hash", consistent=False, down="ad"), KEYS),
            "bc bc bc bc bc bc bc cb cb bc bc bc cb bc bc bc bc bc bc bc cb bc bc cb bc bc bc",
        )

    def test_consistent(self) -> None:
        """hash with consistent: IPv4, IPv6 and unix servers."""
        self.assertEqual(
            walks(*four("hash"), KEYS),
            "dabc bdac abcd bdac dabc bcda bdac dabc cdba dcab bdac dacb dbac badc abdc adbc"
            " dabc abdc dcba bdca cbad cdab dcab cdba dcab adbc cdba",
        )

    def test_ip_hash(self) -> None:
        """ip_hash: IPv4 and IPv6 clients."""
        self.assertEqual(
            walks(*four("ip_hash"), CLIENTS),
            "bdac cdba dbac dbac dabc abdc bdca bcad cdba dabc dcba dabc dbac bdca bdac cbad"
            " dbac bdca dacb",
        )

    def test_two_peers(self) -> None:
        """The key 127.0.0.1 leads to the second of two."""
        made = keyed("hash", consistent=False)
        self.assertEqual(led(made, [b"127.0.0.1"] * 3), "bbb")

    def test_ip_hash_takes_networks(self) -> None:
        """The last octet of an IPv4 address does not matter; 127.0.1.2 to 127.0.30.2 are even."""
        made = upstream(*map(order, "abc"), policy="ip_hash")
        word = led(made, [b"127.0.%d.2" % n for n in range(1, 31)])
        self.assertEqual([word.count(letter) for letter in "abc"], [10, 10, 10])
        self.assertEqual(word, led(made, [b"127.0.%d.99" % n for n in range(1, 31)]))


class KeyTests(TestCase):
    """What holds for every policy that goes by a key."""

    POLICIES = (("hash", True), ("hash", False), ("ip_hash", True))

    def test_wants_key(self) -> None:
        """These policies want a key, and the others do not."""
        for policy, consistent in self.POLICIES:
            self.assertTrue(keyed(policy, consistent).wants_key)
        for policy in ("least_conn", "round_robin", "random_two", "ewma"):
            made = upstream(order("a"), order("b"), policy=policy)
            self.assertFalse(made.wants_key)
            self.assertIsNotNone(made.choose((), b"key"))

    def test_no_key(self) -> None:
        """An empty key chooses in turn."""
        for policy, consistent in self.POLICIES:
            made = keyed(policy, consistent, "abc")
            self.assertEqual(led(made, [b""] * 6), "abcabc")

    def test_single_server(self) -> None:
        """One server gets all keys; without one there is none."""
        for policy, consistent in self.POLICIES:
            self.assertEqual(led(keyed(policy, consistent, "a"), MANY[:5]), "aaaaa")
            self.assertIsNone(keyed(policy, consistent, "").choose((), b"key"))

    def test_shares_follow_weights(self) -> None:
        """Of many keys each server has a part like its weight."""
        for policy in ("hash", "ip_hash"):
            made = upstream(order("a"), order("b", 2), order("c", 5), policy=policy)
            word = led(made, MANY)
            for letter, weight in zip("abc", (1, 2, 5), strict=True):
                self.assertApproximates(word.count(letter) / 3000, weight / 8, 0.06)

    def test_others_keep_their_keys(self) -> None:
        """While a server is disabled only its own keys go elsewhere; then they return."""
        for policy, consistent in self.POLICIES:
            made = keyed(policy, consistent, "abcd")
            before = led(made, MANY)
            made.apply(
                snapshot(
                    order("a"), record(order("b"), intent=Intent.DISABLE), order("c"), order("d"),
                    revision=2,
                )
            )  # fmt: skip
            during = led(made, MANY)
            for was, now in zip(before, during, strict=True):
                self.assertEqual(now == was, was != "b")
            self.assertEqual(set(during), set("acd"))
            made.apply(snapshot(*map(order, "abcd"), revision=3))
            self.assertEqual(led(made, MANY), before)

    def test_full_server_is_passed_over(self) -> None:
        """A server at max_conns gets none of its keys until one is released."""
        for policy, _ in self.POLICIES:
            made = upstream(order("a", max_conns=1), order("b", max_conns=1), policy=policy)
            first = made.choose((), b"10.0.0.1")
            second = made.choose((), b"10.0.0.1")
            assert first is not None
            assert second is not None
            self.assertIsNot(first.server, second.server)
            self.assertIsNone(made.choose((), b"10.0.0.1"))
            first.release()
            third = made.choose((), b"10.0.0.1")
            assert third is not None
            self.assertIs(third.server, first.server)

    def test_backups(self) -> None:
        """Backups have the keys when no primary is usable, each key its own backup."""
        for policy, _ in self.POLICIES:
            primary = order("a", max_conns=1)
            backups = [order(letter, backup=True) for letter in "bcd"]
            made = upstream(primary, *backups, policy=policy)
            self.assertEqual(led(made, MANY[:9]), 9 * "a")
            taken(made)
            word = led(made, MANY)
            self.assertEqual(set(word), set("bcd"))
            self.assertEqual(led(made, MANY), word)

    def test_slow_start_does_not_apply(self) -> None:
        """A new server has its part of the keys at once."""
        for policy, consistent in self.POLICIES:
            made = Upstream(
                "api",
                policy,
                (),
                lambda: 0.0,
                Random(1).random,
                UpstreamOptions(slow_start=30.0, hash_consistent=consistent),
            )
            made.apply(snapshot(order("a")))
            made.apply(snapshot(order("a"), order("b"), revision=2))
            self.assertEqual((only(made, "b").slow, only(made, "b").pull), (1, 1))
            self.assertGreater(led(made, MANY).count("b"), 1200)


class ConsistentTests(TestCase):
    """The ring."""

    def test_few_keys_move(self) -> None:
        """With a fifth server only those keys move that it gets."""
        made = keyed("hash", servers="abcd")
        before = led(made, MANY)
        made.apply(snapshot(*map(order, "abcde"), revision=2))
        after = led(made, MANY)
        for was, now in zip(before, after, strict=True):
            self.assertIn(now, (was, "e"))
        self.assertApproximates(after.count("e") / 3000, 1 / 5, 0.07)
        made.apply(snapshot(*map(order, "abcd"), revision=3))
        self.assertEqual(led(made, MANY), before)

    def test_order_does_not_matter(self) -> None:
        """Where a server stands in the list is nothing to its keys."""
        one = upstream(*map(order, "abc"), policy="hash")
        other = upstream(*map(order, "cba"), policy="hash")
        self.assertEqual(led(one, MANY), led(other, MANY))

    def test_weight_changes(self) -> None:
        """A server that is made heavier takes keys, and loses none."""
        made = keyed("hash", servers="abc")
        before = led(made, MANY)
        made.apply(snapshot(order("a", 3), order("b"), order("c"), revision=2))
        after = led(made, MANY)
        self.assertGreater(after.count("a"), before.count("a") + 300)
        for was, now in zip(before, after, strict=True):
            self.assertIn(now, (was, "a"))

    def test_ring_is_made_before_the_first_request(self) -> None:
        """The ring is there when servers are; requests do not touch it."""
        made = keyed("hash", servers="ab")
        points = ring_of(made)
        self.assertEqual(len(points.owned), 2 * POINTS)
        led(made, MANY[:5])
        self.assertIs(ring_of(made), points)
        self.assertEqual(points.size, 2 * POINTS)

    def check_changes(self) -> None:
        """After each of some changes, small and large, the ring is as if made anew."""
        random = Random(3)
        weights = {f"s{n:02}": 1 for n in range(40)}
        made = keyed("hash", servers="")
        for revision in range(2, 30):
            for _ in range(random.choice((0, 1, 2, 30))):
                name = f"s{random.randrange(44):02}"
                weights[name] = random.choice((0, 1, 1, 2))
            servers = [plain_order(f"{n}:80", weights[n]) for n in sorted(weights) if weights[n]]
            made.apply(snapshot(*servers, revision=revision))
            led(made, MANY[:1])
            fresh = upstream(*servers, policy="hash")
            led(fresh, MANY[:1])
            self.assertEqual(owners(made), owners(fresh))
            self.assertEqual(ring_of(made).size, ring_of(fresh).size)

    def test_ring_is_mended(self) -> None:
        """A changed ring has the points of those that are there, and no other."""
        self.check_changes()

    def test_shared_points(self) -> None:
        """So it has where servers share points: the first in the list has them."""
        for mask in (0xFFFFF, 0xFFF):
            for module in (hashing, ring):
                self.patch(module, "crc32", lambda *data, mask=mask: crc32(*data) & mask)
            self.check_changes()

    def busy(self, count: int) -> tuple[Upstream, Ticking, list[ServerOrder]]:
        """Some servers of whom somebody has asked, and their clock."""
        now = Ticking()
        made = Upstream("busy", "hash", (), now, Random(1).random)
        orders = [plain_order(f"10.0.{n >> 8}.{n & 255}:80") for n in range(2 * count)]
        made.apply(snapshot(*orders[:count]))
        led(made, MANY[:1])
        return made, now, orders

    def test_bit_by_bit(self) -> None:
        """
        When many servers have come, each request does a bounded part of what is to be
        done, and is led as before or to a new one; in the end all are led as if the ring
        was made anew.
        """
        made, now, orders = self.busy(100)
        made.apply(snapshot(*orders, revision=2))
        fresh = upstream(*orders, policy="hash")
        before, after = upstream(*orders[:100], policy="hash"), owners(fresh)
        new = [order.address for order in orders[100:]]
        requests = 0
        while ring_of(made).size < 200 * POINTS:
            key = MANY[requests % len(MANY)]
            began = now.at
            server = led_key(made, key)
            self.assertLess(now.at - began, 0.02)
            self.assertIn(server, (led_key(before, key), *new))
            requests += 1
            self.assertLess(requests, 1000)
        self.assertEqual(owners(made), after)
        self.assertGreater(requests, 20)

    def test_gone_at_once(self) -> None:
        """Servers that left have no keys from then on, though their points are there yet."""
        made, _, orders = self.busy(100)
        made.apply(snapshot(*orders[::3][:30], revision=2))
        fresh = upstream(*orders[::3][:30], policy="hash")
        self.assertGreater(ring_of(made).size, 30 * POINTS)
        self.assertEqual(owners(made), owners(fresh))
        for key in MANY[:300]:
            self.assertEqual(led_key(made, key), led_key(fresh, key))
        self.assertEqual(ring_of(made).size, 30 * POINTS)

    def test_gone_before_it_was_there(self) -> None:
        """A server that leaves while its points come leaves none; it may come again."""
        made, _, orders = self.busy(100)
        for revision in range(2, 12):
            made.apply(snapshot(*orders[: 100 if revision % 2 else 200], revision=revision))
            led(made, MANY[:3])
        made.apply(snapshot(*orders[:150], revision=12))
        fresh = upstream(*orders[:150], policy="hash")
        for _ in range(1000):
            led(made, MANY[:1])
        self.assertEqual(owners(made), owners(fresh))
        self.assertEqual(ring_of(made).size, 150 * POINTS)
        slots = len(ring_of(made)._servers)
        for revision in range(13, 33):
            made.apply(snapshot(*orders[: 150 if revision % 2 else 100], revision=revision))
            for _ in range(300):
                led(made, MANY[:1])
        self.assertEqual(len(ring_of(made)._servers), slots)

    def test_much_larger_and_smaller(self) -> None:
        """A ring that becomes a hundred times as large, or as small, is another one."""
        made, _, orders = self.busy(200)
        for count in (2, 400, 2):
            former = ring_of(made)
            made.apply(snapshot(*orders[:count], revision=count))
            for _ in range(1000):
                led(made, MANY[:1])
            fresh = upstream(*orders[:count], policy="hash")
            self.assertIsNot(ring_of(made), former)
            self.assertEqual(owners(made), owners(fresh))
            self.assertEqual(ring_of(made).size, count * POINTS)

    def test_first_owns_a_shared_point(self) -> None:
        """Of two servers with the same point the one that is listed first has it."""
        self.patch(ring, "points_of", lambda address, count: (7, 8))
        made = keyed("hash", servers="ab")
        self.assertEqual(led(made, MANY[:20]), 20 * "a")

    def test_nothing_is_made_when_nothing_changed(self) -> None:
        """A server that goes out and comes back does not touch the ring."""
        made = keyed("hash", servers="abc")
        led(made, MANY[:1])
        points = ring_of(made)
        gone = record(order("b"), expired=True)
        made.apply(snapshot(order("a"), gone, order("c"), revision=2))
        led(made, MANY[:1])
        self.assertIs(ring_of(made), points)
        self.assertEqual(points.size, 3 * POINTS)

    def test_enormous_weights(self) -> None:
        """Weights beyond measure give a ring of bounded size, shared as they say."""
        self.patch(hashing, "MOST_POINTS", 4000)
        made = upstream(order("a", 10_000), order("b", 30_000), policy="hash")
        word = led(made, MANY)
        self.assertApproximates(ring_of(made).size, 4000, 10)
        self.assertApproximates(word.count("a") / 3000, 1 / 4, 0.05)
        for revision, weights in enumerate(((3, 10_000), (3, 2), (1, 2)), 2):
            orders = list(map(order, "ab", weights))
            made.apply(snapshot(*orders, revision=revision))
            led(made, MANY[:1])
            self.assertEqual(owners(made), owners(upstream(*orders, policy="hash")))

    def test_points(self) -> None:
        """The first points of a server, worked out by the formula."""
        made = keyed("hash", servers="ab")
        owned = ring_of(made).owned
        first = crc32(b"a\x0080" + bytes(4))
        second = crc32(b"a\x0080" + first.to_bytes(4, "little"))
        for point in (first, second):
            self.assertIs(owned[point], only(made, "a"))


class AddressKeyTests(TestCase):
    """The keys of ip_hash."""

    def test_mapped_address(self) -> None:
        """An IPv4 address in IPv6's clothes is an IPv4 address."""
        made = keyed("ip_hash", servers="abcdefgh")
        for n in range(30):
            plain, mapped = b"10.%d.0.1" % n, b"::ffff:10.%d.0.1" % n
            self.assertEqual(led(made, [plain]), led(made, [mapped]))

    def test_ipv6_is_taken_whole(self) -> None:
        """Two IPv6 clients of one network need not meet."""
        made = keyed("ip_hash", servers="abcdefgh")
        word = led(made, [b"2001:db8::%x" % n for n in range(64)])
        self.assertGreater(len(set(word)), 4)

    def test_no_address(self) -> None:
        """Clients of a unix socket, and whatever is no address, share one server."""
        made = keyed("ip_hash", servers="abcdefgh")
        word = led(made, [b"unix:", b"nonsense", b"\xff", b"0.0.0.7"])
        self.assertEqual(len(set(word)), 1)


class MissesTests(TestCase):
    """How long a walk is before it is given up."""

    def first(self, misses: int) -> str:
        """Where a key leads whose numbers miss so often, then lead to c, by turns to b."""
        numbers = [0] * misses + [2] * 100
        means = Means(random=Random(1).random, now=lambda: 0.0, freed=lambda: None)
        policy = WeightHash(means, lambda key: iter(numbers))
        servers = [only(upstream(order(letter)), letter) for letter in "abc"]
        policy.arrange(servers)
        for server in servers:
            policy.leave(server) if server.key == "a:80" else policy.enter(server)
        server = policy.take_for(b"key", ())
        assert server is not None
        return server.key[0]

    def test_twenty_misses(self) -> None:
        """The twentieth miss is forgiven, the next one leads to round robin."""
        self.assertEqual((self.first(20), self.first(21)), ("c", "b"))

    def ring(self, misses: int) -> str:
        """The same on a ring where the key has so many points of a before it."""
        points = {"a": range(misses), "b": (2**32 - 1,), "c": range(misses, 200)}
        self.patch(ring, "points_of", lambda address, count: tuple(points[address.host]))
        self.patch(hashing, "crc32", lambda key: 0)
        made = keyed("hash", servers="abc")
        out = record(order("a"), intent=Intent.DISABLE)
        made.apply(snapshot(out, order("b"), order("c"), revision=2))
        return led(made, [b"key"])

    def test_twenty_misses_on_the_ring(self) -> None:
        """So it is on the ring, point by point."""
        self.assertEqual((self.ring(20), self.ring(21)), ("c", "b"))
