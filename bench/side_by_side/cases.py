"""
The cases: what is sent through each balancer, and what one of it is.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from bench.side_by_side.processes import Running

BROWSER = [
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Cache-Control", "max-age=0"),
    ("Cookie", "session=" + "0123456789abcdef" * 64),
    ("Dnt", "1"),
    ("Referer", "http://shop.example/things/12345?from=search"),
    ("Sec-Ch-Ua", '"Chromium";v="140", "Not=A?Brand";v="24"'),
    ("Sec-Ch-Ua-Mobile", "?0"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Upgrade-Insecure-Requests", "1"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140 Safari/537.36"),
]
"""With Host, the fifteen fields of a browser's request, and a cookie of 1 KiB."""

LARGE = 100 << 20


@frozen
class Case:
    """
    @ivar name: in the table.
    @ivar unit: what C{drive} counts: microseconds for each, or seconds a GB.
    @ivar drive: balancer, core of the load, seconds -> how many went through.
    """

    name: str
    unit: str
    drive: Callable[[Running, int, float], float]


def _wrk(options: list[str], path: str, connections: int = 50) -> Callable[..., float]:
    def drive(balancer: Running, core: int, seconds: float) -> float:
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{seconds:.0f}s", *options, f"http://127.0.0.1:{balancer.http}{path}"]
        report = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=seconds + 30
        ).stdout
        bad = re.search(r"Non-2xx.*|Socket errors.*", report)
        if bad and "read 0" not in bad[0]:
            raise SystemExit(f"{balancer.name} {path}: {bad[0]}")
        found = re.search(r"(\d+) requests in", report)
        assert found is not None
        return float(found[1])

    return drive


def _redis(keep: bool) -> Callable[..., float]:
    def drive(balancer: Running, core: int, seconds: float) -> float:
        count = int(seconds * (50_000 if keep else 5_000))
        command = ["taskset", "-c", str(core), "redis-benchmark", "-p", str(balancer.stream)]
        command += ["-t", "ping_mbulk", "-c", "50", "-q", "-n", str(count), "-k", str(int(keep))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=seconds * 20 + 60)
        return count

    return drive


def _download(port: str) -> Callable[..., float]:
    def drive(balancer: Running, core: int, seconds: float) -> float:
        url = f"http://127.0.0.1:{getattr(balancer, port)}/large"
        times = max(2, int(seconds * 3))
        command = ["taskset", "-c", str(core), "curl", "-s", "-f", "-o", "/dev/null"]
        command += ["--url", url, "-o", "/dev/null"] * (times - 1) + ["--url", url]
        subprocess.run(command, check=True, timeout=seconds * 20 + 60)
        return times * LARGE / 1e9

    return drive


def cases(scratch: Path) -> list[Case]:
    """@param scratch: for the scripts that wrk reads."""
    post = scratch / "post.lua"
    post.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 16384)\n')
    closing = ["-H", "Connection: close"]
    browser = [word for name, value in BROWSER for word in ("-H", f"{name}: {value}")]
    each = "us a request"
    return [
        Case("http, kept alive", each, _wrk([], "/")),
        Case("http, browser's fields", each, _wrk(browser, "/rich")),
        Case("http, new connection", each, _wrk(closing, "/")),
        Case("http, POST 16 KiB", each, _wrk(["-s", str(post)], "/post")),
        Case("http, chunked response", each, _wrk([], "/chunked.html")),
        Case("http, download", "s a GB", _download("http")),
        Case("stream, ping-pong", "us a message", _redis(keep=True)),
        Case("stream, new connection", "us a connection", _redis(keep=False)),
        Case("stream, download", "s a GB", _download("bulk")),
    ]
