"""
What etc/container has for those who run in containers, without a container.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, ROOT, EndToEndCase, Program, free_port

CONTAINER = ROOT / "etc" / "container"
ENTRY = CONTAINER / "backend-entrypoint.sh"
PIN = re.compile(r"^([a-z0-9.-]+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
BACKEND = (
    "import http.server, signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    "print('backend listens', flush=True)\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
    "http.server.SimpleHTTPRequestHandler).serve_forever()\n"
)


class EntryPointTests(EndToEndCase):
    """C{backend-entrypoint.sh}."""

    def setUp(self) -> None:
        self.daemon = Daemon(self)
        self.port = free_port()
        self.server = f"{LOOPBACK}:{self.port}"
        tools = self.directory("tools")
        ctl = os.path.join(tools, "dynbalancectl")
        with open(ctl, "w") as out:
            out.write(f'#!/bin/sh\nexec "{sys.executable}" -m dynbalance.ctl "$@"\n')
        os.chmod(ctl, stat.S_IRWXU)
        self.entry: Program = self.start(
            "entry",
            [str(ENTRY), sys.executable, "-c", BACKEND, str(self.port)],
            tools,
            {
                "PATH": f"{tools}:{os.environ['PATH']}",
                "PORT": str(self.port),
                "DYNBALANCE_URL": self.daemon.url,
                "AGENT_OPTIONS": "--interval 0.2 --weight 4",
            },
        )
        self.entry.until(lambda: self.server in self.daemon.status(), "registers")

    def test_life(self) -> None:
        """The server is registered; at the end it drains, and then the backend ends."""
        self.assertEqual(4, self.daemon.status()[self.server]["weight"])
        self.entry.signal(signal.SIGTERM)
        self.assertEqual(7, self.entry.wait())
        self.assertEqual({}, self.daemon.status())
        self.assertIn("drained and removed", self.entry.log())


class PinTests(EndToEndCase):
    """C{requirements.txt}."""

    def test_hashes(self) -> None:
        """Each package has its version and at least one hash, and all that we need are there."""
        text = (CONTAINER / "requirements.txt").read_text()
        pins = PIN.findall(text)
        lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        self.assertEqual(len(lines), len(pins))
        named = {name for name, _ in pins}
        wanted = {"twisted", "txredisapi", "attrs", "service-identity", "httptools", "h2"}
        self.assertEqual(set(), wanted - named)
