"""
Servers of the file that have one address: each is a server of its own.

The words were made by nginx 1.22 with the same lists: the servers that it chose
for one request after the other, or, where none of them listened, for each
request all that it tried.
"""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.peers import Peers
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import ServerOrder
from dynbalance.store.membership import Membership
from dynbalance.store.memory import MemoryStore
from tests.balancer.building import order, snapshot, taken
from tests.balancer.test_hashing import CLIENTS, KEYS

PORTS = {"a": 19081, "b": 19082, "c": 19083}
FOUR = "a b:2 a c:3"
SECOND = "127.0.0.1:19081#2"


def listed(
    servers: str, policy: str = "round_robin", consistent: bool = True, **more: int | bool
) -> Upstream:
    """@param servers: letter, weight and C{backup} or C{down}, by colons."""
    return Upstream(
        "api",
        policy,
        [_file_server(text, **more) for text in servers.split()],
        lambda: 0.0,
        Random(1).random,
        UpstreamOptions(hash_consistent=consistent),
    )


def _file_server(text: str, max_conns: int = 0, max_fails: int = 0) -> FileServer:
    letter, weight, how = (*text.split(":"), "", "")[:3]
    order = ServerOrder(
        address=f"127.0.0.1:{PORTS[letter]}",
        host="127.0.0.1",
        port=PORTS[letter],
        weight=int(weight or 1),
        max_conns=max_conns,
        max_fails=max_fails,
        backup=how == "backup",
    )
    return FileServer(order=order, down=how == "down")


def letter_of(server: Server) -> str:
    """Of its address: nginx tells nothing else."""
    return next(letter for letter, port in PORTS.items() if port == server.address.port)


def chosen(made: Upstream, count: int) -> str:
    """Who is chosen for one request after the other."""
    word = ""
    for _ in range(count):
        lease = taken(made)
        word += letter_of(lease.server)
        lease.release()
    return word


def tried(made: Upstream, keys: list[str]) -> str:
    """For each request the servers that are tried until there is none."""
    words = []
    for key in keys:
        before: list[Server] = []
        while (lease := made.choose(before, key.encode())) is not None:
            before.append(lease.server)
            lease.release()
        words.append("".join(map(letter_of, before)))
    return " ".join(words)


def second(made: Upstream) -> Server:
    """The second server with a's address."""
    server = made.server(SECOND)
    assert server is not None
    return server


class NginxTests(TestCase):
    """Word for word what nginx does."""

    def test_sequences(self) -> None:
        """round_robin: each line takes its own turns, with its own weight."""
        for servers, word in (
            ("a:2 b a", "abaaabaaabaaabaaabaaabaaabaa"),
            ("a b a", "abaabaabaabaabaabaabaabaabaa"),
            ("a:3 b:2 a c", "abaacbaabaacbaabaacbaabaacba"),
            ("a:1:down b a:2", "abaabaabaabaabaabaabaabaabaa"),
        ):
            self.assertEqual(word, chosen(listed(servers), 28), servers)

    def test_tries(self) -> None:
        """A request tries each line once, so that an address may be tried twice."""
        requests = [""] * 12
        self.assertEqual(
            "aba aab baa aab baa aab aba aab baa aab baa aab",
            tried(listed("a:2 b a"), requests),
        )
        self.assertEqual(
            "aba baa aba baa aba baa aba baa aba baa aba baa",
            tried(listed("a b a:1:backup"), requests),
        )

    def test_plain_hash(self) -> None:
        """hash without consistent: each line has its part of the keys."""
        self.assertEqual(
            "bcaa baac baca cbaa cbaa cbaa caba caba abca bcaa abca abca aabc cbaa bcaa acba"
            " bcaa acba cbaa caba acba baca baca caab cbaa bcaa baca",
            tried(listed(FOUR, "hash", consistent=False), KEYS),
        )

    def test_ip_hash(self) -> None:
        """ip_hash likewise."""
        self.assertEqual(
            "bcaa acba cbaa cbaa caba abca bcaa baac acba caba caba caba cbaa bcaa bcaa abac"
            " cbaa bcaa caab",
            tried(listed(FOUR, "ip_hash"), CLIENTS),
        )

    def test_consistent_hash(self) -> None:
        """hash with consistent: an address has its points once, whatever its lines."""
        self.assertEqual(
            "caab bcaa aacb baac caab baac bcaa aabc cbaa aabc bcaa aacb bcaa bcaa aabc aacb"
            " caab caab cbaa bcaa bcaa caab caab cbaa aacb caab cbaa",
            tried(listed(FOUR, "hash"), KEYS),
        )
        self.assertEqual(
            "aab baa aab aab aab aab aab aab baa aab baa aab baa baa aab aab aab aab aab baa"
            " baa aab aab baa aab aab baa",
            tried(listed("a b a:3", "hash"), KEYS),
        )


class OwnServerTests(TestCase):
    """What each line has of its own, and what it is called."""

    def test_names(self) -> None:
        """The first is called by the address, the others with their number."""
        made = listed("a b a a")
        first = "127.0.0.1:19081"
        self.assertEqual(
            [first, "127.0.0.1:19082", SECOND, f"{first}#3"],
            [server.key for server in made.servers],
        )
        self.assertEqual(3, len({s.route for s in made.servers if letter_of(s) == "a"}))
        self.assertEqual({Address("127.0.0.1", 19081)}, {
            server.address for server in made.servers if letter_of(server) == "a"
        })

    def test_name_that_is_taken(self) -> None:
        """A socket whose file is called like a second server keeps its own name."""
        socket = [
            FileServer(order=ServerOrder(address=text, host=text, port=0))
            for text in ("unix:/run/a", "unix:/run/a", "unix:/run/a#2")
        ]
        made = Upstream("api", "round_robin", socket, lambda: 0.0, Random(1).random)
        self.assertEqual(
            ["unix:/run/a", "unix:/run/a#2", "unix:/run/a#2#2"],
            [server.key for server in made.servers],
        )
        self.assertEqual(
            ["unix:/run/a", "unix:/run/a", "unix:/run/a#2"],
            [str(server.address) for server in made.servers],
        )

    def test_limits(self) -> None:
        """max_conns holds for each line."""
        made = listed("a b a", "least_conn", max_conns=1)
        leases = [taken(made) for _ in range(3)]
        self.assertEqual("aab", "".join(sorted(letter_of(lease.server) for lease in leases)))
        self.assertIsNone(made.choose())

    def test_failures(self) -> None:
        """A line that fails is out by itself."""
        made = listed("a b a", max_fails=1)
        made.failed(second(made))
        self.assertEqual("abababab", chosen(made, 8))

    def test_turns_at_a_point(self) -> None:
        """hash with consistent: the lines of an address serve its keys by their weights."""
        made = listed("a a:2 b", "hash")
        mine = [f"{n}".encode() for n in range(99)]
        mine = [key for key in mine if _first(made, key).address.port == PORTS["a"]][:30]
        keys = [_first(made, key).key for key in mine]
        self.assertEqual(20, keys.count(SECOND))
        self.assertEqual(10, keys.count("127.0.0.1:19081"))

    def test_full_line_at_a_point(self) -> None:
        """There a line that is full leaves its keys to the other one."""
        made = listed("a a b", "hash", max_conns=1)
        key = next(
            key
            for key in (b"%d" % n for n in range(99))
            if _first(made, key).address.port == PORTS["a"]
        )
        words = ""
        while (lease := made.choose((), key)) is not None:
            words += letter_of(lease.server)
        self.assertEqual("aab", words)

    def test_store_knows_the_address(self) -> None:
        """A server of the store with such an address is hidden by the file's."""
        made = listed("a a")
        stored = order("a", weight=9)
        own = ServerOrder(address="127.0.0.1:19081", host="127.0.0.1", port=19081, weight=9)
        applied = made.apply(snapshot(stored, own))
        self.assertEqual(("a:80",), applied.added)
        self.assertEqual([1, 1, 9], [server.weight for server in made.servers])

    def test_new_file(self) -> None:
        """A new file with fewer lines leaves the first ones what they have."""
        made = listed("a b a a")
        third = made.server("127.0.0.1:19081#3")
        assert third is not None
        leases = [made.choose_this(server) for server in (second(made), third)]
        stays, goes = [lease for lease in leases if lease is not None]
        new = tuple(map(_file_server, ("b", "a", "a:2")))
        made.follow(UpstreamOrder(name="api", policy="round_robin", servers=new), None)
        self.assertEqual(
            ["127.0.0.1:19082", "127.0.0.1:19081", SECOND],
            [server.key for server in made.servers],
        )
        self.assertIs(stays.server, second(made))
        self.assertEqual((2, 1), (stays.server.weight, stays.server.held))
        self.assertEqual({SECOND: 1, third.key: 1}, made.report())
        goes.release()
        self.assertTrue(third.removed)

    def test_hook_names_the_address(self) -> None:
        """To a hook an address is the first of its lines."""
        made = listed("a a")
        found = Peers(made).server(Address("127.0.0.1", 19081))
        self.assertEqual("127.0.0.1:19081", found.key)


def _first(made: Upstream, key: bytes) -> Server:
    """Whom the key leads to."""
    lease = made.choose((), key)
    assert lease is not None
    lease.release()
    return lease.server


class CountTests(TestCase):
    """The counts of several nodes with the same file."""

    def test_apart(self) -> None:
        """Each line's connections are counted apart, over all nodes."""
        clock = Clock()
        store = MemoryStore(clock)
        nodes = []
        for name in ("one", "two"):
            servers = tuple(map(_file_server, ("a", "a")))
            made = Balancer(
                [UpstreamOrder(name="api", servers=servers)], clock.seconds, Random(1).random
            )
            Membership(made, store, name, 10.0, 0.1, clock).start()
            nodes.append(made.upstream("api"))
        one, two = nodes
        lease = one.choose_this(second(one))
        assert lease is not None
        clock.pump([0.1] * 3)
        self.assertEqual([0, 1], [server.load for server in two.servers])
        lease.release()
        clock.pump([0.1] * 3)
        self.assertEqual([0, 0], [server.load for server in two.servers])
