"""Tests of the admin API by plain values: what is asked, done and answered."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from dynbalance.admin.answers import Reply
from dynbalance.admin.api import BODY_LIMIT, Api
from dynbalance.admin.dashboard import PARTS
from dynbalance.admin.measured import Measured
from dynbalance.admin.metrics import Metrics
from dynbalance.admin.operations import Operations
from dynbalance.admin.pages import Pages
from dynbalance.admin.table import UpstreamApi
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.upstream import FileServer
from dynbalance.store.membership import Membership
from tests.health.stores import DoorStore, order

TTL = 30.0
FORM = b"application/x-www-form-urlencoded"
CALLER = "192.0.2.7"


class ApiCase(TestCase):
    """A node with the upstreams default and api; api has a server of the file."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = DoorStore(self.clock)
        fixed = (FileServer(order=order(7001)), FileServer(order=order(7002), down=True))
        self.balancer = Balancer(
            [UpstreamOrder(name="default"), UpstreamOrder(name="api", servers=fixed)],
            self.clock.seconds,
            lambda: 0.0,
        )
        self.membership = Membership(self.balancer, self.store, "one", 10.0, 0.1, self.clock)
        self.successResultOf(self.membership.start())
        operations = Operations(self.balancer, self.store, self.membership, TTL, True)
        self.measured = Measured(balancer=self.balancer, membership=self.membership)
        pages = Pages(self.balancer, Metrics(self.measured))
        self.api = Api((*UpstreamApi(operations).endpoints, *pages.endpoints()))
        self.upstream = self.balancer.upstream("default")

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        content_type: bytes | None = FORM,
        client: str = CALLER,
        **more: bytes,
    ) -> Reply:
        path, _, query = target.partition("?")
        fields = {name.replace("_", "-").encode(): value for name, value in more.items()}
        if content_type is not None:
            fields[b"content-type"] = content_type
        answer = self.api.answer(
            method.encode(), path.encode(), query.encode(), body, fields.get, client
        )
        return self.successResultOf(answer)

    def post(self, what: str, **fields: object) -> dict[str, Any]:
        return self.read(self.ask("POST", f"/upstream/{what}", urlencode(fields).encode()))

    def get(self, what: str) -> dict[str, Any]:
        return self.read(self.ask("GET", f"/upstream/{what}"))

    def read(self, reply: Reply) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(reply.body)
        self.assertEqual(document["code"], reply.status)
        return document

    def refused(self, document: dict[str, Any], code: int, message: str) -> None:
        self.assertEqual((document["code"], document["message"]), (code, message))
        self.assertNotIn("data", document)

    def keys(self) -> list[str]:
        return [server.key for server in self.upstream.servers]

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))


class AddTests(ApiCase):
    def test_answer(self) -> None:
        """The answer has the seed's text and fields, and the server is there at once."""
        document = self.post("add", host="10.0.0.1", port=8080, weight=2, max_conns=50)
        self.assertEqual(
            document,
            {
                "code": 200,
                "message": "Server added successfully",
                "data": {
                    "addr": "10.0.0.1:8080",
                    "host": "10.0.0.1",
                    "port": 8080,
                    "weight": 2,
                    "max_conns": 50,
                    "enabled": True,
                },
            },
        )
        self.assertEqual(self.keys(), ["10.0.0.1:8080"])

    def test_host_is_the_callers_address(self) -> None:
        """Without a host, or with an empty one, the caller registers itself."""
        self.assertEqual(self.post("add", port=8080)["data"]["host"], CALLER)
        self.assertEqual(self.post("add", host="", port=8081)["data"]["addr"], f"{CALLER}:8081")

    def test_mapped_caller(self) -> None:
        """A caller on a listener of both families is known by its IPv4 address."""
        reply = self.ask("POST", "/upstream/add", b"port=80", client="::ffff:10.1.2.3")
        self.assertEqual(self.read(reply)["data"]["addr"], "10.1.2.3:80")

    def test_caller_without_an_address(self) -> None:
        """A caller on a unix socket has to name the host."""
        reply = self.ask("POST", "/upstream/add", b"port=80", client="")
        self.refused(self.read(reply), 400, "Missing required parameter: host")

    def test_ipv6(self) -> None:
        """An IPv6 address is understood with and without brackets, as one server."""
        added = self.post("add", host="2001:db8::0:1", port=80)["data"]
        self.assertEqual((added["addr"], added["host"]), ("[2001:db8::1]:80", "2001:db8::1"))
        again = self.post("add", host="[2001:db8::1]", port=80)
        self.refused(again, 400, "Server already exists: [2001:db8::1]:80")

    def test_defaults(self) -> None:
        """Absent and empty fields mean the seed's defaults."""
        document = self.post("add", host="10.0.0.1", port=80, weight="", max_conns="")
        self.assertEqual((document["data"]["weight"], document["data"]["max_conns"]), (1, 1000))

    def test_more_than_the_seed(self) -> None:
        """The other fields of a server can be given and are shown."""
        self.post(
            "add",
            host="10.0.0.1",
            port=80,
            heartbeat="false",
            backup=1,
            max_fails=3,
            fail_timeout=2.5,
        )
        (server,) = self.get("status")["data"]
        shown = [server[n] for n in ("heartbeat", "backup", "max_fails", "fail_timeout")]
        self.assertEqual(shown, [False, True, 3, 2.5])

    def test_exists(self) -> None:
        """A server is not added twice."""
        self.post("add", host="10.0.0.1", port=80)
        self.refused(
            self.post("add", host="10.0.0.1", port=80, weight=9),
            400,
            "Server already exists: 10.0.0.1:80",
        )
        self.assertEqual(self.get("status")["data"][0]["weight"], 1)

    def test_ports(self) -> None:
        """A port is a whole number of 1-65535; the refusal says what was given."""
        self.refused(self.post("add"), 400, "Missing required parameter: port")
        self.refused(self.post("add", port=""), 400, "Missing required parameter: port")
        for bad in ("0", "65536", "-1", "80.5", "0x50", "abc", "8 0", "1e3", "٨٠", "9" * 30):
            self.refused(self.post("add", port=bad), 400, f"Invalid port number: {bad}")
        self.assertEqual(self.keys(), [])

    def test_other_numbers(self) -> None:
        """A bad number is refused by the name of its field, and nothing is added."""
        for name, bad in (
            ("weight", "0"),
            ("weight", "-1"),
            ("weight", "65536"),
            ("weight", "1.5"),
            ("max_conns", "-1"),
            ("max_conns", str(2**31)),
            ("max_fails", "x"),
            ("fail_timeout", "-1"),
            ("fail_timeout", "nan"),
            ("fail_timeout", "inf"),
            ("heartbeat", "maybe"),
            ("backup", "2"),
        ):
            document = self.post("add", host="10.0.0.1", port=80, **{name: bad})
            self.assertEqual(document["code"], 400, (name, bad))
            self.assertTrue(document["message"].startswith(f"Invalid {name}: {bad}"), document)
        self.assertEqual(self.keys(), [])

    def test_bad_hosts(self) -> None:
        """A host that can be no server's is refused."""
        for bad in ("a b", "-a", "10.0.0.256", "a:b", "[::1", "unix:/x", 'x"y', "a/b"):
            document = self.post("add", host=bad, port=80)
            self.assertEqual(document["code"], 400, bad)
            self.assertTrue(document["message"].startswith("Invalid host: "), document)
        self.assertEqual(self.keys(), [])

    def test_server_of_the_file(self) -> None:
        """What the configuration file names is there already."""
        self.refused(
            self.post("add", upstream="api", host="127.0.0.1", port=7001),
            400,
            "Server already exists: 127.0.0.1:7001",
        )


class FieldTests(ApiCase):
    def test_json(self) -> None:
        """A JSON object does the same as a form; its numbers may be texts."""
        body = b'{"host": "10.0.0.1", "port": 80, "weight": "3", "max_conns": null}'
        reply = self.ask("POST", "/upstream/add", body, b"Application/JSON; charset=utf-8")
        data = self.read(reply)["data"]
        shown = (data["addr"], data["weight"], data["max_conns"])
        self.assertEqual(shown, ("10.0.0.1:80", 3, 1000))

    def test_json_numbers_are_read_like_a_forms(self) -> None:
        """What is no whole number in a form is none in JSON."""
        for bad in ("80.0", "8e1", "true", "NaN"):
            body = b'{"port":%s}' % bad.encode()
            reply = self.ask("POST", "/upstream/add", body, b"application/json")
            self.refused(self.read(reply), 400, f"Invalid port number: {bad}")

    def test_json_of_another_kind(self) -> None:
        """Lists and objects are no values, and a list is no object."""
        cases = {
            b'{"port":[80]}': "Invalid port: neither text nor number",
            b'{"port":{"a":1}}': "Invalid port: neither text nor number",
            b"[1]": "Failed to parse request body: not a JSON object",
            b'{"port":80': "Failed to parse request body",
            b"\xff{}": "Failed to parse request body",
            b"[" * 100000: "Failed to parse request body",
            b"{" + b",".join(b'"a%d":1' % n for n in range(101)) + b"}": (
                "Failed to parse request body"
            ),
        }
        for body, message in cases.items():
            reply = self.ask("POST", "/upstream/add", body, b"application/json")
            self.refused(self.read(reply), 400, message)

    def test_repeated(self) -> None:
        """A field that comes twice is refused by name, wherever it comes from."""
        form = self.ask("POST", "/upstream/add", b"port=80&port=81")
        self.refused(self.read(form), 400, "Repeated parameter: port")
        both = self.ask("POST", "/upstream/add?upstream=api", b"port=80&upstream=api")
        self.refused(self.read(both), 400, "Repeated parameter: upstream")
        twice = self.ask("POST", "/upstream/add", b'{"port":80,"port":80}', b"application/json")
        self.refused(self.read(twice), 400, "Repeated parameter: port")

    def test_unknown(self) -> None:
        """A field that the endpoint does not know is refused by name."""
        self.refused(self.post("add", port=80, wieght=3), 400, "Unknown parameter: wieght")
        self.refused(self.post("remove", port=80, weight=3), 400, "Unknown parameter: weight")
        self.refused(self.get("status?x=1"), 400, "Unknown parameter: x")

    def test_undecodable(self) -> None:
        """Bytes that are no UTF-8 are refused, in the body and in the query."""
        self.refused(
            self.read(self.ask("POST", "/upstream/add", b"host=%ff&port=80")),
            400,
            "Failed to parse request body",
        )
        self.refused(self.get("status?upstream=%ff"), 400, "Failed to parse query")

    def test_content_types(self) -> None:
        """No content type means a form; others than form and JSON are refused."""
        plain = self.ask("POST", "/upstream/add", b"port=80", None)
        self.assertEqual(plain.status, 200)
        other = self.ask("POST", "/upstream/add", b"port=81", b"multipart/form-data; boundary=x")
        self.refused(self.read(other), 415, "Unsupported content type: multipart/form-data")

    def test_upstream_in_query_or_body(self) -> None:
        """Every endpoint takes the upstream's name either way."""
        self.ask("POST", "/upstream/add?upstream=api", b"host=10.0.0.1&port=1")
        self.post("add", upstream="api", host="10.0.0.1", port=2)
        addresses = [server["addr"] for server in self.get("status?upstream=api")["data"]]
        self.assertEqual(addresses[2:], ["10.0.0.1:1", "10.0.0.1:2"])
        self.assertEqual(self.keys(), [])

    def test_unknown_upstream(self) -> None:
        """Every endpoint answers 404 for an upstream that does not exist."""
        for what in ("status", "health", "cleanup"):
            self.refused(self.get(f"{what}?upstream=nope"), 404, "Unknown upstream: nope")
        for what in ("add", "remove", "refresh"):
            document = self.post(what, port=80, upstream="nope")
            self.refused(document, 404, "Unknown upstream: nope")
        self.refused(self.post("reset", upstream="nope"), 404, "Unknown upstream: nope")
        document = self.post("toggle", port=80, action="enable", upstream="nope")
        self.refused(document, 404, "Unknown upstream: nope")

    def test_answers_hold_no_broken_text(self) -> None:
        """Whatever a stranger sends, the answer is one JSON document in ASCII."""
        for text in ('"', "\\", "\u2028", "\x00", "é", "x" * 5000):
            reply = self.ask("POST", "/upstream/add", urlencode({text: "1"}).encode())
            self.assertEqual(reply.status, 400)
            self.assertTrue(reply.body.isascii())
            self.assertLess(len(reply.body), 1000)
        lone = self.ask("POST", "/upstream/add", b'{"\\ud800":1}', b"application/json")
        self.assertEqual(self.read(lone)["code"], 400)


class DispatchTests(ApiCase):
    def test_methods(self) -> None:
        """A method that is not listed gets 405 and the list."""
        for method, path, allow in (
            ("POST", "/upstream/status", b"GET, HEAD"),
            ("GET", "/upstream/add", b"POST"),
            ("HEAD", "/upstream/reset", b"POST"),
            ("DELETE", "/upstream/cleanup", b"GET, HEAD, POST"),
            ("PUT", "/", b"GET, HEAD"),
            ("POST", "/metrics", b"GET, HEAD"),
        ):
            reply = self.ask(method, path)
            self.assertEqual((reply.status, dict(reply.headers)[b"allow"]), (405, allow))
            self.read(reply)

    def test_unknown_path(self) -> None:
        """Paths are known to the letter; others get 404 in JSON."""
        below = ("addX", "", "status/", "%73tatus")
        for path in (*(f"/upstream/{name}" for name in below), "/x"):
            self.refused(self.read(self.ask("GET", path)), 404, f"Unknown path: {path}")

    def test_head(self) -> None:
        """HEAD has the header fields of GET."""
        get = self.ask("GET", "/upstream/health")
        self.assertEqual(self.ask("HEAD", "/upstream/health").headers, get.headers)

    def test_compact_json(self) -> None:
        """No space follows a colon or a comma: the seed's scripts search the text."""
        reply = self.ask("POST", "/upstream/add", b"host=10.0.0.1&port=80")
        self.assertEqual(
            reply.body,
            b'{"code":200,"message":"Server added successfully","data":{"addr":"10.0.0.1:80",'
            b'"host":"10.0.0.1","port":80,"weight":1,"max_conns":1000,"enabled":true}}',
        )
        headers = dict(reply.headers)
        self.assertEqual(headers[b"content-type"], b"application/json; charset=utf-8")
        self.assertEqual(headers[b"content-length"], b"%d" % len(reply.body))

    def test_large_body(self) -> None:
        """A body above the limit is refused."""
        reply = self.ask("POST", "/upstream/add", b"port=80&host=" + b"x" * BODY_LIMIT)
        self.refused(self.read(reply), 413, "Request body too large")

    def test_page_of_another_origin(self) -> None:
        """A browser's form from a foreign page gives no orders; our own page may."""
        body = b"host=10.0.0.1&port=80"
        foreign = self.ask(
            "POST", "/upstream/add", body, origin=b"https://evil.example", host=b"127.0.0.1:8081"
        )
        self.assertEqual(foreign.status, 403)
        self.assertEqual(self.ask("POST", "/upstream/add", body, origin=b"null").status, 403)
        self.assertEqual(self.keys(), [])
        own = self.ask(
            "POST", "/upstream/add", body, origin=b"http://127.0.0.1:8081", host=b"127.0.0.1:8081"
        )
        self.assertEqual(own.status, 200)

    def test_mistake_of_ours(self) -> None:
        """An exception that nobody foresaw is logged and answered with 500."""
        self.store.failure = ZeroDivisionError("a mistake")
        self.refused(self.post("reset"), 500, "Internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ChangeTests(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.post("add", host="10.0.0.1", port=80)

    def status(self) -> dict[str, Any]:
        (server,) = self.get("status")["data"]
        assert isinstance(server, dict)
        return server

    def test_remove(self) -> None:
        """A removed server is gone at once; a second time it is not found."""
        self.assertEqual(
            self.post("remove", host="10.0.0.1", port=80),
            {
                "code": 200,
                "message": "Server removed successfully",
                "data": {"addr": "10.0.0.1:80"},
            },
        )
        self.assertEqual(self.keys(), [])
        self.refused(
            self.post("remove", host="10.0.0.1", port=80), 404, "Server not found: 10.0.0.1:80"
        )

    def test_toggle(self) -> None:
        """A disabled server is not chosen, and says why; enabled it is again."""
        self.assertEqual(
            self.post("toggle", host="10.0.0.1", port=80, action="disable"),
            {
                "code": 200,
                "message": "Server disabled successfully",
                "data": {"addr": "10.0.0.1:80", "enabled": False},
            },
        )
        self.assertIsNone(self.upstream.choose())
        status = self.status()
        self.assertEqual((status["state"], status["disabled_reason"]), ("disabled", "manual"))
        self.assertIn("why", status)
        document = self.post("toggle", host="10.0.0.1", port=80, action="enable")
        self.assertEqual(document["message"], "Server enabled successfully")
        self.assertTrue(document["data"]["enabled"])
        self.assertIsNotNone(self.upstream.choose())
        self.assertNotIn("disabled_reason", self.status())

    def test_actions(self) -> None:
        """Only enable, disable and drain; how a drain ends is a drain's alone."""
        wrong = "Invalid action. Must be enable, disable or drain"
        for bad in ("", "ENABLE", "off"):
            self.refused(self.post("toggle", host="10.0.0.1", port=80, action=bad), 400, wrong)
        self.refused(self.post("toggle", host="10.0.0.1", port=80), 400, wrong)
        for wrong in ({"deadline": 5}, {"then": "remove"}):
            self.refused(
                self.post("toggle", host="10.0.0.1", port=80, action="enable", **wrong),
                400,
                "Invalid action. deadline and then are for drain",
            )
        self.refused(
            self.post("toggle", host="10.0.0.1", port=80, action="drain", then="sleep"),
            400,
            "Invalid then: sleep is not disable or remove",
        )
        self.refused(self.post("toggle"), 400, "Missing required parameter: port")

    def test_drain(self) -> None:
        """A draining server is shown with the time that is left and what comes then."""
        document = self.post(
            "toggle", host="10.0.0.1", port=80, action="drain", deadline=60, then="remove"
        )
        self.assertEqual(document["message"], "Server is draining")
        self.assertEqual(
            document["data"],
            {
                "addr": "10.0.0.1:80",
                "enabled": False,
                "connections": 0,
                "drain_deadline": 1060,
                "drain_then": "remove",
            },
        )
        self.wait(5)
        status = self.status()
        self.assertEqual(
            ("draining", 1060, 55, "remove", "draining"),
            tuple(
                status[name]
                for name in (
                    "state", "drain_deadline", "drain_remaining", "drain_then", "disabled_reason"
                )
            ),
        )
        self.post("toggle", host="10.0.0.1", port=80, action="enable")
        status = self.status()
        self.assertEqual("up", status["state"])
        self.assertNotIn("drain_deadline", status)

    def test_drain_without_end(self) -> None:
        """A drain may go on; with a deadline alone it ends with the server disabled."""
        self.post("toggle", host="10.0.0.1", port=80, action="drain")
        status = self.status()
        self.assertEqual("draining", status["state"])
        self.assertEqual(set(), {"drain_deadline", "drain_remaining", "drain_then"} & set(status))
        self.post("toggle", host="10.0.0.1", port=80, action="drain", deadline="0.5")
        self.assertEqual("disable", self.status()["drain_then"])

    def test_slow_start(self) -> None:
        """A server may be added with a slow start of its own, and shows how far it is."""
        self.post("add", host="10.0.0.2", port=80, slow_start=64)
        (_, shown) = self.get("status")["data"]
        self.assertEqual(0.016, shown["slow_start"])
        self.balancer.upstream("default").tick()
        self.wait(32)
        self.balancer.upstream("default").tick()
        (_, shown) = self.get("status")["data"]
        self.assertGreater(shown["slow_start"], 0.4)

    def test_remove_with_drain(self) -> None:
        """C{remove} with C{drain} lets the server finish first."""
        document = self.post("remove", host="10.0.0.1", port=80, drain=30)
        self.assertEqual(("Server is draining", "remove"), (
            document["message"], document["data"]["drain_then"]
        ))
        self.assertEqual(30, self.status()["drain_remaining"])
        document = self.post("remove", host="10.0.0.1", port=80, drain=0)
        self.assertEqual("Server removed successfully", document["message"])

    def test_refresh(self) -> None:
        """A heartbeat answers its time, and is shown."""
        self.wait(5)
        document = self.post("refresh", host="10.0.0.1", port=80)
        self.assertEqual(document["message"], "Heartbeat refreshed successfully")
        self.assertEqual(document["data"], {"addr": "10.0.0.1:80", "heartbeat_time": 1005})
        self.wait(2)
        status = self.status()
        self.assertEqual((status["last_heartbeat"], status["time_since_heartbeat"]), (1005, 2))

    def test_heartbeats_load_nothing(self) -> None:
        """A heartbeat that changes nothing costs one call of the store."""
        self.store.calls.clear()
        self.post("refresh", host="10.0.0.1", port=80)
        self.assertEqual(self.store.calls, ["beat"])

    def test_refresh_of_a_stranger(self) -> None:
        """A heartbeat of nobody is not found, by the caller's address if need be."""
        self.refused(self.post("refresh", port=80), 404, f"Server not found: {CALLER}:80")

    def test_expiry_and_return(self) -> None:
        """A cleanup takes out who is silent, and the next heartbeat brings it back at once."""
        self.wait(TTL + 1)
        status = self.status()
        self.assertEqual((status["enabled"], status["is_active"]), (True, False))
        self.assertEqual(
            self.get("cleanup"),
            {
                "code": 200,
                "message": "Cleanup completed successfully",
                "data": {"expired_count": 1, "disabled_count": 1},
            },
        )
        status = self.status()
        self.assertEqual(
            (status["state"], status["enabled"], status["disabled_reason"]),
            ("expired", False, "heartbeat_timeout"),
        )
        self.assertIsNone(self.upstream.choose())
        again = self.read(self.ask("POST", "/upstream/cleanup"))
        self.assertEqual(again["data"], {"expired_count": 1, "disabled_count": 0})
        self.post("refresh", host="10.0.0.1", port=80)
        self.assertIsNotNone(self.upstream.choose())
        self.assertEqual(self.status()["state"], "up")

    def test_heartbeat_does_not_undo_an_operator(self) -> None:
        """Who was disabled by a person stays disabled, however much it beats."""
        self.post("toggle", host="10.0.0.1", port=80, action="disable")
        self.post("refresh", host="10.0.0.1", port=80)
        self.assertEqual(self.status()["state"], "disabled")

    def test_reset_keeps_live_connections(self) -> None:
        """A reset answers the seed's text, and what is held stays counted."""
        lease = self.upstream.choose()
        assert lease is not None
        self.wait(0.1)
        self.assertEqual(
            self.post("reset"),
            {
                "code": 200,
                "message": "All connection counts reset to zero",
                "data": {"servers_reset": 1},
            },
        )
        self.wait(0.1)
        status = self.status()
        self.assertEqual((status["connections"], status["node_connections"]), (1, 1))

    def test_names_that_others_wrote(self) -> None:
        """A server that an older program stored by its own spelling can be managed."""
        foreign = order(80)
        foreign = type(foreign)(address="Web-1:80", host="Web-1", port=80)
        self.successResultOf(self.store.inner.add("default", foreign, "seed"))
        self.wait(0.1)
        added = self.post("add", host="Web-1", port=80)
        self.refused(added, 400, "Server already exists: Web-1:80")
        removed = self.post("remove", host="Web-1", port=80)
        self.assertEqual(removed["data"], {"addr": "Web-1:80"})

    def test_orders_are_logged(self) -> None:
        """Every order leaves one line that says who ordered what."""
        with capturedLogs() as events:
            self.post("add", host="10.0.0.2", port=80)
            self.post("toggle", host="10.0.0.2", port=80, action="disable")
            self.post("remove", host="10.0.0.2", port=80)
        told = [(e["server"], e["upstream"], e["what"], e["client"]) for e in events]
        words = ("added", "disabled", "removed")
        self.assertEqual(told, [("10.0.0.2:80", "default", word, CALLER) for word in words])

    def test_server_of_the_file(self) -> None:
        """What the configuration file defines is not changed through the API."""
        text = "Server is defined in the configuration file: 127.0.0.1:7001"
        for what in ("remove", "refresh"):
            document = self.post(what, upstream="api", host="127.0.0.1", port=7001)
            self.refused(document, 400, text)
        document = self.post(
            "toggle", upstream="api", host="127.0.0.1", port=7001, action="disable"
        )
        self.refused(document, 400, text)


class StatusTests(ApiCase):
    def test_empty(self) -> None:
        """No servers are an empty list."""
        self.assertEqual(self.ask("GET", "/upstream/status").body.count(b'"data":[]'), 1)

    def test_fields(self) -> None:
        """A server is shown with the seed's fields and ours; what is unknown is left out."""
        self.post("add", host="10.0.0.1", port=80)
        self.wait(1.5)
        (server,) = self.get("status")["data"]
        self.assertEqual(
            server,
            {
                "addr": "10.0.0.1:80",
                "host": "10.0.0.1",
                "port": 80,
                "connections": 0,
                "weight": 1,
                "max_conns": 1000,
                "enabled": True,
                "is_active": True,
                "last_heartbeat": 1000,
                "time_since_heartbeat": 1.5,
                "created_at": 1000,
                "heartbeat": True,
                "max_fails": 1,
                "fail_timeout": 10,
                "source": "store",
                "backup": False,
                "state": "up",
                "node_connections": 0,
                "slow_start": 1,
            },
        )

    def test_file_servers(self) -> None:
        """Servers of the file are listed first, as such."""
        first, second = self.get("status?upstream=api")["data"]
        self.assertEqual(
            (first["addr"], first["source"], first["state"], first["enabled"]),
            ("127.0.0.1:7001", "file", "up", True),
        )
        self.assertEqual((second["state"], second["enabled"]), ("down", False))
        self.assertNotIn("last_heartbeat", first)

    def test_full_server_says_so(self) -> None:
        """A server that holds max_conns is full, and says why it is not chosen."""
        self.post("add", host="10.0.0.1", port=80, max_conns=1)
        self.upstream.choose()
        (server,) = self.get("status")["data"]
        self.assertEqual((server["state"], server["connections"]), ("full", 1))
        self.assertIn("max_conns", server["why"])

    def test_without_heartbeats_always_active(self) -> None:
        """A server that needs no heartbeat is active for ever."""
        self.post("add", host="10.0.0.1", port=80, heartbeat="false")
        self.wait(TTL * 2)
        (server,) = self.get("status")["data"]
        self.assertTrue(server["is_active"])


class HealthTests(ApiCase):
    def counts(self, document: dict[str, Any]) -> list[int]:
        return [document["data"][f"{n}_servers"] for n in ("total", "enabled", "active", "expired")]

    def test_nobody(self) -> None:
        """Without a server the upstream is unhealthy, and the answer is still 200."""
        self.assertEqual(
            self.get("health"),
            {
                "code": 200,
                "message": "Upstream health status",
                "status": "unhealthy",
                "data": {
                    "total_servers": 0,
                    "enabled_servers": 0,
                    "active_servers": 0,
                    "expired_servers": 0,
                    "store": "ok",
                    "stale_for": 0,
                },
            },
        )

    def test_counts(self) -> None:
        """Enabled ones are active or expired by their heartbeat, before any cleanup."""
        for port in (1, 2, 3):
            self.post("add", host="10.0.0.1", port=port)
        self.post("toggle", host="10.0.0.1", port=3, action="disable")
        self.wait(TTL + 1)
        self.post("refresh", host="10.0.0.1", port=1)
        document = self.get("health")
        self.assertEqual(document["status"], "healthy")
        self.assertEqual(self.counts(document), [3, 2, 1, 1])

    def test_file_servers_count(self) -> None:
        """Servers of the file are enabled and active unless they are down."""
        self.assertEqual(self.counts(self.get("health?upstream=api")), [2, 1, 1, 0])


class StoreAwayTests(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.post("add", host="10.0.0.1", port=80)
        self.store.lose()
        self.wait(3)

    def test_orders_change_nothing(self) -> None:
        """Every order gets 503 with the reason, and afterwards all is as it was."""
        for what, fields in (
            ("add", {"port": 81}),
            ("remove", {"port": 80}),
            ("toggle", {"port": 80, "action": "disable"}),
            ("refresh", {"port": 80}),
        ):
            document = self.post(what, host="10.0.0.1", **fields)
            self.refused(document, 503, "Store unavailable: the door is closed")
        for what in ("reset", "cleanup"):
            self.refused(self.post(what), 503, "Store unavailable: the door is closed")
        self.store.find()
        self.wait(1)
        (server,) = self.get("status")["data"]
        self.assertEqual((server["addr"], server["state"]), ("10.0.0.1:80", "up"))

    def test_mistakes_are_found_first(self) -> None:
        """What is wrong in itself is refused as such, store or no store."""
        self.refused(self.post("add", port="x"), 400, "Invalid port number: x")

    def test_health_tells_the_last_known(self) -> None:
        """Health answers 503 with the last known numbers and how old they are."""
        document = self.get("health")
        self.assertEqual((document["code"], document["status"]), (503, "unhealthy"))
        data = document["data"]
        self.assertEqual((data["store"], data["active_servers"]), ("away", 1))
        self.assertAlmostEqual(data["stale_for"], 3, delta=0.2)

    def test_status_tells_the_last_known(self) -> None:
        """Status answers 503 with the last known servers."""
        document = self.get("status")
        self.assertEqual(document["code"], 503)
        self.assertEqual([server["addr"] for server in document["data"]], ["10.0.0.1:80"])

    def test_loss_after_the_change(self) -> None:
        """A change that was made is answered as made, though it cannot be read back."""
        self.store.find()
        self.clock.advance(0.1)
        inner = self.store.inner.add

        def add_and_lose(*arguments: Any) -> Any:
            self.store.lose()
            return inner(*arguments)

        self.patch(self.store, "add", add_and_lose)
        self.assertEqual(self.post("add", host="10.0.0.1", port=81)["code"], 200)


class PageTests(ApiCase):
    def metrics(self) -> list[str]:
        reply = self.ask("GET", "/metrics")
        self.assertTrue(dict(reply.headers)[b"content-type"].startswith(b"text/plain"))
        return reply.body.decode().splitlines()

    def test_liveness(self) -> None:
        """Who answers is alive, whatever the store does."""
        self.store.lose()
        self.assertEqual(self.ask("GET", "/healthz").body, b'{"code":200,"message":"OK"}')

    def test_readiness(self) -> None:
        """Ready means that some upstream has a server that may be chosen."""
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        for port in (7001, 7002):
            server = self.balancer.upstream("api").server(f"127.0.0.1:{port}")
            assert server is not None
            server.down = True
            server.settle()
        document = self.read(self.ask("GET", "/readyz"))
        self.assertEqual(document["code"], 503)
        self.assertEqual(document["data"]["usable_servers"], {"default": 0, "api": 0})
        self.assertIn("down", document["data"]["why"]["api"])
        self.post("add", host="10.0.0.1", port=80)
        self.assertEqual(self.ask("GET", "/readyz").status, 200)

    def test_metrics(self) -> None:
        """The balancer's numbers are there under their names."""
        lease = self.balancer.upstream("api").choose()
        assert lease is not None
        server = lease.server
        server.responses[2] += 5
        server.responses[0] += 1
        server.failures += 2
        server.bytes_in, server.bytes_out = 10, 20
        lines = self.metrics()
        labels = 'server="127.0.0.1:7001",upstream="api"'
        for line in (
            "dynbalance_store_available 1.0",
            "dynbalance_store_stale_seconds 0.0",
            'dynbalance_upstream_servers{state="up",upstream="api"} 1.0',
            'dynbalance_upstream_servers{state="down",upstream="api"} 1.0',
            'dynbalance_upstream_servers{state="up",upstream="default"} 0.0',
            'dynbalance_upstream_waiting{upstream="api"} 0.0',
            'dynbalance_upstream_panic{upstream="api"} 0.0',
            f"dynbalance_server_slow_start{{{labels}}} 1.0",
            f"dynbalance_server_connections{{{labels}}} 1.0",
            f"dynbalance_server_shared_connections{{{labels}}} 1.0",
            f"dynbalance_server_picks_total{{{labels}}} 1.0",
            f"dynbalance_server_failures_total{{{labels}}} 2.0",
            f'dynbalance_server_requests_total{{code="2xx",{labels}}} 5.0',
            f'dynbalance_server_requests_total{{code="other",{labels}}} 1.0',
            f'dynbalance_server_bytes_total{{direction="in",{labels}}} 10.0',
            f'dynbalance_server_bytes_total{{direction="out",{labels}}} 20.0',
        ):
            self.assertIn(line, lines)
        self.assertTrue([line for line in lines if line.startswith("process_")])
        self.assertTrue([line for line in lines if line.startswith("python_info")])

    def test_metrics_tell_of_the_outage(self) -> None:
        """A store that is away is a 0, with its age beside it."""
        self.store.lose()
        self.wait(2)
        lines = self.metrics()
        self.assertIn("dynbalance_store_available 0.0", lines)
        (age,) = [x for x in lines if x.startswith("dynbalance_store_stale_seconds ")]
        self.assertAlmostEqual(float(age.split()[1]), 2, delta=0.2)

    def test_dashboard(self) -> None:
        """The page stands alone: its parts are here, and nothing stands inline."""
        reply = self.ask("GET", "/")
        headers = dict(reply.headers)
        self.assertEqual(headers[b"content-type"], b"text/html; charset=utf-8")
        policy = headers[b"content-security-policy"]
        self.assertIn(b"default-src 'none'", policy)
        self.assertNotIn(b"unsafe", policy)
        for inline in (b"<style", b"style=", b" onclick", b"<script>", b"//"):
            self.assertNotIn(inline, reply.body)
        # Whoever may see nothing sees no upstream's name either.
        self.assertNotIn(b"default&quot;", reply.body)
        parts = re.findall(rb'"(dashboard/[a-z.]+)"', reply.body)
        self.assertLessEqual({b"dashboard/style.css", b"dashboard/main.js"}, set(parts))

    def test_parts(self) -> None:
        """Each part that another one names is there, with its type, and makes no text a page."""
        for name, kind in PARTS.items():
            reply = self.ask("GET", f"/dashboard/{name}")
            self.assertEqual(200, reply.status, name)
            self.assertEqual(
                dict(reply.headers)[b"content-type"], f"{kind}; charset=utf-8".encode()
            )
            if kind != "text/javascript":
                continue
            named = {part.decode() for part in re.findall(rb'from "\./([a-z.]+)"', reply.body)}
            self.assertLessEqual(named, set(PARTS))
            for hazard in (b"innerHTML", b"outerHTML", b"eval(", b"document.write", b"https://"):
                self.assertNotIn(hazard, reply.body)
