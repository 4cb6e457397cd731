"""Tests of explanations by the admin API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.admin.api import Api
from dynbalance.admin.operations import Operations
from dynbalance.admin.table import UpstreamApi
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.config.upstream import StickyConfig, UpstreamConfig
from dynbalance.http.upstream import HttpUpstream
from dynbalance.store.contract import Intent
from dynbalance.store.membership import Membership
from tests.admin.test_api import ApiCase
from tests.health.stores import DoorStore, order

A, B = "127.0.0.1:9000", "127.0.0.1:9001"


class ExplainTests(TestCase):
    """A node with two servers, whose upstream is set up as a test wants it."""

    read = ApiCase.read
    refused = ApiCase.refused
    api: Api

    def build(self, settings: UpstreamConfig) -> None:
        clock = Clock()
        store = DoorStore(clock)
        for number in range(2):
            self.successResultOf(store.inner.add("default", order(9000 + number), "test"))
        made = UpstreamOrder(name="default", policy=settings.policy)
        balancer = Balancer([made], clock.seconds, lambda: 0.0)
        membership = Membership(balancer, store, "one", 10.0, 0.1, clock)
        self.successResultOf(membership.start())
        self.store, self.membership = store, membership
        self.upstream = balancer.upstream("default")
        nothing: Any = None
        self.way = HttpUpstream(self.upstream, settings, nothing, nothing, nothing, nothing)
        operations = Operations(
            balancer, store, membership, 30.0, True, ways={"default": self.way}.get
        )
        self.api = UpstreamApi(operations)

    def reply(self, *arguments: tuple[str, str]) -> dict[str, Any]:
        query = urlencode(arguments).encode()
        answer = self.api.answer(
            b"GET", b"/upstream/explain", query, b"", lambda name: None, "192.0.2.7"
        )
        return self.read(self.successResultOf(answer))

    def explain(self, *arguments: tuple[str, str]) -> dict[str, Any]:
        document = self.reply(*arguments)
        self.assertEqual(document["code"], 200, document)
        data: dict[str, Any] = document["data"]
        return data

    def test_policy(self) -> None:
        """The policy's scores and chances are told, and the server that is certain."""
        self.build(UpstreamConfig())
        data = self.explain()
        self.assertEqual((data["policy"], data["decided_by"]), ("least_conn", "policy"))
        self.assertNotIn("chosen", data)
        self.assertEqual([server["chance"] for server in data["servers"]], [0.5, 0.5])
        server = self.upstream.server(A)
        assert server is not None
        self.upstream.choose_this(server)
        document = self.reply()
        self.assertEqual(document["message"], f"{B} would be chosen: least_conn")
        first, second = document["data"]["servers"]
        self.assertEqual(
            first,
            {
                "addr": A,
                "state": "up",
                "eligible": True,
                "why": "another one has a better score",
                "score": 1.0,
                "chance": 0.0,
                "weight": 1,
                "slow_start": 1.0,
                "connections": 1,
                "node_connections": 1,
                "max_conns": 1000,
                "backup": False,
                "fails": 0,
            },
        )
        self.assertEqual((second["chance"], "why" in second), (1.0, False))

    def test_client(self) -> None:
        """A client's address is the caller's if no other is described."""
        self.build(UpstreamConfig(policy="ip_hash"))
        self.assertEqual(self.explain()["key"], "192.0.2.7")
        data = self.explain(("client", "198.51.100.9"))
        self.assertEqual(data["key"], "198.51.100.9")
        lease = self.upstream.choose((), b"198.51.100.9")
        assert lease is not None
        self.assertEqual(data["chosen"], lease.server.key)
        self.refused(
            self.reply(("client", "nobody")), 400, "Invalid client: not an IP address"
        )

    def test_key(self) -> None:
        """The key is made of the described request."""
        self.build(UpstreamConfig(policy="hash", hash_key="$host|$http_x_tenant|$request_uri"))
        data = self.explain(
            ("uri", "/a?b=c"), ("header", "Host: api.example"), ("header", "X-Tenant: t1")
        )
        self.assertEqual(data["key"], "api.example|t1|/a?b=c")
        lease = self.upstream.choose((), data["key"].encode())
        assert lease is not None
        self.assertEqual(data["chosen"], lease.server.key)

    def test_cookie(self) -> None:
        """A cookie decides where cookies do."""
        self.build(UpstreamConfig(sticky=StickyConfig()))
        server = self.upstream.server(B)
        assert server is not None
        document = self.reply(("header", f"Cookie: a=b; route={server.route}"))
        self.assertEqual(document["message"], f"{B} would be chosen: its cookie says so")
        self.assertEqual(document["data"]["decided_by"], "cookie")
        self.way.sticky = None
        self.assertEqual(
            self.explain(("header", f"Cookie: route={server.route}"))["decided_by"], "policy"
        )

    def test_hook(self) -> None:
        """A hook is not asked."""
        self.build(UpstreamConfig())
        self.way.hook = object()  # type: ignore[assignment]
        document = self.reply()
        self.assertEqual(document["message"], "A balancer hook decides; it was not asked")
        self.assertEqual(document["data"]["decided_by"], "hook")

    def test_nobody(self) -> None:
        """Where nobody can serve, each server says why."""
        self.build(UpstreamConfig())
        for address in (A, B):
            disabled = self.store.inner.set_intent("default", address, Intent.DISABLE, "test")
            self.successResultOf(disabled)
        self.successResultOf(self.membership.refresh("default"))
        document = self.reply()
        self.assertEqual(document["message"], "no live upstreams: of 2 servers 2 disabled")
        self.assertEqual(
            {server["why"] for server in document["data"]["servers"]}, {"an operator disabled it"}
        )

    def test_no_request(self) -> None:
        """What is described has to be a request."""
        self.build(UpstreamConfig())
        for arguments in (
            (("uri", "no path"),),
            (("uri", "/a b"),),
            (("header", "no field"),),
            (("header", "A: b\r\n\r\nGET / HTTP/1.1"),),
            (("header", "A: \u4e2d"),),
            (("header", "Host: a"), ("header", "Host: b")),
        ):
            document = self.reply(*arguments)
            self.assertEqual(document["code"], 400, document)
            self.assertTrue(document["message"].startswith("Invalid uri"), document)

    def test_asking_changes_nothing(self) -> None:
        """However often it is asked, the answer is the same and nothing is counted."""
        self.build(evolve(UpstreamConfig(), policy="round_robin"))
        first = self.explain()
        for _ in range(5):
            self.assertEqual(self.explain(), first)
        self.assertEqual([server.picks for server in self.upstream.servers], [0, 0])
        lease = self.upstream.choose()
        assert lease is not None
        self.assertEqual(lease.server.key, first["chosen"])
