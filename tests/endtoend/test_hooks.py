"""
Balancer hooks in the daemon, the examples among them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from typing import Any

from tests.endtoend.certificates import listener_tls, table
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import (
    LOOPBACK,
    ROOT,
    EndToEndCase,
    Program,
    ask,
    free_port,
    wait_until,
)
from tests.endtoend.servers import Backend, Redis
from tests.endtoend.test_stream_tls import StreamCase
from tests.net.authority import client_context


class HookCase(EndToEndCase):
    """Daemons that find hooks in a directory of the test's, beside the examples."""

    def hooked(self, code: str, hook: str = "hook:choose", **options: Any) -> Daemon:
        """@param code: of the module C{hook}."""
        modules = os.path.join(self.directory("hooks"), "examples")
        shutil.copytree(ROOT / "docs" / "examples", modules)
        with open(os.path.join(modules, "hook.py"), "w") as out:
            out.write(code)
        upstream = {"balancer": hook, "retry_budget": 0.0, **options.pop("upstream", {})}
        return Daemon(self, upstream=upstream, modules=modules, **options)


class ExampleTests(HookCase):
    """The four of C{docs/examples}."""

    def test_sticky_by_header(self) -> None:
        """A user stays with a server, and not all users with one."""
        daemon = self.hooked("", "sticky_by_header:choose")
        for name in ("one", "two"):
            daemon.add(Backend(self, name).port)
        servers = {
            user: {ask(daemon.http, headers={"X-User": user}).body for _ in range(3)}
            for user in map(str, range(12))
        }
        self.assertEqual({1}, {len(names) for names in servers.values()})
        self.assertEqual({b"one", b"two"}, set().union(*servers.values()))

    def test_canary(self) -> None:
        """A tester gets to the new version, which is no server; if it is gone, to the old one."""
        new, old = Backend(self, "new"), Backend(self, "old")
        code = f"from canary import Canary\nchoose = Canary('{new.address}', 0.0, lambda: 0.5)\n"
        daemon = self.hooked(code)
        daemon.add(old.port)
        self.assertEqual(b"old", ask(daemon.http).body)
        self.assertEqual(b"new", ask(daemon.http, headers={"X-Canary": "1"}).body)
        self.assertEqual([old.address], list(daemon.status()))
        new.process.kill()
        self.assertEqual(b"old", ask(daemon.http, headers={"X-Canary": "1"}).body)

    def test_redis_lookup(self) -> None:
        """Redis says where a tenant is; unknown ones are 404; without Redis the policy chooses."""
        redis = Redis(self)
        code = (
            "from functools import cache\nimport redis_lookup\nimport txredisapi\n"
            "redis_lookup.connection = cache("
            f"lambda: txredisapi.lazyConnection('{LOOPBACK}', {redis.port}))\n"
            "choose = redis_lookup.choose\n"
        )
        daemon = self.hooked(code)
        one, two = Backend(self, "one"), Backend(self, "two")
        daemon.add(one.port)
        redis("HSET", "tenants", "acme", two.address)
        acme, nobody = {"X-Tenant": "acme"}, {"X-Tenant": "nobody"}
        # Before the first connection to Redis stands, the policy may choose.
        wait_until(lambda: ask(daemon.http, headers=acme).body == b"two", "an answer of Redis")
        self.assertEqual(404, ask(daemon.http, headers=nobody).status)
        redis.process.pause()
        self.assertEqual(b"one", ask(daemon.http, headers=acme).body)

    def test_failover(self) -> None:
        """After a site that refuses the next is asked, and after 404 the archive."""
        archive, site = Backend(self, "archive"), Backend(self, "site")
        code = (
            "import failover\n"
            f"failover.SITES = ['{LOOPBACK}:{free_port()}', '{site.address}']\n"
            f"failover.ARCHIVE = '{archive.address}'\nchoose = failover.choose\n"
        )
        conditions = ["error", "timeout", "http_503", "http_404"]
        daemon = self.hooked(code, upstream={"next_upstream": conditions})
        self.assertEqual(b"site", ask(daemon.http).body)
        self.assertEqual("archive", ask(daemon.http, "/status/404").headers["x-server"])
        self.assertIn("ended with 404", daemon.process.log())
        site.process.pause()
        site.process.kill()
        self.assertEqual(b"archive", ask(daemon.http).body)


_WAITS = """\
from twisted.internet.defer import CancelledError, Deferred

async def choose(balancer):
    if balancer.subsystem == "stream":
        balancer.exit(403)
    if balancer.request.uri == "/slow":
        balancer.log.info("it waits")
        try:
            await Deferred()
        except CancelledError:
            balancer.log.info("the wait was cancelled")
            raise
    if balancer.request.uri == "/forbidden":
        balancer.exit(403)
"""


class OutcomeTests(HookCase):
    """What else a hook may do."""

    def test_waits(self) -> None:
        """One that waits holds up its own request only, until the client leaves."""
        daemon, backend = self.hooked(_WAITS), Backend(self)
        daemon.add(backend.port)
        slow = socket.create_connection((LOOPBACK, daemon.http))
        self.addCleanup(slow.close)
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(b"backend", ask(daemon.http).body)
        self.assertEqual(403, ask(daemon.http, "/forbidden").status)
        self.assertNotIn("cancelled", daemon.process.log())
        slow.close()
        daemon.process.until(lambda: "was cancelled" in daemon.process.log(), "cancels the wait")

    def test_too_long(self) -> None:
        """One that waits longer than it may is cancelled, and its client hears so."""
        daemon = self.hooked(_WAITS, upstream={"balancer_timeout": 0.5})
        self.assertEqual(504, ask(daemon.http, "/slow").status)
        daemon.process.until(lambda: "was cancelled" in daemon.process.log(), "cancels the wait")
        self.assertIn("did not decide within 0.5 s", daemon.process.log())

    def test_stream_exit(self) -> None:
        """In streams C{exit} closes the connection, and the log says so."""
        daemon, backend = self.hooked(_WAITS), Backend(self)
        daemon.add(backend.port)
        with socket.create_connection((LOOPBACK, daemon.stream), 10) as client:
            self.assertEqual(b"", client.recv(1))
        self.assertIn("the balancer hook said 403", daemon.process.log())

    def test_end_while_waiting(self) -> None:
        """The daemon ends in its time while a hook still waits."""
        daemon = self.hooked(_WAITS, root={"shutdown_timeout": 0.5})
        client = threading.Thread(target=self._ask_in_vain, args=(daemon.http,))
        client.start()
        self.addCleanup(client.join, 30)
        daemon.process.until(lambda: "it waits" in daemon.process.log(), "asks the hook")
        self.assertEqual(0, daemon.process.stop())
        self.assertIn("the wait was cancelled", daemon.process.log())

    def _ask_in_vain(self, port: int) -> None:
        with contextlib.suppress(OSError):
            ask(port, "/slow")

    def test_unknown(self) -> None:
        """A hook that cannot be found ends the start with a line that says so."""
        daemon = self.hooked("", "hook:nothing", wait=False)
        self.assertEqual(1, daemon.process.wait())
        self.assertIn(
            "dynbalance: upstreams.default.balancer: module 'hook' has no 'nothing'",
            daemon.process.log(),
        )


class LeavingTests(StreamCase, HookCase):
    def test_streams(self) -> None:
        """A hook that waits is cancelled when a client leaves, by TCP, and by TLS."""
        log, port = os.path.join(str(self.files), "stream.log"), free_port()
        daemon = self.daemon = self.hooked(
            "from twisted.internet.defer import Deferred\n"
            "async def choose(balancer):\n    await Deferred()\n",
            stream={"access_log": log},
            upstream={"balancer_timeout": 60.0},
            more=table("[stream]", listen=f"tcp:{port}:interface={LOOPBACK}", access_log=log)
            + listener_tls("stream", self.pair),
        )
        self.log = log
        self.connect().close()
        context = client_context(self.authority.file)
        with socket.create_connection((LOOPBACK, port), 10) as client:
            secure = context.wrap_socket(client, server_hostname="a.example")
            secure.sendall(b"hello")
            secure.close()
        self.assertEqual(
            [(499, "the client left")] * 2,
            [(entry["status"], entry["reason"]) for entry in self.logged(2)],
        )
        self.assertEqual(0, daemon.process.stop())


class RaisingTests(HookCase):
    """Hooks that fail, whose tracebacks are wanted."""

    def assert_no_traceback(self, started: Program) -> None:
        """There is one."""

    def test_raises(self) -> None:
        """500, or a closed connection; the traceback is logged, and nothing was sent."""
        backend = Backend(self)
        daemon = self.hooked("def choose(balancer):\n    raise KeyError('my mistake')\n")
        daemon.add(backend.port)
        before = backend.told("/accepted")
        self.assertEqual(500, ask(daemon.http).status)
        with socket.create_connection((LOOPBACK, daemon.stream), 10) as client:
            self.assertEqual(b"", client.recv(1))
        # The question itself comes by a connection, too.
        self.assertEqual(before + 1, backend.told("/accepted"))
        log = daemon.process.log()
        self.assertEqual(2, log.count("failed to run the balancer hook of default"))
        self.assertEqual(2, log.count("Traceback"))
        self.assertIn("KeyError: 'my mistake'", log)
