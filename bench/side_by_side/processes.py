"""
The programs that are measured, and how they are started, pinned and read.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from attrs import define
from typing_extensions import Self

CHECKOUT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        return int(skt.getsockname()[1])


def scheduled(pid: int) -> tuple[float, float]:
    """
    What a process has had of its cores.

    @return: seconds for which it ran, and for which it could have run while others did.
    """
    # To the nanosecond, unlike what /proc/PID/stat says.
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    told = [each.read_text().split() for each in threads]
    return sum(int(ran) for ran, _, _ in told) / 1e9, sum(int(had) for _, had, _ in told) / 1e9


@define
class Running:
    """
    A program that is measured.

    @ivar name: in the table.
    @ivar http: its port for HTTP; 0 for none.
    @ivar stream: its port for TCP to the Redis; 0 for none.
    @ivar bulk: its port for TCP to the HTTP backend; 0 for none.
    @ivar environment: what the program's environment has beside ours.
    @ivar directory: where it runs: what Python imports first is there.
    """

    name: str
    command: list[str]
    core: int
    http: int = 0
    stream: int = 0
    bulk: int = 0
    environment: dict[str, str] | None = None
    directory: Path = CHECKOUT
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            ["taskset", "-c", str(self.core), *self.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            env={**os.environ, **(self.environment or {})},
        )
        for port in (self.http, self.stream, self.bulk):
            if port:
                self._wait_for(port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_for(self, port: int) -> None:
        assert self.process is not None
        for _ in range(1200):
            with socket.socket() as skt:
                if not skt.connect_ex(("127.0.0.1", port)):
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"{self.name} does not listen on {port}")

    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        assert self.process is not None
        return scheduled(self.process.pid)[0]

    def waited(self) -> float:
        """Seconds that it could have run while others had its core."""
        assert self.process is not None
        return scheduled(self.process.pid)[1]

    def memory(self) -> int:
        """Bytes of memory that are its own."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise SystemExit("no Private_Dirty in smaps_rollup")


