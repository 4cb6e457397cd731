"""Tests of who may call which endpoint, and of what is written down of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs

from dynbalance.admin.answers import Answer, Page, Reply
from dynbalance.admin.api import Api
from dynbalance.admin.caller import Role
from dynbalance.admin.dashboard import PARTS
from dynbalance.admin.feed import Feed
from dynbalance.admin.guard import Guard, Knowledge
from dynbalance.admin.metrics import Metrics
from dynbalance.admin.openapi import with_description
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.passwords import Passwords
from dynbalance.admin.scene import Ask
from dynbalance.admin.table import UpstreamApi
from dynbalance.admin.tokens import Tokens
from dynbalance.admin.trail import Trail
from dynbalance.config import TokenConfig, UserConfig
from dynbalance.hashes import hash_password, hash_token
from tests.admin.test_api import CALLER, TTL, ApiCase
from tests.admin.test_guard import basic
from tests.health.stores import order

WALL = 1_700_000_000.0
NEEDS: dict[str, Role | None] = {
    "/": None,
    **{f"/dashboard/{name}": None for name in PARTS},
    "/healthz": None,
    "/metrics": Role.READ,
    "/openapi.json": Role.READ,
    "/readyz": Role.READ,
    "/upstream/add": Role.AGENT,
    "/upstream/cleanup": Role.ADMIN,
    "/upstream/events": Role.READ,
    "/upstream/explain": Role.READ,
    "/upstream/export": Role.READ,
    "/upstream/health": Role.READ,
    "/upstream/history": Role.READ,
    "/upstream/import": Role.ADMIN,
    "/upstream/refresh": Role.AGENT,
    "/upstream/remove": Role.AGENT,
    "/upstream/reset": Role.ADMIN,
    "/upstream/rollback": Role.ADMIN,
    "/upstream/status": Role.READ,
    "/upstream/toggle": Role.AGENT,
    "/upstream/update": Role.ADMIN,
    "/upstream/upstreams": Role.READ,
}
TOKENS = Tokens(
    TokenConfig(name=role.value, token_hash=hash_token(role.value), role=role.value)
    for role in Role
)


class Paper:
    """
    @ivar lines: what was written.
    """

    def __init__(self) -> None:
        self.text = ""
        self.full = False

    def write(self, text: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.text += text

    def flush(self) -> None:
        """It is there already."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


class GuardedCase(ApiCase):
    """The API with a token for each role, a user, and an audit log."""

    def setUp(self) -> None:
        super().setUp()
        self.paper = Paper()
        operations = Operations(self.balancer, self.store, self.membership, TTL, True)
        feed = Feed(operations.scene, self.clock)
        users = (UserConfig(name="ann", password_hash=hash_password("right"), role="admin"),)
        passwords = Passwords(
            users, lambda check: succeed(check()), self.clock.seconds, b"key"
        )
        self.guard = Guard(Knowledge(tokens=TOKENS, passwords=passwords))
        self.trail = Trail(self.paper, lambda: WALL, operations.scene)
        self.api = Api(
            with_description(
                (
                    *UpstreamApi(operations, feed).endpoints,
                    *Pages(self.balancer, Metrics(self.measured)).endpoints(),
                )
            ),
            self.guard,
            self.trail,
        )

    def by(
        self, role: Role | None, what: str, method: str = "POST", **fields: object
    ) -> Reply:
        more = {} if role is None else {"authorization": f"Bearer {role.value}".encode()}
        path = what if what.startswith("/") else f"/upstream/{what}"
        return self.ask(method, path, urlencode(fields).encode(), **more)


class TableTests(GuardedCase):
    """Each endpoint, by each role."""

    def test_every_endpoint(self) -> None:
        """The table says of each endpoint who may; a new one has to be named here."""
        found = {each.path.decode(): each.needs for each in self.api.endpoints}
        self.assertEqual(NEEDS, found)

    def test_every_role(self) -> None:
        """
        Without credentials comes 401, without the role 403, and neither looks at
        what was asked; with it the endpoint answers, whatever that is.
        """
        for endpoint in self.api.endpoints:
            for method in endpoint.methods:
                for role in (None, *Role):
                    reply = self.by(role, endpoint.path.decode(), method.decode(), wrong="x")
                    expected = 0
                    if endpoint.needs is not None:
                        if role is None:
                            expected = 401
                        elif not role.includes(endpoint.needs):
                            expected = 403
                    if expected:
                        self.assertEqual(expected, reply.status, (endpoint.path, role))
                        self.assertNotIn("data", self.read(reply))
                    else:
                        self.assertNotIn(reply.status, (401, 403), (endpoint.path, role))

    def test_order_by_get(self) -> None:
        """An order is one by whichever method, to pages of other origins too."""
        admin = {"authorization": b"Bearer admin", "origin": b"http://evil.example"}
        self.assertEqual(403, self.ask("GET", "/upstream/cleanup", **admin).status)
        self.assertEqual(200, self.ask("GET", "/upstream/status", **admin).status)

    def test_own_servers(self) -> None:
        """An agent manages its own servers and no others, and only drains them."""
        agent = Role.AGENT
        self.assertEqual(200, self.by(agent, "add", port=80).status)
        self.assertEqual(200, self.by(agent, "add", host=CALLER, port=81).status)
        self.by(Role.ADMIN, "add", host="10.0.0.1", port=80)
        for what, more in (
            ("add", {}), ("remove", {}), ("refresh", {}), ("toggle", {"action": "drain"}),
        ):  # fmt: skip
            for host in ("10.0.0.1", "10.0.0.2", "name"):
                self.assertEqual(403, self.by(agent, what, host=host, port=80, **more).status)
        self.assertEqual(200, self.by(agent, "toggle", port=80, action="drain").status)
        for action in ("enable", "disable"):
            self.assertEqual(403, self.by(agent, "toggle", port=80, action=action).status)
        self.assertEqual(200, self.by(agent, "refresh", port=80).status)
        self.assertEqual(200, self.by(agent, "remove", port=80).status)
        self.assertEqual(["10.0.0.1:80", f"{CALLER}:81"], sorted(self.keys()))

    def test_headers(self) -> None:
        """No answer is kept, shown in a frame, taken for a page or tells where one came from."""
        for reply in (self.by(None, "status", "GET"), self.by(Role.READ, "status", "GET")):
            headers = dict(reply.headers)
            self.assertEqual(b"no-store", headers[b"cache-control"])
            self.assertEqual(b"nosniff", headers[b"x-content-type-options"])
            self.assertEqual(b"no-referrer", headers[b"referrer-policy"])
            self.assertIn(b"frame-ancestors 'none'", headers[b"content-security-policy"])


class TrailTests(GuardedCase):
    """The audit log."""

    def test_change(self) -> None:
        """A line says who, from where, what, on what, before, after, and what came of it."""
        self.by(Role.ADMIN, "add", host="10.0.0.1", port=80, weight=2)
        self.by(Role.ADMIN, "update", host="10.0.0.1", port=80, weight=5)
        self.by(Role.ADMIN, "remove", host="10.0.0.1", port=80)
        add, update, remove = self.paper.lines
        self.assertEqual(
            {
                "time": "2023-11-14T22:13:20+00:00", "who": "admin", "role": "admin",
                "from": CALLER, "what": "update", "upstream": "default",
                "server": "10.0.0.1:80", "asked": {"weight": 5}, "code": 200,
                "message": "Server updated successfully", "revision": add["revision"] + 1,
            },
            {name: value for name, value in update.items() if name not in ("before", "after")},
        )  # fmt: skip
        self.assertEqual((2, 5), (update["before"]["weight"], update["after"]["weight"]))
        self.assertNotIn("before", add)
        self.assertNotIn("after", remove)

    def test_several_servers(self) -> None:
        """What one order changes at several servers is a list."""
        for port in (80, 81):
            self.by(Role.ADMIN, "add", host="10.0.0.1", port=port)
        self.by(Role.ADMIN, "rollback", revision=0, dry_run=1)
        self.by(Role.ADMIN, "rollback", revision=0)
        dry, done = self.paper.lines[2:]
        self.assertNotIn("changes", dry)
        self.assertEqual({"dry_run": True, "revision": 0}, dry["asked"])
        self.assertEqual(
            [("10.0.0.1:80", "default"), ("10.0.0.1:81", "default")],
            sorted((each["server"], each["upstream"]) for each in done["changes"]),
        )

    def test_others(self) -> None:
        """What somebody else changed meanwhile is not in the line."""
        (add,) = [each for each in self.api.endpoints if each.path == b"/upstream/add"]

        async def act(ask: Ask) -> Answer | Page:
            await self.store.add("default", order(9999), "somebody else")
            return await add.act(ask)

        self.api = Api([evolve(add, act=act)], self.guard, self.trail)
        self.by(Role.ADMIN, "add", host="10.0.0.1", port=80)
        (line,) = self.paper.lines
        self.assertEqual("10.0.0.1:80", line["server"])
        self.assertNotIn("changes", line)

    def test_import(self) -> None:
        """The document of an import is not repeated, what it changed is."""
        server = {"addr": "10.0.0.9:80", "host": "10.0.0.9", "port": 80}
        document = json.dumps({"data": [server]}).encode()
        reply = self.ask(
            "POST", "/upstream/import", document, b"application/json",
            authorization=b"Bearer admin",
        )  # fmt: skip
        self.assertEqual(200, reply.status, reply.body)
        (line,) = self.paper.lines
        self.assertEqual(("default", "10.0.0.9:80"), (line["upstream"], line["server"]))
        self.assertNotIn("asked", line)

    def test_refused(self) -> None:
        """Orders that were refused are there, with what was wanted and without a change."""
        self.by(Role.READ, "add", host="10.0.0.1", port=80)
        self.by(Role.AGENT, "add", host="10.0.0.1", port=80)
        self.by(Role.ADMIN, "remove", host="10.0.0.1", port=80)
        self.by(None, "remove", host="10.0.0.1", port=80)
        told = [(line["who"], line["what"], line["code"]) for line in self.paper.lines]
        self.assertEqual(
            [("read", "add", 403), ("agent", "add", 403), ("admin", "remove", 404),
             ("", "remove", 401)],
            told,
        )  # fmt: skip
        self.assertEqual("10.0.0.1:80", self.paper.lines[1]["server"])

    def test_wrong_credentials(self) -> None:
        """Who was not let in is there with the name it claimed, also for a question."""
        self.ask("GET", "/upstream/status", authorization=basic("eve\n", "s3cret"))
        (line,) = self.paper.lines
        self.assertEqual(("eve\n", None, 401), (line["who"], line["role"], line["code"]))
        self.assertNotIn("s3cret", self.paper.text)

    def test_questions_and_heartbeats(self) -> None:
        """Who only looks, or beats, leaves no line; a heartbeat that is refused does."""
        self.by(Role.ADMIN, "add", host="10.0.0.1", port=80)
        self.by(Role.READ, "status", "GET")
        self.by(None, "status", "GET")
        self.by(Role.ADMIN, "refresh", host="10.0.0.1", port=80)
        self.by(Role.ADMIN, "refresh", host="10.0.0.2", port=80)
        self.assertEqual(1, len(self.paper.lines))
        self.by(Role.READ, "refresh", host="10.0.0.1", port=80)
        self.assertEqual("refresh", self.paper.lines[1]["what"])

    def test_store_away(self) -> None:
        """With the store away the order fails, and the line says so."""
        self.store.lose()
        self.wait(2)
        self.assertEqual(503, self.by(Role.ADMIN, "add", host="10.0.0.1", port=80).status)
        (line,) = self.paper.lines
        self.assertEqual(503, line["code"])
        self.assertNotIn("revision", line)

    def test_full_disk(self) -> None:
        """An audit log that takes no line does not fail the order, but is told of."""
        self.paper.full = True
        with capturedLogs() as events:
            self.assertEqual(200, self.by(Role.ADMIN, "add", host="10.0.0.1", port=80).status)
        (event,) = [each for each in events if "audit log" in each["log_format"]]
        self.assertEqual("No space left on device", event["why"])
