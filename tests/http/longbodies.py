"""
Long bodies, said as far as they are taken.
"""

from __future__ import annotations

from tests.http.world import HttpTestCase, Wire, World


class LongBodyCase(HttpTestCase):
    """
    @ivar offered: what is still to be said.
    """

    offered: memoryview

    def offer(self, wire: Wire) -> None:
        """Whoever is at this end says more, as much as is taken."""
        while self.offered and (taken := wire.offer(bytes(self.offered[:65536]))):
            self.offered = self.offered[taken:]

    def assert_spliced(self, world: World) -> None:
        self.assertEqual("<Pipes 1 spare>", repr(world.pipes))
