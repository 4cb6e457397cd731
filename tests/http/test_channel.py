"""
The client's side: what it may send, and what it hears.
"""

from __future__ import annotations

from dynbalance.http.mounted import Mount
from tests.http.world import GET, OK, HttpTestCase, plain, post, sized


class KeepAliveTests(HttpTestCase):
    """Whether the client's connection stays open."""

    def test_one_after_the_other(self) -> None:
        """Both connections serve one request after the other."""
        world = self.world()
        client, server, got = world.request()
        self.assertEqual(plain(got), GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        client.send(GET)
        self.assertEqual(plain(server.take()), GET)
        server.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.held, 0)
        self.assertEqual(world.idle, 1)
