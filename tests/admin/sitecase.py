"""
A node with its admin site on a real loopback port, for tests that need one.
"""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from dynbalance.admin.measured import Measured
from dynbalance.admin.metrics import Metrics
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.site import AdminSite
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.store.membership import Membership
from tests.health.stores import DoorStore


class SiteCase(TestCase):
    """
    @ivar url: of the admin site.
    @ivar listening: the number of its port.
    """

    timeout = 30.0
    upstreams: tuple[str, ...] = ("default",)

    def setUp(self) -> Deferred[None]:
        self.store = DoorStore(reactor)
        orders = [UpstreamOrder(name=name) for name in self.upstreams]
        self.balancer = Balancer(orders, reactor.seconds, lambda: 0.0)
        self.membership = Membership(self.balancer, self.store, "one", 10.0, 0.1, reactor)
        self.operations = Operations(self.balancer, self.store, self.membership, 30.0, True)
        measured = Measured(balancer=self.balancer, membership=self.membership)
        self.pages = Pages(self.balancer, Metrics(measured))
        self.site = AdminSite(self.operations, self.pages, reactor)
        self.port = port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.listening = port.getHost().port
        self.url = f"http://127.0.0.1:{self.listening}"
        self.addCleanup(port.stopListening)
        self.addCleanup(self.membership.stop)
        return self.membership.start()

    async def run_program(self, *command: str, **environ: str) -> tuple[str, int]:
        """
        @param environ: beside C{PATH}.
        @return: what it printed and its exit status.
        """
        program, *arguments = command
        out, err, status = await getProcessOutputAndValue(
            program, arguments, env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environ}
        )
        self.assertEqual(err, b"")
        return out.decode(), status

    async def curl(self, *arguments: str) -> str:
        """@return: what curl printed."""
        printed, _ = await self.run_program("curl", "-s", "--max-time", "20", *arguments)
        return printed

    def keys(self) -> list[str]:
        return [server.key for server in self.balancer.upstream("default").servers]
