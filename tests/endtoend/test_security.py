"""
Who is let into the admin API, by curl: each kind of credential, and what is
written down of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from dynbalance.hashes import hash_password, hash_token
from dynbalance.net.tls import KeyPair
from tests.endtoend.certificates import TlsCase
from tests.endtoend.daemon import Daemon, endpoint
from tests.endtoend.harness import LOOPBACK, ROOT, ask, program, run
from tests.endtoend.servers import Backend
from tests.net.authority import Authority

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


class ClientTests(SecurityCase):
    """What calls the API for people."""

    def test_scripts(self) -> None:
        """The shell scripts show the token of their environment."""
        daemon = self.begin(CREDENTIALS)
        known = {"BASE_URL": daemon.url, "HOST": LOOPBACK, "PORT": "8001", "INTERVAL": "0.2"}
        token = {**known, "DYNBALANCE_TOKEN": SECRETS["agent"]}
        script = str(ROOT / "etc" / "manage_servers.sh")
        for environment, status in ((known, 1), (token, 0)):
            done = subprocess.run(
                ["sh", script, "add", LOOPBACK, "8000"],
                env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            self.assertEqual(status, done.returncode, done.stdout + done.stderr)
        beat = ["sh", str(ROOT / "etc" / "heartbeat_client.sh")]
        client = self.start("client", beat, self.directory("client"), token)
        client.until(lambda: "✓ Heartbeat successful" in client.log(), "beats")


    def test_rotation(self) -> None:
        """An audit log that was moved away is begun anew at USR1, and at HUP."""
        audit = Path(self.directory("audit")) / "audit.log"
        daemon = self.begin(f"audit_log = {json.dumps(str(audit))}")
        for number, signal_number in enumerate((signal.SIGUSR1, signal.SIGHUP)):
            self.assertEqual(200, self.add(number=8000 + number))
            audit.rename(f"{audit}.{number}")
            daemon.process.signal(signal_number)
            daemon.process.until(audit.exists, "opens it anew")
        self.assertEqual(200, self.add(number=8002))
        files = [audit.with_name("audit.log.0"), audit.with_name("audit.log.1"), audit]
        told = [json.loads(file.read_text())["server"] for file in files]
        self.assertEqual([f"{LOOPBACK}:{8000 + number}" for number in range(3)], told)


class SignedTests(SecurityCase):
    """Tokens that somebody else signed."""

    def test_secret_and_key_set(self) -> None:
        """By a secret, and after a reload by a file of public keys, and not by the secret."""
        keys = Path(self.directory("keys")) / "jwks.json"
        theirs, others = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        public = json.loads(ECAlgorithm.to_jwk(theirs.public_key()))
        keys.write_text(json.dumps({"keys": [{**public, "kid": "one"}]}))
        secret = f'jwt = {{ key = "{SIGNING}", audience = "lb" }}'
        files = f'jwt = {{ jwks_file = "{keys}", algorithms = ["ES256"], issuer = "id" }}'
        daemon = self.begin(secret)
        status = "/upstream/status"
        now = time.time()
        good = {"sub": "ann", "role": "admin", "exp": now + 60, "aud": "lb", "iss": "id"}

        def signed(key: Any = SIGNING, algorithm: str = "HS256", **claims: Any) -> tuple[str, str]:
            return bearer(jwt.encode({**good, **claims}, key, algorithm))

        self.assertEqual(200, self.add(*signed()))
        self.assertEqual(403, self.add(*signed(role="read"), number=8001))
        for wrong in (
            signed(exp=now - 60),
            signed(nbf=now + 60),
            signed(aud="x"),
            signed("another secret, also long enough."),
            signed(role="root"),
            signed(theirs, "ES256"),
            bearer(jwt.encode(good, "", "none")),
        ):
            self.assertEqual(401, self.status(status, *wrong))
        daemon.edit(secret, files)
        daemon.reload()
        self.assertEqual(200, self.status(status, *signed(theirs, "ES256")))
        for wrong in (signed(), signed(others, "ES256"), signed(theirs, "ES256", iss="x")):
            self.assertEqual(401, self.status(status, *wrong))
        keys.write_text("{}")
        daemon.reload("nothing has changed")
        self.assertIn("admin.jwt.jwks_file: ", daemon.process.log())
        self.assertEqual(200, self.status(status, *signed(theirs, "ES256")))
        (line,) = self.call("/upstream/history", *signed(theirs, "ES256"))[2]["data"]
        self.assertEqual(f"ann@{LOOPBACK}", line["by"])


class TlsTests(SecurityCase):
    """The admin API by TLS."""

    def tls(self, **more: str) -> str:
        return f"tls = {table(certificate=self.pair.certificate, key=self.pair.key, **more)}\n"

    def secure(self, *more: str, path: str = "/upstream/status") -> tuple[int, Any]:
        """curl's exit status and what came."""
        done = self.curl(self.daemon.admin, path, *more)
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def shown(self, pair: KeyPair) -> tuple[str, ...]:
        return "--cert", pair.certificate, "--key", pair.key

    def test_certificate_alone(self) -> None:
        """
        A client shows a certificate of the authority, by which it is known, or
        is not let in; a large order is refused as it is without TLS.
        """
        daemon = self.begin(self.tls(client_ca=self.authority.file), wait=False)
        daemon.process.until(lambda: "serves as" in daemon.process.log(), "serves")
        ours = self.authority.issue("10.7.7.7", "box.example", file="client", client=True)
        stranger = Authority(Path(self.directory("strangers")))
        theirs = stranger.issue("box.example", file="client", client=True)
        self.assertEqual((0, 200), self._code(self.shown(ours)))
        self.assertNotEqual(0, self.secure()[0])
        self.assertNotEqual(0, self.secure(*self.shown(theirs))[0])
        order = ("-d", "port=8001", *self.shown(ours))
        self.assertEqual(200, self.secure(*order, path="/upstream/add")[1]["code"])
        line = self.secure(*self.shown(ours), path="/upstream/history")[1]["data"][0]
        self.assertEqual(f"somebody@{LOOPBACK}", line["by"])
        large = self.curl(
            daemon.admin, "/upstream/add", *self.shown(ours), "--data-binary", "@-",
            stdin=b"x" * 2_000_000,
        )  # fmt: skip
        self.assertIn(b'"code":413', large.stdout)

        role = self.tls(client_ca=self.authority.file, client_role="agent")
        daemon.edit(self.tls(client_ca=self.authority.file), role)
        daemon.reload()
        for host, code in (("10.7.7.7", 200), ("box.example", 200), ("10.7.7.8", 403)):
            order = ("-d", f"host={host}", "-d", "port=8002", *self.shown(ours))
            self.assertEqual(code, self.secure(*order, path="/upstream/add")[1]["code"], host)

    def _code(self, options: tuple[str, ...]) -> tuple[int, int]:
        status, answer = self.secure(*options)
        return status, answer["code"] if answer else 0

    def test_credentials_by_tls(self) -> None:
        """Beside users and tokens a certificate is asked for, and is not enough."""
        self.begin(self.tls(client_ca=self.authority.file) + CREDENTIALS)
        ours = self.shown(self.authority.issue("box.example", file="client", client=True))
        self.assertEqual((0, 401), self._code(ours))
        self.assertEqual((0, 200), self._code((*ours, *bearer(SECRETS["reader"]))))
        self.assertNotEqual(0, self.secure(*bearer(SECRETS["reader"]))[0])

    def test_new_certificate(self) -> None:
        """
        TLS begins with a reload, and so does a certificate that was renewed, on
        the same port.
        """
        daemon = self.begin("# plain\n")
        self.assertEqual(200, self.status("/healthz"))
        daemon.edit("# plain\n", self.tls())
        daemon.reload()
        self.assertEqual(0, self.secure()[0])
        other = Authority(Path(self.directory("others")))
        renewed = other.issue("a.example", LOOPBACK, file="a")
        for mine, new in zip(
            (self.pair.certificate, self.pair.key), (renewed.certificate, renewed.key), strict=True
        ):
            os.replace(new, mine)
        daemon.reload()
        self.assertNotEqual(0, self.secure()[0])
        self.assertEqual(0, self.secure("--cacert", other.file)[0])


class AdmissionTests(SecurityCase):
    """What is refused whoever it is."""

    def test_rate_and_networks(self) -> None:
        """Above the rate comes 429 with Retry-After; outside of the networks 403."""
        daemon = self.begin('rate_limit = { rate = 0.01, burst = 3 }\nallow = ["127.0.0.0/8"]')
        found = [self.call("/healthz") for _ in range(5)]
        self.assertEqual([200, 200, 200, 429, 429], [status for status, _, _ in found])
        self.assertGreater(int(found[-1][1]["retry-after"]), 50)
        daemon.edit('allow = ["127.0.0.0/8"]', 'allow = ["10.0.0.0/8"]')
        daemon.edit("rate_limit = ", "#")
        daemon.reload()
        self.assertEqual(403, self.status("/healthz"))

    def test_browsers(self) -> None:
        """An API that asks for nothing is not for names of others, nor orders for their pages."""
        self.begin("")
        order = ("/upstream/reset", "-X", "POST")
        self.assertEqual(403, self.status("/upstream/status", "-H", "Host: evil.example"))
        self.assertEqual(403, self.status(*order, "-H", "Origin: http://evil.example"))
        self.assertEqual(403, self.status(*order, "-H", "Sec-Fetch-Site: cross-site"))
        own = f"Origin: http://{LOOPBACK}:{self.daemon.admin}"
        self.assertEqual(200, self.status(*order, "-H", own, "-H", "Sec-Fetch-Site: same-origin"))

    def test_reload(self) -> None:
        """Credentials that are not in the file any more are good for nothing, at once."""
        daemon = self.begin(CREDENTIALS)
        reader = bearer(SECRETS["reader"])
        self.assertEqual(200, self.status("/upstream/status", *reader))
        listening = subprocess.Popen(
            [program("curl"), "-sS", "-N", *reader, f"{daemon.url}/upstream/events"],
            stdout=subprocess.PIPE,
        )
        self.addCleanup(listening.wait)
        self.addCleanup(listening.kill)
        assert listening.stdout is not None
        self.addCleanup(listening.stdout.close)
        self.assertIn(b"event: hello\n", [listening.stdout.readline() for _ in range(4)])
        daemon.edit(hash_token(SECRETS["reader"]), hash_token("another"))
        daemon.reload()
        self.assertEqual(401, self.status("/upstream/status", *reader))
        self.assertEqual(200, self.status("/upstream/status", *bearer("another")))
        listening.stdout.read()
        self.assertEqual(0, listening.wait(20))
        daemon.edit(HASH, "s3cret")
        daemon.reload("nothing has changed")
        self.assertIn("admin.users[0].password_hash: is not a hash", daemon.process.log())
        self.assertNotIn("s3cret", daemon.process.log())
        self.assertEqual(200, self.status("/upstream/status", "-u", f"ops:{PASSWORD}"))


class MountedTests(SecurityCase):
    """The API on a traffic listener."""

    def test_same_rules(self) -> None:
        """It asks for the same, by one process and by several; no request for it passes."""
        backend = Backend(self)
        servers = f'[{{ address = "{backend.address}" }}]'
        for workers in (1, 2):
            daemon = self.begin(
                CREDENTIALS,
                store="embedded:" if workers > 1 else "memory:",
                name=f"of-{workers}",
                root={"workers": workers},
                http={"mount_admin": True},
                servers=servers,
            )
            port = daemon.http
            for target in ("/upstream/status", "/upstream/nothing", "/upstream/"):
                wanted = 401 if target.endswith("status") else 404
                self.assertEqual(wanted, self.status(target, port=port), target)
            absolute = ("--request-target", "http://127.0.0.1/upstream/status")
            self.assertEqual(401, self.status("/", *absolute, port=port))
            self.assertEqual(401, self.status("/upstream/status", *bearer("x"), port=port))
            boss = bearer(SECRETS["boss"])
            self.assertEqual(200, self.add(*boss, port=port))
            self.assertEqual(200, self.add("-u", f"ops:{PASSWORD}", number=8001, port=port))
            agent = bearer(SECRETS["agent"])
            self.assertEqual(403, self.add(*agent, host="10.1.1.1", port=port))
            # What a client claims to be is believed from nobody.
            claim = ("-H", "X-Forwarded-For: 10.1.1.1")
            self.assertEqual(403, self.add(*agent, *claim, host="10.1.1.1", port=port))
            self.assertEqual(b"backend", ask(port, "/other").body)
            for secret in SECRETS.values():
                self.assertNotIn(secret, daemon.process.log())
            daemon.process.stop()

    def test_behind_a_proxy(self) -> None:
        """An agent behind a trusted proxy has the address that the proxy says."""
        trusting = {"mount_admin": True, "trusted_proxies": ["127.0.0.0/8"]}
        port = self.begin(CREDENTIALS, http=trusting).http
        agent, claim = bearer(SECRETS["agent"]), ("-H", "X-Forwarded-For: 10.1.1.1")
        self.assertEqual(200, self.add(*agent, *claim, host="10.1.1.1", port=port))
        self.assertEqual(403, self.add(*agent, *claim, host=LOOPBACK, port=port))

    def test_demo(self) -> None:
        """The servers of C{--demo} are let in where credentials are asked for."""
        daemon = self.begin(CREDENTIALS, options=("--demo",))
        boss = bearer(SECRETS["boss"])
        daemon.process.until(
            lambda: len(self.call("/upstream/status", *boss)[2]["data"]) == 3, "has its servers"
        )
        history = self.call("/upstream/history", *boss)[2]["data"]
        self.assertEqual({f"demo@{LOOPBACK}"}, {line["by"] for line in history})


class RefusedTests(SecurityCase):
    """Starts that would let in strangers, or nobody."""

    def refusal(self, admin: str, **more: Any) -> str:
        daemon = self.begin(admin, wait=False, **more)
        self.assertEqual(1, daemon.process.wait())
        return daemon.process.log()

    def test_files(self) -> None:
        """What cannot be read is named by its option, all at once."""
        log = self.refusal(
            'jwt = { jwks_file = "/nowhere/keys", algorithms = ["RS256"] }\n'
            'tls = { certificate = "/nowhere/c", key = "/nowhere/k" }\n'
            'audit_log = "/nowhere/audit"\n'
        )
        for said in (
            "admin.jwt.jwks_file: /nowhere/keys: No such file",
            "admin.tls.certificate: /nowhere/c: No such file",
            "admin.tls.key: /nowhere/k: No such file",
            "admin.audit_log: /nowhere/audit: No such file",
        ):
            self.assertIn(said, log)

    def test_other_machines(self) -> None:
        """A port that other machines reach opens with credentials, and not without."""
        everywhere = "tcp:{}"
        for credentials in ("", CREDENTIALS):
            daemon = self.begin(credentials, wait=False, options=())
            daemon.process.kill()
            daemon.edit(endpoint(daemon.admin), everywhere.format(daemon.admin))
            daemon.start(wait=bool(credentials))
            if credentials:
                self.assertEqual(401, self.status("/upstream/status"))
            else:
                self.assertEqual(1, daemon.process.wait())
                self.assertIn("is reachable from other machines; set", daemon.process.log())
