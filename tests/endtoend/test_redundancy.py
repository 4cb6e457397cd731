"""
A store that moves: failover by Sentinels, slots that move through a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, NO_ENVIRONMENT, EndToEndCase, ask, wait_until
from tests.endtoend.redundancy import Cluster, Sentinel, Watched
from tests.endtoend.servers import Backend, Redis, Secured
from tests.net.authority import Authority

PREFIX = "{lb}"
META = f"{PREFIX}:servers:meta"
FAST = {"sync_interval": 0.05, "timeout": 0.5}


class MovingCase(EndToEndCase):
    """Each look at a condition sends a request, and each must be answered."""

    environment: Mapping[str, str] = NO_ENVIRONMENT

    def daemon_on(self, url: str, prefix: str = "upstream") -> Daemon:
        self.backend = Backend(self)
        keeping = {**FAST, "prefix": prefix}
        self.daemon = Daemon(self, url, keeping=keeping, environment=self.environment)
        wait_until(lambda: self.reached, "the store")
        self.daemon.add(self.backend.port, heartbeat="false")
        return self.daemon

    @property
    def reached(self) -> bool:
        return ask(self.daemon.admin, "/upstream/health").status == 200

    def serve_until(self, condition: Callable[[], object], what: str) -> None:
        def look() -> object:
            self.assertEqual(b"backend", ask(self.daemon.http).body)
            return condition()

        wait_until(look, what)

    def added(self, port: int) -> bool:
        """Try to add a server; refused while the store is away."""
        return bool(self.daemon.call("add", host=LOOPBACK, port=port)["code"] == 200)


class SentinelTests(MovingCase):
    """C{redis+sentinel:}."""

    def test_failover(self) -> None:
        """The master dies under load: no request fails, and orders go to its heir."""
        watched = Watched(self)
        self.daemon_on(watched.url)
        watched.master.process.kill()
        self.serve_until(lambda: not self.reached, "the loss")
        self.serve_until(lambda: self.reached, "the failover")
        self.assertEqual(watched.replica.port, watched.sentinels[0].master_port())
        answer = self.daemon.call("remove", host=LOOPBACK, port=self.backend.port)
        self.assertEqual(200, answer["code"])
        self.assertEqual("0", watched.replica("HLEN", "upstream:servers:meta"))

    def test_master_that_hangs(self) -> None:
        """A master that says nothing any more is left, and so is a Sentinel."""
        watched = Watched(self)
        self.daemon_on(watched.url)
        watched.sentinels[0].process.pause()
        watched.master.process.pause()
        self.serve_until(lambda: not self.reached, "the loss")
        self.serve_until(lambda: self.added(9), "the failover")
        self.assertEqual("2", watched.replica("HLEN", "upstream:servers:meta"))

    def test_unknown_master(self) -> None:
        """A name that the Sentinels do not know is told, and traffic goes on without."""
        sentinel = Sentinel(self, 0, Redis(self))
        daemon = Daemon(self, f"redis+sentinel://{LOOPBACK}:{sentinel.port}/bl/0")
        answer = ask(daemon.admin, "/upstream/health")
        self.assertEqual(503, answer.status)
        self.assertIn("it knows no master 'bl'", answer.json["message"])


class ClusterTests(MovingCase):
    """C{redis+cluster:}."""

    def setUp(self) -> None:
        self.cluster = Cluster(self)
        self.owner = self.cluster.owner(PREFIX)
        self.other = next(node for node in self.cluster.nodes if node is not self.owner)
        self.slot = self.cluster.slot(PREFIX)

    def servers_at(self, node: Redis) -> str:
        return node("HLEN", META)

    def test_found_by_the_wrong_node(self) -> None:
        """Any node leads to the one that has the keys."""
        self.daemon_on(self.cluster.url(self.other), PREFIX)
        self.assertEqual("1", self.servers_at(self.owner))

    def test_moved(self) -> None:
        """A slot that has moved is followed before anybody notices."""
        self.daemon_on(self.cluster.url(), PREFIX)
        self.daemon.process.pause()
        self.cluster.move(self.slot, self.owner, self.other)
        self.daemon.process.resume()
        answer = self.daemon.call("add", host=LOOPBACK, port=7)
        self.assertEqual(200, answer["code"], answer)
        self.assertEqual("2", self.servers_at(self.other))
        self.serve_until(lambda: self.reached, "the store")
        self.assertNotIn("Store lost", self.daemon.process.log())

    def test_moved_under_load(self) -> None:
        """
        While the slot is between two nodes the cluster refuses orders; no request
        fails, and all is well when it has arrived.
        """
        self.daemon_on(self.cluster.url(), PREFIX)
        self.cluster.begin_move(self.slot, self.owner, self.other)
        self.serve_until(lambda: not self.reached, "the cluster's refusal")
        # That is what the new place says to who was sent there by ASK.
        self.assertIn("TRYAGAIN", self.daemon.process.log())
        self.cluster.end_move(self.slot, self.owner, self.other)
        self.serve_until(lambda: self.added(7), "the end of the move")
        self.assertEqual("2", self.servers_at(self.other))

    def test_master_dies(self) -> None:
        """The replica takes over under load, and the store is found there."""
        first, replica = self.cluster.nodes[0], self.cluster.replica
        if self.owner is not first:
            self.cluster.move(self.slot, self.owner, first)
        self.daemon_on(self.cluster.url(), PREFIX)
        first.process.kill()
        self.serve_until(lambda: not self.reached, "the loss")
        self.serve_until(lambda: self.added(7), "the failover")
        self.assertEqual("2", self.servers_at(replica))


class ByTlsTests(MovingCase):
    """C{rediss+sentinel:} and C{rediss+cluster:}: everybody is asked over TLS."""

    def setUp(self) -> None:
        authority = Authority(Path(self.directory("certificates")))
        caller = authority.issue("one.example", file="caller", client=True)
        self.secured = Secured(authority.file, authority.issue(LOOPBACK), caller)
        # In place of the system's authorities.
        self.environment = {"SSL_CERT_FILE": authority.file}

    def test_sentinels(self) -> None:
        """The master that the Sentinels name is spoken to over TLS, and so is its heir."""
        watched = Watched(self, self.secured)
        self.daemon_on(watched.url)
        self.assertEqual("1", watched.master("HLEN", "upstream:servers:meta"))
        watched.master.process.kill()
        self.serve_until(lambda: not self.reached, "the loss")
        self.serve_until(lambda: self.added(9), "the failover")
        self.assertEqual("2", watched.replica("HLEN", "upstream:servers:meta"))

    def test_cluster(self) -> None:
        """The node to which another one sends is spoken to over TLS."""
        cluster = Cluster(self, self.secured)
        owner = cluster.owner(PREFIX)
        other = next(node for node in cluster.nodes if node is not owner)
        self.daemon_on(cluster.url(other), PREFIX)
        self.assertEqual("1", owner("HLEN", META))

    def test_stranger(self) -> None:
        """Sentinels that show no good certificate are not believed."""
        watched = Watched(self, self.secured)
        daemon = Daemon(self, watched.url)
        answer = ask(daemon.admin, "/upstream/health")
        self.assertEqual(503, answer.status)
        self.assertIn("certificate verify failed", answer.json["message"])
