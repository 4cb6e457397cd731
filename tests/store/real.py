"""
A real Redis server for a test, and a blocking client to look behind the store.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

import hiredis

DEADLINE = 10.0


class Client:
    """Commands over a unix socket, one at a time, each waited for."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._reader = hiredis.Reader()

    def __call__(self, *words: str | bytes | float) -> Any:
        self.send(*words)
        return self.receive()

    def send(self, *words: str | bytes | float) -> None:
        raw = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        parts = [b"*%d\r\n" % len(raw), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw)]
        self._socket.sendall(b"".join(parts))

    def receive(self) -> Any:
        while True:
            reply = self._reader.gets()
            if reply is not False:
                break
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the server")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def pairs(self, *words: str | float) -> dict[str, str]:
        """A flat reply as a dict of text."""
        reply = [part.decode() for part in self(*words)]
        return dict(zip(reply[::2], reply[1::2], strict=True))

    def close(self) -> None:
        self._socket.close()


class Server:
    """
    A redis-server of our own with a unix socket in a directory of its own.

    @ivar path: of the socket.
    """

    def __init__(self, *options: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program, "these tests need redis-server or valkey-server"
        self.directory = tempfile.mkdtemp(prefix="dynbalance-test-")
        self.path = os.path.join(self.directory, "r.sock")
        self._command = [program, "--port", "0", "--unixsocket", self.path]
        self._command += ["--dir", self.directory, "--save", "", *options]
        self.start()

    def start(self) -> None:
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE
        while True:
            try:
                client = Client(self.path)
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < end, self.log()
                time.sleep(0.01)
            else:
                client.close()
                return

    def log(self) -> str:
        with open(os.path.join(self.directory, "log")) as log:
            return log.read()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self.directory)


def age(client: Client, seconds: float, prefix: str = "upstream") -> None:
    """Let C{seconds} pass for all that is stored, by moving its times back."""
    heartbeats, sync = f"{prefix}:heartbeat", f"{prefix}:sync"
    for address, beat in client.pairs("HGETALL", heartbeats).items():
        client("HSET", heartbeats, address, f"{float(beat) - seconds:.3f}")
    metas = f"{prefix}:servers:meta"
    for address, meta in client.pairs("HGETALL", metas).items():
        fields = json.loads(meta)
        times = {"disabled_at", "drain_deadline"} & set(fields)
        if fields.get("intent") == "drain":
            fields |= {name: fields[name] - seconds for name in times}
            client("HSET", metas, address, json.dumps(fields))
    contact = client("HGET", sync, "contact")
    if contact:
        client("HSET", sync, "contact", f"{float(contact) - seconds:.3f}")
    for address, claim in client.pairs("HGETALL", f"{prefix}:probers").items():
        till, _, node = claim.partition(" ")
        client("HSET", f"{prefix}:probers", address, f"{float(till) - seconds:.3f} {node}")
    for node in client("ZRANGE", f"{prefix}:nodes", 0, -1):
        client("ZINCRBY", f"{prefix}:nodes", -seconds, node)
