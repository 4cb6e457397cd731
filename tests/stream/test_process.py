import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

MANY = 200 << 20
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for C{condition}."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.02)


def blocks() -> Iterator[bytes]:
    """C{MANY} bytes, no block like the other."""
    block = os.urandom(1 << 20)
    for number in range(MANY >> 20):
        yield number.to_bytes(4, "big") + block[4:]


class Program:
    """A process of ours, ended by its number."""

    def __init__(self, test: TestCase, *command: str, **options: Any) -> None:
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, **options)
        self.pid = self.process.pid
        test.addCleanup(self.end)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def resident(self) -> int:
        """The most memory it has ever held, bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class ProcessTests(TestCase):
    """
    A listener in a process of its own, with real programs around it.
    """

    def proxy(self, port: int) -> int:
        """Start one for the server at C{port}."""
        self.program = Program(
            self,
            sys.executable,
            "-m",
            "tests.stream.program",
            str(port),
            stdout=subprocess.PIPE,
        )
        assert self.program.process.stdout is not None
        return int(self.program.process.stdout.readline())

    def server(self, serve: Callable[[socket.socket], None]) -> int:
        """A server in a thread; C{serve} gets each connection, and closes it."""
        listening = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                try:
                    skt = listening.accept()[0]
                except OSError:
                    return
                with skt:
                    skt.settimeout(20)
                    serve(skt)

        thread = threading.Thread(target=accept)
        thread.start()
        self.addCleanup(thread.join, 20)
        self.addCleanup(listening.close)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)
        port: int = listening.getsockname()[1]
        return port

    def connect(self, port: int) -> socket.socket:
        skt = socket.create_connection(("127.0.0.1", port), 20)
        self.addCleanup(skt.close)
        return skt

    def hash_of(self, skt: socket.socket) -> str:
        """Read to the end."""
        heard = hashlib.blake2b()
        buffer = bytearray(1 << 18)
        view = memoryview(buffer)
        while size := skt.recv_into(buffer):
            heard.update(view[:size])
        return heard.hexdigest()

    def test_much_down(self) -> None:
        """200 MB from a server arrive as they were sent, in flat memory."""
        sent = hashlib.blake2b()

        def serve(skt: socket.socket) -> None:
            for block in blocks():
                sent.update(block)
                skt.sendall(block)

        port = self.proxy(self.server(serve))
        before = self.program.resident()
        heard = self.hash_of(self.connect(port))
        self.assertEqual(heard, sent.hexdigest())
        self.assertLess(self.program.resident() - before, 4 << 20)

    def test_much_up(self) -> None:
        """200 MB from a client arrive as they were sent, in flat memory."""
        heard: list[str] = []

        def serve(skt: socket.socket) -> None:
            heard.append(self.hash_of(skt))
            skt.sendall(b"thanks")

        port = self.proxy(self.server(serve))
        before = self.program.resident()
        sent = hashlib.blake2b()
        skt = self.connect(port)
        for block in blocks():
            sent.update(block)
            skt.sendall(block)
        skt.shutdown(socket.SHUT_WR)
        self.assertEqual(skt.recv(100), b"thanks")
        self.assertEqual(heard, [sent.hexdigest()])
        self.assertLess(self.program.resident() - before, 4 << 20)

    def test_stalled_reader(self) -> None:
        """A server that does not read stops the client within bounds, in flat memory."""
        release = threading.Event()
        self.addCleanup(release.set)
        port = self.proxy(self.server(lambda skt: release.wait(20) and None))
        before = self.program.resident()
        skt = self.connect(port)
        skt.settimeout(0.3)
        sent = 0
        block = bytes(1 << 18)
        with self.assertRaises(TimeoutError):
            while sent < MANY:
                sent += skt.send(block)
        release.set()
        # The kernel keeps some tens of MiB in the four buffers on the way.
        self.assertLess(sent, MANY // 2)
        self.assertLess(self.program.resident() - before, 4 << 20)

    def test_nothing_is_left(self) -> None:
        """Many short connections leave no descriptor behind."""

        def serve(skt: socket.socket) -> None:
            skt.sendall(skt.recv(100))

        port = self.proxy(self.server(serve))

        def ask(number: int) -> None:
            with socket.create_connection(("127.0.0.1", port), 20) as skt:
                skt.sendall(b"%d" % number)
                self.assertEqual(skt.recv(100), b"%d" % number)

        # The first one shows that everything has begun.
        ask(0)
        before = self.program.descriptors()
        for number in range(500):
            ask(number)
        until(lambda: self.program.descriptors() <= before)

    def test_redis(self) -> None:
        """redis-cli talks to a Redis through it, in small words and in large ones."""
        with socket.socket() as skt:
            skt.bind(("127.0.0.1", 0))
            redis = str(skt.getsockname()[1])
        server = shutil.which("redis-server")
        client = shutil.which("redis-cli")
        assert server is not None, "redis-server is not installed"
        assert client is not None, "redis-cli is not installed"
        options = ["--port", redis, "--bind", "127.0.0.1", "--save", ""]
        Program(self, server, *options, stdout=subprocess.DEVNULL)
        port = str(self.proxy(int(redis)))

        def ask(*words: str, given: str | None = None) -> str:
            return subprocess.run(
                [client, "-p", port, *words],
                capture_output=True,
                text=True,
                input=given,
                timeout=20,
                check=False,
            ).stdout.strip()

        until(lambda: ask("PING") == "PONG")
        self.assertEqual(ask("-x", "SET", "large", given="x" * 5_000_000), "OK")
        self.assertEqual(ask("STRLEN", "large"), "5000000")
        self.assertEqual(ask("GET", "large"), "x" * 5_000_000)
        self.assertEqual(ask("-r", "100", "INCR", "n").split()[-1], "100")
