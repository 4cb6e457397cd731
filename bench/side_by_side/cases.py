"""
The cases: what is sent through each balancer, and what one of it is.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
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


IDLE = 5_000
"""Clients that are connected and ask for nothing."""

MANY = 10_000
"""Servers, where their number is what is looked at."""

_PACED = """\
function delay() return math.random(5, 15) end
function done(summary, latency) io.write("mean ", latency.mean, "\\n") end
"""
"""A hundred requests a second on each connection, and how long they took."""


@frozen
class Case:
    """
    @ivar name: in the table.
    @ivar unit: of what C{take} gives.
    @ivar take: balancer, core of the load, seconds -> the figure.
    @ivar port: which of the balancers' is used.
    @ivar servers: behind the balancers: the few of most cases (0), or so many
        to which no connection is kept.
    @ivar fresh: whether it takes balancers that have done nothing yet, once each.
    @ivar quick: whether L{bench.side_by_side.kept} looks at it.
    """

    name: str
    unit: str
    take: Callable[[Running, int, float], float]
    port: str = "http"
    servers: int = 0
    fresh: bool = False
    quick: bool = True


def _cost(drive: Callable[..., float], scale: float = 1e6) -> Callable[..., float]:
    """
    @param drive: balancer, core of the load, seconds -> how many went through.
    @return: takes the CPU time for each of them, in seconds divided by C{scale}.
    """

    def take(balancer: Running, core: int, seconds: float) -> float:
        before = balancer.cpu()
        through = drive(balancer, core, seconds)
        return (balancer.cpu() - before) / through * scale

    return take


def _wrk(
    options: list[str], path: str, connections: int = 50, what: str = r"(\d+) requests in"
) -> Callable[..., float]:
    """@param what: in the report is the figure."""

    def drive(balancer: Running, core: int, seconds: float) -> float:
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{max(1.0, seconds):.0f}s", *options]
        report = subprocess.run(
            [*command, f"http://127.0.0.1:{balancer.http}{path}"],
            capture_output=True, text=True, check=True, timeout=seconds + 30,
        ).stdout
        bad = re.search(r"Non-2xx.*|Socket errors.*", report)
        if bad and "read 0" not in bad[0]:
            raise SystemExit(f"{balancer.name} {path}: {bad[0]}")
        found = re.search(what, report)
        assert found is not None, report
        return float(found[1])

    return drive


def _redis(keep: bool) -> Callable[..., float]:
    def drive(balancer: Running, core: int, seconds: float) -> float:
        count = int(seconds * (50_000 if keep else 5_000))
        command = ["taskset", "-c", str(core), "redis-benchmark", "-p", str(balancer.stream)]
        command += ["-t", "ping_mbulk", "-c", "50", "-q", "-n", str(count), "-k", str(int(keep))]
        subprocess.run(command, check=True, capture_output=True, timeout=seconds * 20 + 60)
        return count

    return drive


def _curl(port: str, path: str, *options: str) -> Callable[..., float]:
    """@param options: with these 100 MiB go one way or the other."""

    def drive(balancer: Running, core: int, seconds: float) -> float:
        url = f"http://127.0.0.1:{getattr(balancer, port)}{path}"
        times = max(2, int(seconds * 3))
        once = ["-s", "-f", "-o", "/dev/null", *options, url]
        command = ["taskset", "-c", str(core), "curl", *once]
        for _ in range(times - 1):
            command += ["--next", *once]
        subprocess.run(command, check=True, timeout=seconds * 20 + 60)
        return times * LARGE / 1e9

    return drive


def _idle(balancer: Running, core: int, seconds: float) -> float:
    """@return: KiB for each client that has asked once and stays."""
    # What it needs for its work in any case is no part of it.
    _wrk([], "/")(balancer, core, 1.0)
    before = balancer.memory()
    with ExitStack() as connected:
        for _ in range(IDLE):
            client = connected.enter_context(socket.socket())
            client.settimeout(30.0)
            client.connect(("127.0.0.1", balancer.http))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        return (balancer.memory() - before) / IDLE / 1024


def cases(scratch: Path) -> list[Case]:
    """@param scratch: for the scripts that wrk reads."""
    post = scratch / "post.lua"
    post.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 16384)\n')
    paced = scratch / "paced.lua"
    paced.write_text(_PACED)
    upload = ("-T", str(scratch / "www" / "large"), "-X", "POST", "-H", "Expect:")
    closing = ["-H", "Connection: close"]
    browser = [word for name, value in BROWSER for word in ("-H", f"{name}: {value}")]
    latency = _wrk(["-s", str(paced)], "/", connections=10, what=r"mean (\S+)")
    each = "us a request"
    return [
        Case("http, kept alive", each, _cost(_wrk([], "/"))),
        Case("http, browser's fields", each, _cost(_wrk(browser, "/rich"))),
        Case("http, new connection", each, _cost(_wrk(closing, "/"))),
        Case("http, POST 16 KiB", each, _cost(_wrk(["-s", str(post)], "/post"))),
        Case("http, chunked response", each, _cost(_wrk([], "/chunked.html"))),
        Case("http, download", "s a GB", _cost(_curl("http", "/large"), 1.0)),
        Case("http, upload", "s a GB", _cost(_curl("http", "/post", *upload), 1.0), quick=False),
        Case("http, 1,000 a second", "us, mean latency", latency, quick=False),
        Case("http, idle clients", "KiB a client", _idle, fresh=True, quick=False),
        Case("http, 10 servers", each, _cost(_wrk([], "/")), servers=10, quick=False),
        Case(f"http, {MANY:,} servers", each, _cost(_wrk([], "/")), servers=MANY, quick=False),
        Case("stream, ping-pong", "us a message", _cost(_redis(keep=True)), "stream"),
        Case("stream, new connection", "us a connection", _cost(_redis(keep=False)), "stream"),
        Case("stream, download", "s a GB", _cost(_curl("bulk", "/large"), 1.0), "bulk"),
        Case(
            "stream, upload", "s a GB", _cost(_curl("bulk", "/post", *upload), 1.0), "bulk",
            quick=False,
        ),
    ]
