"""Tests of exports and imports by the admin API."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from dynbalance.store.contract import Intent
from tests.admin.test_history import ChangingCase

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "[2001:db8::3]:80"
JSON = b"application/json"

SEED = """[{"addr":"10.0.0.1:80","host":"10.0.0.1","port":80,"connections":3,"weight":0,
"max_conns":500,"enabled":true,"is_active":true,"last_heartbeat":1700000000.123,
"time_since_heartbeat":4.5,"created_at":1699999999},
{"addr":"10.0.0.2:80","host":"10.0.0.2","port":80,"connections":0,"weight":2,"max_conns":1000,
"enabled":false,"is_active":false,"disabled_reason":"heartbeat_timeout"},
{"addr":"10.0.0.3:80","host":"10.0.0.3","port":80,"weight":1,"max_conns":1000,"enabled":false}]"""


class BackupCase(ChangingCase):
    """A node with something to export."""

    def setUp(self) -> None:
        super().setUp()
        self.order_of(weight=2, backup=1, slow_start=3)
        self.order_of("10.0.0.2", heartbeat=0, fail_timeout=2.5)
        self.order_of("2001:db8::3")
        self.change("toggle", "10.0.0.2", action="disable")
        self.change("toggle", "2001:db8::3", action="drain", deadline=60, then="remove")

    def export(self, query: str = "") -> Any:
        return self.get(f"export{query}")["data"]

    def load(self, data: object, **more: object) -> dict[str, Any]:
        body = json.dumps({"data": data, **more}).encode()
        return self.read(self.ask("POST", "/upstream/import", body, JSON))

    def loaded(self, data: object, **more: object) -> Any:
        document = self.load(data, **more)
        self.assertEqual(document["code"], 200, document)
        return document["data"]["upstreams"]


class ExportTests(BackupCase):
    """What an export holds."""

    def test_one(self) -> None:
        """One upstream's orders and intents, and nothing observed."""
        document = self.export()
        self.assertEqual(document["format"], "dynbalance-1")
        self.assertEqual(list(document["upstreams"]), ["default"])
        self.assertEqual(document["upstreams"]["default"]["revision"], 5)
        first, second, third = document["upstreams"]["default"]["servers"]
        self.assertEqual(
            first,
            {
                "addr": A,
                "host": "10.0.0.1",
                "port": 80,
                "weight": 2,
                "max_conns": 1000,
                "heartbeat": True,
                "backup": True,
                "max_fails": 1,
                "fail_timeout": 10,
                "slow_start": 3,
                "action": "enable",
            },
        )
        self.assertEqual((second["action"], second["fail_timeout"]), ("disable", 2.5))
        self.assertEqual(
            (third["action"], third["then"], third["deadline"]), ("drain", "remove", 60)
        )

    def test_all(self) -> None:
        """All upstreams; those of the file are not in it."""
        document = self.export("?all=1")
        self.assertEqual(set(document["upstreams"]), {"default", "api"})
        self.assertEqual(document["upstreams"]["api"]["servers"], [])


class ImportTests(BackupCase):
    """What an import does."""

    def test_round(self) -> None:
        """What was exported is imported again, whatever happened between."""
        document = self.export("?all=1")
        for host in ("10.0.0.1", "2001:db8::3"):
            self.change("remove", host)
        self.order_of("10.0.0.9")
        self.change("toggle", "10.0.0.2", action="enable")
        data = self.loaded(document)
        self.assertEqual(
            data["default"],
            {"revision": 10, "added": [A, C], "removed": ["10.0.0.9:80"], "changed": [B]},
        )
        self.assertEqual(data["api"]["changed"], [])
        again = self.export("?all=1")
        again["upstreams"]["default"]["revision"] = 5
        self.assertEqual(again, document)
        self.assertEqual(self.statuses()[C]["drain_remaining"], 60)
        actions = {(line["action"], line["revision"]) for line in self.told("history?limit=4")}
        self.assertEqual(actions, {("import", 10)})

    def test_again(self) -> None:
        """An import of what is there changes nothing, not even the revision."""
        document = self.load(self.export())
        self.assertEqual(document["message"], "Nothing to import")
        self.assertEqual(len(self.told()), 5)

    def test_dry_run(self) -> None:
        """What would change is told, and is not changed."""
        data = self.export()
        del data["upstreams"]["default"]["servers"][1:]
        document = self.load(data, dry_run=True)
        self.assertEqual(document["message"], "The import would change this")
        self.assertEqual(
            document["data"]["upstreams"]["default"],
            {"revision": 5, "added": [], "removed": [B, C], "changed": []},
        )
        self.assertEqual(set(self.statuses()), {A, B, C})

    def test_whole_answer(self) -> None:
        """The answer of an export may be sent back as it is, and so may a form."""
        reply = self.ask("GET", "/upstream/export")
        self.change("remove")
        document = self.read(self.ask("POST", "/upstream/import", reply.body, JSON))
        self.assertEqual(document["data"]["upstreams"]["default"]["added"], [A])
        self.change("remove")
        form = urlencode({"data": json.dumps(json.loads(reply.body)["data"])}).encode()
        self.assertEqual(self.ask("POST", "/upstream/import", form).status, 200)
        self.assertIn(A, self.statuses())

    def test_status_of_the_seed(self) -> None:
        """The list that an OpenResty set-up tells carries over; who was late may serve."""
        data = self.loaded(json.loads(SEED))
        self.assertEqual(data["default"]["removed"], [C])
        servers = self.export()["upstreams"]["default"]["servers"]
        self.assertEqual(
            [(s["weight"], s["max_conns"], s["action"]) for s in servers],
            [(1, 500, "enable"), (2, 1000, "enable"), (1, 1000, "disable")],
        )
        self.assertTrue(all(server["is_active"] for server in self.statuses().values()))

    def test_own_status(self) -> None:
        """So does our own status, without the servers of the file."""
        status = self.get("status")["data"]
        self.loaded(status, upstream="api")
        self.loaded(self.get("status?upstream=api")["data"], upstream="api")
        snapshot = self.successResultOf(self.store.inner.snapshot("api"))
        self.assertEqual(
            [(record.order.address, record.intent) for record in snapshot.servers],
            [(A, Intent.ENABLE), (B, Intent.DISABLE), (C, Intent.DRAIN)],
        )

    def test_only(self) -> None:
        """Of a document with many upstreams one alone may be taken."""
        data = self.export("?all=1")
        data["upstreams"]["api"]["servers"] = data["upstreams"]["default"]["servers"]
        self.assertEqual(list(self.loaded(data, upstream="api")), ["api"])
        self.refused(self.load(data, upstream="x"), 404, "Unknown upstream: x")

    def test_condition(self) -> None:
        """An import for another revision is a conflict; for two upstreams it cannot be."""
        body = json.dumps({"data": self.export()}).encode()
        reply = self.ask("POST", "/upstream/import", body, JSON, if_match=b'"4"')
        self.assertEqual(reply.status, 409)
        body = json.dumps({"data": self.export("?all=1")}).encode()
        reply = self.ask("POST", "/upstream/import", body, JSON, if_match=b'"5"')
        self.refused(self.read(reply), 400, "If-Match is for orders about one upstream")

    def test_mistakes(self) -> None:
        """Each mistake is told with its path, and nothing is changed."""
        servers = [
            {"host": "10.0.0.1", "port": 80, "weight": 0, "max_conns": "x"},
            {"host": "10.0.0.1", "port": 80},
            {"host": "10.0.0.1", "port": 80},
            {"host": "1.2.3.4.5", "port": 80},
            {"host": "10.0.0.4", "port": 80, "wieght": 2},
            {"host": "10.0.0.5", "port": 80, "action": "enable", "then": "remove"},
            {"port": 80},
            {"host": "127.0.0.1", "port": 7001},
            {"host": "10.0.0.6", "port": [80]},
            7,
        ]
        data = {"upstreams": {"api": {"servers": servers}, "x": {"servers": []}, "default": 7}}
        document = self.load(data)
        self.assertEqual(document["code"], 400)
        at = "data.upstreams.api.servers"
        self.assertEqual(
            document["message"].split("; "),
            [
                f"{at}[0].weight: Invalid weight: 0 is not 1-65535",
                f"{at}[2]: 10.0.0.1:80 is there twice",
                f"{at}[3].host: '1.2.3.4.5' is not an IPv4 address",
                f"{at}[4].wieght: unknown member",
                f"{at}[5].action: deadline and then are for drain",
                f"{at}[6]: has neither addr nor host and port",
                f"{at}[7]: 127.0.0.1:7001 is defined in the configuration file",
                f"{at}[8].port: neither text nor number",
                f"{at}[9]: is not an object",
                "data.upstreams.x.servers: there is no upstream x",
                "data.upstreams.default: is not an object",
                "data.upstreams.default.servers: is not a list of servers",
            ],
        )
        self.assertEqual(set(self.statuses()), {A, B, C})

    def test_no_document(self) -> None:
        """What is no document at all is refused."""
        for body, message in (
            (b"{}", "Missing required parameter: data"),
            (b'{"data":7}', "data: is not an object; data.upstreams: is not an object"),
            (b'{"data":"{"}', "Invalid data: no JSON"),
            (b'{"data":[' + b"9" * 5000 + b"]}", "Failed to parse request body"),
            (b'{"data":{}}', "data.upstreams: is not an object"),
            (b'{"data":{"format":"x","upstreams":{}}}', "data.format: is not dynbalance-1"),
            (b'{"data":{"upstreams":{}},"x":1}', "Unknown parameter: x"),
            (b'{"data":[{"host":["x"]}]}', "data[0]: has neither addr nor host and port"),
        ):
            reply = self.ask("POST", "/upstream/import", body, JSON)
            self.refused(self.read(reply), 400, message)
        many = [{"port": 1}] * 30
        self.assertTrue(self.load(many)["message"].endswith("; and 10 more"))
