"""How long servers take, as it is counted for each."""

from __future__ import annotations

from dynbalance.balancer.latency import BOUNDS, Times
from tests.http.world import GET, OK, HttpTestCase, World, sized


def noted(times: Times) -> list[float]:
    """The upper bounds of what was counted."""
    bounds = zip((*BOUNDS, 999.0), times.counts, strict=True)
    return [bound for bound, count in bounds for _ in range(count)]


class TimesTests(HttpTestCase):
    """From the choice of a server to the head of its answer."""

    def test_answer(self) -> None:
        """Each answer is one more in its bucket, over new and kept connections."""
        world = self.world(1)
        client, server, _ = world.request()
        world.wait(0.5)
        server.send(OK)
        client.take()
        client.send(GET)
        server.take()
        world.wait(0.25)
        server.send(OK)
        client.take()
        times = world.servers[0].times
        self.assertEqual(noted(times), [0.3, 0.5])
        self.assertAlmostEqual(times.total, 0.75, 3)

    def test_connect(self) -> None:
        """New connections are counted, kept ones are not."""
        world = self.world(1)
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        client.send(GET)
        self.assertEqual(sum(world.servers[0].connects.counts), 1)

    def test_another_try(self) -> None:
        """A server's time begins with its own attempt; an answer thrown away has one, too."""
        world = self.world(2, upstream={"next_upstream": ("http_503",)})
        client, server, _ = world.request()
        world.wait(3.0)
        server.send(sized(b"no", b"503 No"))
        second = world.backends[1].accept()
        second.take()
        world.wait(0.25)
        second.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual([noted(each.times) for each in world.servers], [[3.0], [0.3]])

    def test_retry(self) -> None:
        """Likewise after a server that said nothing."""
        world = self.world(2, upstream={"read_timeout": 2.0})
        client, _, _ = world.request()
        world.wait(2.5)
        second = world.backends[1].accept()
        second.take()
        world.wait(0.25)
        second.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual([noted(each.times) for each in world.servers], [[], [0.5]])

    def test_line(self) -> None:
        """Waiting in the line is none of the server's time."""
        world = self.world(1, upstream={"queue": 1}, max_conns=1)
        first, server, _ = world.request()
        second = world.client()
        second.send(GET)
        world.wait(5.0)
        server.send(OK)
        first.take()
        server.take()
        world.wait(0.25)
        server.send(OK)
        second.take()
        self.assertEqual(noted(world.servers[0].times), [0.3, 5.0])

    def test_no_answer(self) -> None:
        """A server that breaks off has no time."""
        world: World = self.world(1)
        client, server, _ = world.request()
        server.close()
        client.take()
        self.assertEqual(noted(world.servers[0].times), [])
