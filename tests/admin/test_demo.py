"""Tests of the demo's servers against a real admin site."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from dynbalance.demo import NAMES, DemoServers
from tests.admin.sitecase import SiteCase


class DemoServersTests(SiteCase):
    async def until_keys(self, count: int) -> None:
        """Wait until the upstream has C{count} servers; the test's timeout bounds it."""
        while len(self.keys()) != count:
            await _turn()

    async def start(self, url: str, interval: float = 60.0) -> DemoServers:
        demo = DemoServers(reactor, url, interval)
        self.addCleanup(demo.stop)
        await demo.start()
        return demo

    async def test_registers_serves_and_leaves(self) -> None:
        """Three servers register, answer who they are, and are gone at the end."""
        demo = await self.start(self.url)
        await self.until_keys(3)
        self.assertEqual(self.keys(), sorted(f"127.0.0.1:{port}" for port in demo.ports))
        for name, port in zip(NAMES, demo.ports, strict=True):
            said = await self.curl(f"http://127.0.0.1:{port}/a/b?c")
            self.assertEqual(said, f"Demo server {name} answers GET /a/b?c\n")
        ports = demo.ports
        await demo.stop()
        self.assertEqual(self.keys(), [])
        _, status = await self.run_program("curl", "-s", f"http://127.0.0.1:{ports[0]}/")
        self.assertEqual(status, 7)

    async def test_comes_back(self) -> None:
        """A server that somebody removed registers itself with its next heartbeat."""
        demo = await self.start(self.url, 0.1)
        await self.until_keys(3)
        await self.curl(f"{self.url}/upstream/remove", "-d", f"port={demo.ports[1]}")
        await self.until_keys(3)

    async def test_goes_on_trying(self) -> None:
        """Servers that are refused beat on, say so once, and register when they can."""
        self.store.lose()
        # A node that knows that its store is away does not ask it.
        require, asked = self.membership.contact.require, []

        def required() -> None:
            asked.append(None)
            require()

        self.patch(self.membership.contact, "require", required)
        with capturedLogs() as events:
            demo = await self.start(self.url, 0.02)
            while len(asked) < 12:
                await _turn()
        told = sorted(event["port"] for event in events if "name" in event)
        self.assertEqual(told, sorted(demo.ports))
        self.store.find()
        await self.until_keys(3)

    async def test_nobody_there(self) -> None:
        """Without an admin API they serve all the same, and can be ended."""
        demo = await self.start("http://127.0.0.1:1")
        said = await self.curl(f"http://127.0.0.1:{demo.ports[0]}/")
        self.assertTrue(said.startswith("Demo server "))
        await demo.stop()


def _turn() -> Deferred[None]:
    """A short while on the real reactor."""
    turn: Deferred[None] = Deferred()
    reactor.callLater(0.01, turn.callback, None)
    return turn
