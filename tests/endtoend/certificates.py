"""
Certificates for the daemon and what stands around it, and curl that believes in
them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from dynbalance.net.tls import KeyPair
from tests.endtoend.harness import LOOPBACK, EndToEndCase, program
from tests.net.authority import Authority


def table(header: str, **values: str | bool | list[str]) -> str:
    """TOML of a table."""
    return "\n".join([f"[{header}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items()), ""])


def listener_tls(kind: str, pair: KeyPair, **more: str | list[str]) -> str:
    return table(f"{kind}.tls", certificate=pair.certificate, key=pair.key, **more)


class TlsCase(EndToEndCase):
    """
    @ivar authority: whom everybody trusts.
    @ivar pair: for C{a.example} and 127.0.0.1.
    """

    def setUp(self) -> None:
        self.files = Path(self.directory("certificates"))
        self.authority = Authority(self.files)
        self.pair = self.authority.issue("a.example", LOOPBACK, file="a")

    def curl(
        self, port: int, target: str, *options: str, stdin: bytes = b"", name: str = "a.example"
    ) -> subprocess.CompletedProcess[bytes]:
        command = [program("curl"), "-sS", "--max-time", "20", "--cacert", self.authority.file]
        command += ["--resolve", f"{name}:{port}:{LOOPBACK}", *options]
        return subprocess.run(
            [*command, f"https://{name}:{port}{target}"],
            input=stdin, capture_output=True, timeout=30, check=False,
        )  # fmt: skip

    def got(self, port: int, target: str, *options: str, **more: Any) -> bytes:
        """What curl gets."""
        done = self.curl(port, target, *options, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout
