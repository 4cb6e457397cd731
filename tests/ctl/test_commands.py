"""dynbalancectl's commands, before a stand-in for the daemon."""

from __future__ import annotations

import json
import os
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.ctl.program import program
from dynbalance.hashes import hash_token, password_matches
from tests.ctl.standin import StandIn
from tests.temporary import Temporary

SERVER: dict[str, Any] = {
    "addr": "10.0.0.1:80",
    "host": "10.0.0.1",
    "port": 80,
    "connections": 3,
    "weight": 2,
    "max_conns": 100,
    "node_connections": 1,
    "state": "draining",
    "source": "store",
    "why": "draining",
    "time_since_heartbeat": 4.4,
}
FIGURES = {
    "total_servers": 2,
    "enabled_servers": 2,
    "active_servers": 1,
    "store": "ok",
    "stale_for": 0,
}


class CommandCase(Temporary, SynchronousTestCase):
    """A stand-in, and the program before it."""

    def setUp(self) -> None:
        self.daemon = StandIn()
        self.addCleanup(self.daemon.close)

    def answer(self, path: str, *answers: tuple[int, str, Any]) -> None:
        self.daemon.answers[f"/upstream/{path}"] = list(answers)

    def ctl(self, *words: str, status: int = 0, stdin: str = "", **environment: str) -> Result:
        result = CliRunner().invoke(
            program, ["--url", self.daemon.url, *words], input=stdin, env=environment
        )
        self.assertEqual(status, result.exit_code, result.output)
        return result

    def written(self, text: str, name: str = "file") -> str:
        path = os.path.join(self.mktemp(), name)
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as out:
            out.write(text)
        return path


class LookingTests(CommandCase):
    def test_status(self) -> None:
        """A table of the servers, with what an operator looks for."""
        self.answer("status", (200, "Success", [SERVER]))
        text = self.ctl("status").output
        for word in ("10.0.0.1:80", "draining", "100", "4 s ago"):
            self.assertIn(word, text)

    def test_no_servers(self) -> None:
        """An empty upstream is said to be empty."""
        self.answer("status", (200, "Success", []))
        self.assertEqual("no servers\n", self.ctl("status").output)

    def test_status_as_json(self) -> None:
        """--json prints the answer to the byte, before or behind the command."""
        self.answer("status", (200, "Success", [SERVER]))
        first, second = self.ctl("--json", "status").output, self.ctl("status", "--json").output
        self.assertEqual(first, second)
        self.assertEqual([SERVER], json.loads(first)["data"])

    def test_upstream(self) -> None:
        """--upstream says whose servers, before or behind the command."""
        self.answer("status", (200, "Success", []))
        self.ctl("-u", "api", "status")
        self.ctl("status", "-u", "api")
        self.ctl("-u", "web", "status", "-u", "api")
        self.assertEqual(["api"] * 3, [asked.fields["upstream"] for asked in self.daemon.asked])

    def test_watch(self) -> None:
        """A watch looks again and again, and survives a daemon that is away."""
        self.answer("status", (200, "Success", []), (503, "Store away", None), (200, "", [SERVER]))
        text = self.ctl("status", "-w", "--interval", "0.1", "--times", "3").output
        self.assertEqual(3, len(self.daemon.asked))
        self.assertLess(text.index("no servers"), text.index("Store away"))
        self.assertLess(text.index("Store away"), text.index("10.0.0.1:80"))

    def test_last_known(self) -> None:
        """With the store away the last known servers are shown, and status 1."""
        self.answer("status", (503, "Store away", [SERVER]))
        result = self.ctl("status", status=1)
        self.assertIn("10.0.0.1:80", result.stdout)
        self.assertIn("dynbalancectl: Store away", result.stderr)

    def test_health(self) -> None:
        """Health is one line, and an exit status for scripts."""
        self.answer("health", (200, "", FIGURES), (200, "", {**FIGURES, "active_servers": 0}))
        self.assertIn("healthy: 1 of 2 servers active", self.ctl("health").output)
        self.assertIn("unhealthy: 0 of 2", self.ctl("health", status=1).output)

    def test_explain(self) -> None:
        """What a request would get, with its uri, client and fields."""
        one = {"addr": "10.0.0.1:80", "state": "up", "eligible": True, "score": 0.5, "chance": 1.0}
        other = {"addr": "10.0.0.2:80", "state": "expired", "eligible": False, "chance": 0.0,
                 "why": "its heartbeats stopped"}
        self.answer("explain", (200, "10.0.0.1:80 would be chosen", {"servers": [one, other]}))
        fields = ("-H", "A: b", "-H", "C: d")
        text = self.ctl("explain", "--uri", "/x", "--client", "1.2.3.4", *fields).output
        self.assertIn("10.0.0.1:80 would be chosen\n", text)
        self.assertRegex(text, r"10\.0\.0\.1:80 +up +100% +0\.5")
        self.assertRegex(text, r"10\.0\.0\.2:80 +expired +0% +its heartbeats stopped")
        asked = self.daemon.asked[0]
        self.assertEqual(
            ("GET", "/x", "1.2.3.4", ["A: b", "C: d"]),
            (asked.method, *(asked.fields[name] for name in ("uri", "client", "header"))),
        )

    def test_history(self) -> None:
        """The newest line comes last, with what it changed."""
        line = {"id": "1-0", "time": 0, "by": "ops", "action": "update", "address": "a:1"}
        lines = [
            {**line, "revision": 2, "before": {"weight": 1, "port": 1}, "after": {"weight": 7}},
            {**line, "revision": 1},
        ]
        self.answer("history", (200, "Success", lines))
        text = self.ctl("history", "--limit", "5", "--address", "a:1").output
        self.assertIn("weight 1 → 7", text)
        self.assertLess(text.index("1970"), text.index("weight"))
        self.assertEqual("5", self.daemon.asked[0].fields["limit"])


class ChangeTests(CommandCase):
    def test_orders(self) -> None:
        """Each command is one order to the API, with the given fields only."""
        orders: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {
            ("add", "10.0.0.1:80"): ("add", {}),
            ("add", "10.0.0.1:80", "--weight", "3", "--backup", "--no-heartbeat"):
                ("add", {"weight": "3", "backup": "true", "heartbeat": "false"}),
            ("update", "10.0.0.1:80", "--max-conns", "0"): ("update", {"max_conns": "0"}),
            ("remove", "10.0.0.1:80"): ("remove", {}),
            ("remove", "10.0.0.1:80", "--drain", "5"): ("remove", {"drain": "5.0"}),
            ("enable", "10.0.0.1:80"): ("toggle", {"action": "enable"}),
            ("disable", "10.0.0.1:80"): ("toggle", {"action": "disable"}),
            ("drain", "10.0.0.1:80", "--deadline", "9", "--then", "remove"):
                ("toggle", {"action": "drain", "deadline": "9.0", "then": "remove"}),
            ("refresh", "10.0.0.1:80"): ("refresh", {}),
        }
        for words, (path, fields) in orders.items():
            self.answer(path, (200, "done", {"addr": "10.0.0.1:80"}))
            self.assertEqual("done\n", self.ctl(*words).output)
            asked = self.daemon.asked.pop()
            self.assertEqual(("POST", f"/upstream/{path}"), (asked.method, asked.path))
            whole = {"upstream": "default", "host": "10.0.0.1", "port": "80", **fields}
            self.assertEqual(whole, asked.fields, words)

    def test_this_machine(self) -> None:
        """:PORT leaves the host to the daemon."""
        self.answer("add", (200, "done", None))
        self.ctl("add", ":8080")
        self.assertEqual("", self.daemon.asked[0].fields["host"])

    def test_refused(self) -> None:
        """A refusal is one line and status 1; with --json the answer, too."""
        self.answer("add", (400, "Server already exists: 10.0.0.1:80", None))
        result = self.ctl("add", "10.0.0.1:80", status=1)
        self.assertEqual(
            "dynbalancectl: Server already exists: 10.0.0.1:80\n", result.stderr
        )
        self.assertEqual(400, json.loads(self.ctl("--json", "add", "a:1", status=1).stdout)["code"])

    def test_wrong_address(self) -> None:
        """What is no HOST:PORT is refused before anybody is asked."""
        for wrong in ("10.0.0.1", ":0", ":x", "a:70000", "::1:80", ""):
            self.assertIn("Invalid value", self.ctl("add", wrong, status=2).output)
        self.assertEqual([], self.daemon.asked)

    def test_nothing_to_update(self) -> None:
        """An update without a field is a mistake."""
        self.assertIn("nothing to change", self.ctl("update", "a:1", status=2).output)

    def test_wait_for_drain(self) -> None:
        """--wait ends when nothing runs to the server any more."""
        self.answer("toggle", (200, "Server is draining", {"addr": "10.0.0.1:80"}))
        self.answer("status", (200, "", [SERVER]), (200, "", [{**SERVER, "connections": 0}]))
        self.ctl("drain", "10.0.0.1:80", "--wait")
        self.assertEqual(3, len(self.daemon.asked))

    def test_wait_in_vain(self) -> None:
        """Connections that are left when the time is up: status 1."""
        self.answer("toggle", (200, "Server is draining", {"addr": "10.0.0.1:80"}))
        self.answer("status", (200, "", [SERVER]))
        result = self.ctl("drain", "10.0.0.1:80", "--wait", "--wait-timeout", "0.1", status=1)
        self.assertIn("3 connections are left", result.stderr)


class BackupTests(CommandCase):
    def exported(self, *servers: dict[str, Any]) -> dict[str, Any]:
        return {"format": "dynbalance-1", "upstreams": {"default": {"servers": list(servers)}}}

    def test_there_and_back(self) -> None:
        """What export wrote is what import sends, for all upstreams of it."""
        data = self.exported({"addr": "a:1"})
        differences = {"default": {"added": ["a:1"], "removed": [], "changed": []}}
        self.answer("export", (200, "Success", data))
        self.answer("import", (200, "Imported", {"upstreams": differences}))
        file = self.written("")
        self.ctl("export", "--all", "-o", file)
        self.assertEqual("1", self.daemon.asked[-1].fields["all"])
        text = self.ctl("import", file, "--dry-run").output
        self.assertEqual("Imported\n+ default a:1\n", text)
        self.assertEqual({"data": data, "dry_run": True}, self.daemon.asked[-1].fields)

    def test_one_of_many(self) -> None:
        """--upstream picks one of a document's upstreams."""
        self.answer("import", (200, "Imported", {"upstreams": {}}))
        self.ctl("import", "-u", "api", self.written("{}"))
        self.assertEqual("api", self.daemon.asked[-1].fields["upstream"])

    def test_no_json(self) -> None:
        """A file that is no JSON is named."""
        file = self.written("{")
        self.assertIn(f"{file}: not JSON", self.ctl("import", file, status=2).output)

    def test_init(self) -> None:
        """The seed's list, as TOML or as JSON, fills an empty upstream."""
        self.answer("export", (200, "Success", self.exported()))
        self.answer("import", (200, "Imported", {"upstreams": {}}))
        servers = [{"host": "192.168.1.10", "port": 8080, "weight": 1, "max_conns": 1000}]
        toml = '[[servers]]\nhost = "192.168.1.10"\nport = 8080\nweight = 1\nmax_conns = 1000\n'
        for text in (toml, json.dumps(servers), json.dumps({"servers": servers})):
            self.ctl("init", self.written(text))
            document = {"upstreams": {"default": {"servers": servers}}}
            self.assertEqual(document, self.daemon.asked[-1].fields["data"])

    def test_init_of_what_is_there(self) -> None:
        """Servers that are there are not lost without --force."""
        self.answer("export", (200, "Success", self.exported({})))
        self.answer("import", (200, "Imported", {"upstreams": {}}))
        file = self.written("[]")
        self.assertIn("has 1 servers already", self.ctl("init", file, status=1).stderr)
        self.ctl("init", file, "--force")

    def test_init_of_nonsense(self) -> None:
        """What is no list of servers is refused."""
        for text in ("x = ", "{", "3 = 4", '{"servers": [1]}'):
            self.ctl("init", self.written(text), status=2)
        self.ctl("init", "/nonexistent", status=2)
        self.assertEqual([], self.daemon.asked)

    def test_rollback(self) -> None:
        """A rollback names what it changes."""
        data = {"added": [], "removed": ["a:1"], "changed": ["b:1"], "revision": 9}
        self.answer("rollback", (200, "Rolled back to revision 3", data))
        text = self.ctl("rollback", "3", "--dry-run").output
        self.assertEqual("Rolled back to revision 3\n- default a:1\n~ default b:1\n", text)
        self.assertEqual("1", self.daemon.asked[0].fields["dry_run"])


class AccessTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.answer("status", (200, "Success", []))

    def test_credentials(self) -> None:
        """By option or by environment, as a token or as a name and password."""
        self.ctl("--token", "secret", "status")
        self.ctl("status", DYNBALANCE_TOKEN="secret")
        self.ctl("--user", "ops:pass", "status")
        said = [asked.authorization for asked in self.daemon.asked]
        self.assertEqual(["Bearer secret", "Bearer secret", "Basic b3BzOnBhc3M="], said)

    def test_both(self) -> None:
        """Two ways to say who one is are one too many."""
        self.ctl("--token", "a", "--user", "b:c", "status", status=2)

    def test_away(self) -> None:
        """Nobody there: status 3 and one line."""
        self.daemon.close()
        result = self.ctl("status", status=3)
        self.assertEqual(f"dynbalancectl: {self.daemon.url}: Connection refused\n", result.stderr)

    def test_stranger(self) -> None:
        """Somebody else's web server: status 3, and no traceback."""
        for self.daemon.raw in (b"<html>", b"[]", b'{"message":1', b"{}", b"3"):
            self.assertIn("not an answer", self.ctl("status", status=3).stderr)

    def test_wrong_url(self) -> None:
        """What is no URL is wrong usage; so are credentials in it."""
        for url in ("ftp://x", "http://", "http://a:b@c:1"):
            self.ctl("--url", url, "status", status=2)

    def test_url_of_the_environment(self) -> None:
        """$DYNBALANCE_URL stands for --url; a scheme may be left out."""
        url = self.daemon.url.removeprefix("http://")
        result = CliRunner().invoke(program, ["status"], env={"DYNBALANCE_URL": url})
        self.assertEqual(0, result.exit_code, result.output)


class LocalTests(CommandCase):
    def test_hash_password(self) -> None:
        """The hash fits the line that was read."""
        kept = self.ctl("hash-password", stdin="geheim\n").output.strip()
        self.assertTrue(password_matches("geheim", kept))
        self.ctl("hash-password", stdin="\n", status=2)

    def test_token(self) -> None:
        """A token and its hash; each time another."""
        first, second = (self.ctl("token").output.split() for _ in range(2))
        self.assertEqual(hash_token(first[0]), first[1])
        self.assertNotEqual(first, second)

    def test_check_config(self) -> None:
        """Each mistake of a file is a line, as the daemon writes it."""
        good = self.written('node = "x"\n')
        self.assertIn("is good", self.ctl("check-config", good).output)
        bad = self.written("workers = -1\nnod = 1\n")
        result = self.ctl("check-config", bad, status=1)
        self.assertEqual(2, result.stderr.count("dynbalancectl: "), result.stderr)
        self.ctl("check-config", "/nonexistent", status=1)

    def test_completion(self) -> None:
        """Each shell has its script."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_DYNBALANCECTL_COMPLETE", self.ctl("completion", shell).output)
