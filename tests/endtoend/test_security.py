"""
Who is let into the admin API, by curl: each kind of credential, and what is
written down of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dynbalance.hashes import hash_password, hash_token
from tests.endtoend.certificates import TlsCase
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, run

PASSWORD = "correct horse"
SECRETS = {name: f"tok-{name}-of-chance" for name in ("reader", "agent", "boss")}
ROLES = {"reader": "read", "agent": "agent", "boss": "admin"}
SIGNING = "sign with this, thirty-two bytes."
HASH = hash_password(PASSWORD)


def table(**values: Any) -> str:
    """An inline table, or a list of them, in TOML."""
    members = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    return f"{{ {members} }}"


TOKENS = [
    table(name=name, token_hash=hash_token(SECRETS[name]), role=role, hosts=["10.9.9.9"])
    for name, role in ROLES.items()
]
CREDENTIALS = (
    f'users = [{table(name="ops", password_hash=HASH, role="admin")}]\n'
    f"tokens = [{', '.join(TOKENS)}]\n"
)


def bearer(token: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {token}"


class SecurityCase(TlsCase):
    """A daemon whose C{[admin]} goes on as a test wants it."""

    def begin(self, admin: str, **more: Any) -> Daemon:
        self.daemon = Daemon(self, more=admin, **more)
        return self.daemon

    def call(
        self, path: str, *options: str, port: int | None = None, url: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """
        @return: the status, the header fields by their lower-case names, and
            the body's JSON.
        """
        url = url or f"http://{LOOPBACK}:{port or self.daemon.admin}"
        said = run("curl", "-sS", "--max-time", "20", "-i", *options, url + path)
        head, _, body = said.partition("\n\n")
        first, *lines = head.splitlines()
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            fields[name.lower()] = ", ".join(filter(None, [fields.get(name.lower()), value]))
        return int(first.split()[1]), fields, json.loads(body) if body.startswith("{") else body

    def status(self, path: str, *options: str, **more: Any) -> int:
        return self.call(path, *options, **more)[0]

    def add(self, *options: str, host: str = LOOPBACK, number: int = 8000, **more: Any) -> int:
        fields = ("-d", f"host={host}", "-d", f"port={number}")
        return self.status("/upstream/add", *fields, *options, **more)


class CredentialTests(SecurityCase):
    """Names, passwords and tokens."""

    def test_every_kind(self) -> None:
        """
        Without credentials and with wrong ones nothing is told and nothing done;
        with good ones what their role may; and nobody's secret is written down.
        """
        audit = os.path.join(self.directory("audit"), "audit.log")
        daemon = self.begin(f"{CREDENTIALS}audit_log = {json.dumps(audit)}\n")
        status, fields, answer = self.call("/upstream/status")
        self.assertEqual((401, 401), (status, answer["code"]))
        self.assertNotIn("data", answer)
        self.assertIn('Basic realm="dynbalance"', fields["www-authenticate"])
        self.assertIn('Bearer realm="dynbalance"', fields["www-authenticate"])
        self.assertEqual(200, self.status("/healthz"))
        self.assertEqual(200, self.status("/"))
        for path in ("/metrics", "/readyz", "/openapi.json", "/upstream/events", "/upstream/add"):
            method = ("-d", "port=1") if path.endswith("add") else ()
            self.assertEqual(401, self.status(path, *method), path)
        for wrong in (
            ("-u", "ops:wr0ng-secret"),
            ("-u", f"nobody:{PASSWORD}"),
            bearer("wr0ng-secret"),
            ("-H", "Authorization: Basic wr0ng-secret"),
        ):
            status, fields, _ = self.call("/upstream/status", *wrong)
            self.assertEqual(401, status, wrong)
            self.assertEqual(401, self.add(*wrong), wrong)
        good = ("-u", f"ops:{PASSWORD}")
        for credentials in (good, bearer(SECRETS["reader"]), bearer(SECRETS["boss"])):
            self.assertEqual(200, self.status("/upstream/status", *credentials))
            self.assertIn(self.status("/readyz", *credentials), (200, 503))
            self.assertEqual(200, self.status("/metrics", *credentials))

        self.assertEqual(403, self.add(*bearer(SECRETS["reader"])))
        self.assertEqual(200, self.add(*good, number=8001))
        agent = bearer(SECRETS["agent"])
        self.assertEqual(200, self.add(*agent, number=8002))
        self.assertEqual(200, self.add(*agent, host="10.9.9.9"))
        status, _, answer = self.call(
            "/upstream/add", *agent, "-d", "host=10.1.1.1", "-d", "port=8000"
        )
        self.assertEqual(403, status)
        self.assertIn("10.1.1.1", answer["message"])
        server = ("-d", f"host={LOOPBACK}", "-d", "port=8001")
        self.assertEqual(403, self.status("/upstream/update", *agent, *server, "-d", "weight=2"))
        toggle = ("/upstream/toggle", *agent, *server)
        self.assertEqual(403, self.status(*toggle, "-d", "action=disable"))
        self.assertEqual(200, self.status(*toggle, "-d", "action=drain"))
        self.assertEqual(403, self.status(*toggle, "-d", "action=enable"))
        self.assertEqual(200, self.status("/upstream/refresh", *agent, *server))
        self.assertEqual(
            200, self.status("/upstream/update", *good, *server, "-d", "weight=3")
        )
        self.assertEqual(200, self.status("/upstream/remove", *agent, *server))

        history = self.call("/upstream/history", *good)[2]["data"]
        self.assertEqual(
            [
                ("remove", f"agent@{LOOPBACK}"),
                ("update", f"ops@{LOOPBACK}"),
                ("drain", f"agent@{LOOPBACK}"),
                ("add", f"agent@{LOOPBACK}"),
                ("add", f"agent@{LOOPBACK}"),
                ("add", f"ops@{LOOPBACK}"),
            ],
            [(line["action"], line["by"]) for line in history],
        )
        self._check_audit(Path(audit).read_text())
        self._check_secrets(daemon, Path(audit).read_text() + json.dumps(history))

    def _check_audit(self, text: str) -> None:
        lines = [json.loads(line) for line in text.splitlines()]
        (update,) = [x for x in lines if (x["what"], x["code"]) == ("update", 200)]
        self.assertEqual(
            ("ops", "admin", LOOPBACK, "default", f"{LOOPBACK}:8001"),
            tuple(update[name] for name in ("who", "role", "from", "upstream", "server")),
        )
        self.assertEqual((1, 3), (update["before"]["weight"], update["after"]["weight"]))
        self.assertEqual({"weight": 3}, update["asked"])
        self.assertGreater(update["revision"], 0)
        refused = [x for x in lines if x["code"] == 403]
        self.assertEqual(
            {("reader", "add"), ("agent", "add"), ("agent", "update"), ("agent", "toggle")},
            {(x["who"], x["what"]) for x in refused},
        )
        self.assertFalse([x for x in refused if "after" in x])
        self.assertIn(("nobody", None), {(x["who"], x["role"]) for x in lines if x["code"] == 401})
        self.assertFalse([x for x in lines if x["what"] == "refresh"])

    def _check_secrets(self, daemon: Daemon, told: str) -> None:
        text = daemon.process.log() + told
        self.assertIn("Nobody was let in from 127.0.0.1", text)
        hashes = [hash_token(secret) for secret in SECRETS.values()]
        for secret in (PASSWORD, "wr0ng-secret", HASH, *SECRETS.values(), *hashes):
            self.assertNotIn(secret, text)
        self.assertNotIn(PASSWORD.split()[1], text)
