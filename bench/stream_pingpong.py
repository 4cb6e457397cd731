"""
What a small message costs through the stream subsystem, beside nginx.

Run as C{python bench/stream_pingpong.py}; takes about half a minute.  It needs
nginx with its stream module, redis-server and redis-benchmark on the PATH.
Each proxy stands between C{redis-benchmark} and a Redis; its CPU time is read
from C{/proc}, its system calls by C{strace -c} when that is there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

CLIENTS = 50
MESSAGES = 200_000
CONNECTIONS = 20_000
BULK = 1 << 30
MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        return int(skt.getsockname()[1])


def wait_for(port: int) -> None:
    """Return when something listens."""
    for _ in range(200):
        with socket.socket() as skt:
            if not skt.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


@contextmanager
def running(*command: str):
    """A program, ended afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drive(port: int, messages: int, keepalive: bool) -> None:
    """Send messages and wait for the answers."""
    subprocess.run(
        f"redis-benchmark -p {port} -t ping_mbulk -n {messages} -c {CLIENTS} -q"
        f" -k {int(keepalive)}".split(),
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )


def bulk(port: int) -> None:
    """Take C{BULK} bytes."""
    buffer = bytearray(1 << 18)
    with socket.create_connection(("127.0.0.1", port)) as skt:
        skt.sendall(b"x")
        left = BULK
        while left:
            got = skt.recv_into(buffer)
            if not got:
                raise SystemExit("the bulk ended early")
            left -= got


def serve_bulk(port: int) -> None:
    """A server that answers a connection's first byte with C{BULK} bytes."""
    block = bytes(1 << 20)
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            skt, _ = listening.accept()
            with skt:
                if skt.recv(1):
                    for _ in range(BULK >> 20):
                        skt.sendall(block)


def serve(pairs: list[tuple[int, int]]) -> None:
    """dynbalance's own side: a listener for each pair of ports."""
    from random import random

    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ServerEndpoint

    from dynbalance.balancer.balancer import Balancer, UpstreamOrder
    from dynbalance.balancer.upstream import FileServer
    from dynbalance.net.deadlines import Deadlines
    from dynbalance.net.direct import carrier
    from dynbalance.net.names import Names
    from dynbalance.net.pipes import Pipes
    from dynbalance.store.contract import ServerOrder
    from dynbalance.stream.listener import StreamListener, StreamOptions

    hub = carrier(reactor)
    deadlines = Deadlines(reactor)
    names = Names(reactor, reactor)
    pipes = Pipes()
    for port, to in pairs:
        order = ServerOrder(address=f"127.0.0.1:{to}", host="127.0.0.1", port=to)
        balancer = Balancer(
            [UpstreamOrder(name="b", servers=(FileServer(order=order),))],
            reactor.seconds,
            random,
        )
        upstream = balancer.upstream("b")
        listener = StreamListener(StreamOptions(), upstream, hub, deadlines, names, pipes)
        listener.listen(TCP4ServerEndpoint(hub, port, interface="127.0.0.1"))
    reactor.run()


def calls(pid: int, port: int) -> str:
    """System calls for one message, by name."""
    if shutil.which("strace") is None:
        return "no strace"
    trace = subprocess.Popen(
        ["strace", "-c", "-f", "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    messages = 20_000
    drive(port, messages, keepalive=True)
    trace.send_signal(signal.SIGINT)
    report = trace.communicate(timeout=20)[1]
    counted = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$", report, re.MULTILINE)
    return " ".join(
        f"{name} {int(count) / messages:.2f}"
        for count, name in counted
        if name != "total" and int(count) > messages / 100
    )


def main() -> None:
    """Measure and print."""
    redis, source = free_port(), free_port()
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ports = {name: (free_port(), free_port()) for name in ("nginx", "dynbalance")}
        small, large = ports["nginx"]
        conf = Path(scratch) / "nginx.conf"
        conf.write_text(
            f"load_module {MODULE};\nworker_processes 1;\ndaemon off;\nmaster_process off;\n"
            f"pid {scratch}/nginx.pid;\nerror_log stderr error;\n"
            "events { worker_connections 4096; }\n"
            "stream { access_log off;\n"
            f"server {{ listen 127.0.0.1:{small}; proxy_pass 127.0.0.1:{redis}; }}\n"
            f"server {{ listen 127.0.0.1:{large}; proxy_pass 127.0.0.1:{source}; }} }}\n"
        )
        pairs = [f"{ports['dynbalance'][0]}:{redis}", f"{ports['dynbalance'][1]}:{source}"]
        with (
            running("redis-server", "--port", str(redis), "--save", "", "--bind", "127.0.0.1"),
            running(sys.executable, __file__, "source", str(source)),
            running("nginx", "-c", str(conf), "-p", scratch) as nginx,
            running(sys.executable, __file__, "serve", *pairs) as dynbalance,
        ):
            for name, pid in (("nginx", nginx), ("dynbalance", dynbalance)):
                small, large = ports[name]
                for port in (redis, source, small, large):
                    wait_for(port)
                drive(small, 20_000, keepalive=True)
                row = results[name] = []
                for count, keepalive in ((MESSAGES, True), (CONNECTIONS, False)):
                    before = cpu(pid)
                    drive(small, count, keepalive)
                    row.append((cpu(pid) - before) / count * 1e6)
                before = cpu(pid)
                bulk(large)
                row.append((cpu(pid) - before) / BULK * 1e9)
                print(f"{name:11} calls a message: {calls(pid, small)}")
    print(f"{'':11} {'us a message':>13} {'us a connection':>16} {'CPU s a GB':>11}")
    for name, row in results.items():
        print(f"{name:11} {row[0]:13.1f} {row[1]:16.1f} {row[2]:11.3f}")
    ratios = [ours / theirs for theirs, ours in zip(*results.values(), strict=True)]
    print(f"{'ratio':11} {ratios[0]:13.2f} {ratios[1]:16.2f} {ratios[2]:11.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve([tuple(map(int, pair.split(":"))) for pair in sys.argv[2:]])  # type: ignore[misc]
    elif sys.argv[1:2] == ["source"]:
        serve_bulk(int(sys.argv[2]))
    else:
        main()
