"""What is counted of requests that did not go well at once."""

from __future__ import annotations

from tests.http.world import GET, OK, HttpTestCase, World, post, sized


class TallyTests(HttpTestCase):
    """Failures, retries and answers of our own, by their causes."""

    def assert_tally(
        self,
        world: World,
        failed: dict[str, int],
        retries: dict[str, int],
        unanswered: dict[int, int],
    ) -> None:
        tally = world.upstream.upstream.tally
        told = [{key: n for key, n in each.items() if n} for each in (
            tally.failed, tally.retries, tally.unanswered,
        )]
        self.assertEqual([failed, retries, unanswered], told)

    def test_well(self) -> None:
        """A request that goes well leaves nothing but itself."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        self.assert_tally(world, {}, {}, {})
        world.upstream.upstream.tick()
        self.assertEqual(world.upstream.budget.total, 1)

    def test_refused(self) -> None:
        """A server that refuses is a failure, and the next one a retry."""
        world = self.world(2)
        world.backends[0].socket.close()
        client = world.client()
        client.send(GET)
        world.backends[1].accept().send(OK)
        self.assertEqual(client.take(), OK)
        self.assert_tally(world, {"error": 1}, {"error": 1}, {})

    def test_given_up(self) -> None:
        """Without another server the client gets our answer."""
        world = self.world()
        client, server, _ = world.request(post(b"abc"))
        server.close()
        client.take()
        self.assert_tally(world, {"error": 1}, {}, {502: 1})

    def test_timeout(self) -> None:
        """A server that says nothing is its own cause."""
        world = self.world(1, upstream={"read_timeout": 2.0})
        client, _, _ = world.request()
        world.wait(3.0)
        client.take()
        self.assert_tally(world, {"timeout": 1}, {}, {504: 1})

    def test_stale(self) -> None:
        """A kept connection that was dead is a retry, and no failure."""
        world = self.world()
        client, server, _ = world.request()
        server.send(OK)
        client.take()
        client.offer(GET)
        world.until(lambda: b"HTTP/1.1" in server.look())
        server.close()
        world.backends[0].accept().send(OK)
        self.assertEqual(client.take(), OK)
        self.assert_tally(world, {}, {"stale": 1}, {})

    def test_answer(self) -> None:
        """An answer that is thrown away is a failure; one that is passed on is none."""
        world = self.world(2, upstream={"next_upstream": ("http_503",)})
        client, server, _ = world.request()
        server.send(sized(b"no", b"503 No"))
        world.backends[1].accept().send(sized(b"no", b"503 No"))
        client.take()
        self.assert_tally(world, {"http_503": 1}, {"http_503": 1}, {})

    def test_broken_off(self) -> None:
        """An answer that breaks off is a failure of its own, and was one."""
        world = self.world()
        client, server, _ = world.request()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        client.take()
        server.close()
        world.until(lambda: not world.held)
        self.assert_tally(world, {"error": 1}, {}, {})

    def test_client_gone(self) -> None:
        """Who leaves before an answer is a 499; who leaves in the midst of one is not."""
        world = self.world()
        client, _, _ = world.request()
        client.close()
        world.until(lambda: not world.held)
        self.assert_tally(world, {}, {}, {499: 1})
        client, server, _ = world.request()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        client.close()
        world.until(lambda: not world.held)
        self.assert_tally(world, {}, {}, {499: 1})

    def test_line(self) -> None:
        """Waits end with a slot, in vain, or did not begin."""
        world = self.world(1, upstream={"queue": 1, "queue_timeout": 2.0}, max_conns=1)
        client, server, _ = world.request()
        second, third = world.client(), world.client()
        second.send(GET)
        third.send(GET)
        third.take()
        tally = world.upstream.upstream.tally
        self.assertEqual((tally.turned_away, tally.vain), (1, 0))
        world.wait(3.0)
        second.take()
        self.assertEqual((tally.turned_away, tally.vain), (1, 1))
        fourth = world.client()
        fourth.send(GET)
        world.wait(0.5)
        server.send(OK)
        client.take()
        self.assertEqual(sum(tally.waits.counts), 1)
        self.assertAlmostEqual(tally.waits.total, 0.5, 2)
        self.assert_tally(world, {}, {}, {502: 2})
