"""
The backends, and the balancers with as equal a configuration as they allow.
"""

from __future__ import annotations

import sys
from pathlib import Path

from attrs import frozen

from bench.side_by_side.processes import CHECKOUT, Running, free_port

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
KEPT_REQUESTS = "keepalive_requests 1000000000;"


@frozen
class Behind:
    """
    What the balancers stand before.

    @ivar http: addresses of the HTTP servers.
    @ivar redis: port of the Redis.
    @ivar keeps: whether connections to the servers are kept.
    """

    http: tuple[str, ...]
    redis: int
    keeps: bool = True


def temporary(scratch: Path, prefix: str) -> str:
    """nginx's directives for where it may write."""
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{name}_temp_path {scratch}/{prefix}-{name};\n" for name in names)


def backend(scratch: Path, core: int, addresses: tuple[str, ...]) -> Running:
    """
    An nginx that answers C{/} and C{/rich} with 32 bytes (the latter with
    twelve fields), C{/chunked.html} with 1 KiB in chunks, C{/large} with
    100 MiB, and takes what is sent to C{/post}.
    """
    www = scratch / "www"
    www.mkdir()
    with (www / "large").open("wb") as large:
        large.truncate(100 << 20)
    (www / "chunked.html").write_bytes(b"0123456789abcdef" * 64)
    fields = "".join(f'add_header X-Field-{n} "the value of field {n}"; ' for n in range(8))
    conf = scratch / "backend.conf"
    conf.write_text(
        f"worker_processes 1; daemon off; master_process off; pid {scratch}/backend.pid;\n"
        "error_log stderr crit; events { worker_connections 16384; }\n"
        f"http {{ access_log off; {KEPT_REQUESTS} keepalive_timeout 600s; client_max_body_size 0;\n"
        f"sendfile on; types {{ text/html html; }} {temporary(scratch, 'backend')} server {{\n"
        + "".join(f"listen {address} backlog=8192;\n" for address in addresses)
        + f'root {www}; location = / {{ return 200 "{"0123456789abcdef" * 2}"; }}\n'
        f'location = /rich {{ {fields} return 200 "{"0123456789abcdef" * 2}"; }}\n'
        # What SSI has worked on has no length beforehand: it is sent in chunks.
        "location = /chunked.html { ssi on; }\n"
        # A body is read before it is passed on; where to does not matter.
        "location = /post { proxy_pass http://127.0.0.1:1; error_page 502 =200 @taken; }\n"
        'location @taken { return 200 "taken"; } } }\n'
    )
    command = ["nginx", "-c", str(conf), "-p", str(scratch)]
    return Running("backend", command, core, http=int(addresses[0].rpartition(":")[2]))


def redis(core: int, port: int) -> Running:
    """What the stream cases talk to."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return Running("redis", command, core, stream=port)


def nginx(scratch: Path, core: int, behind: Behind) -> Running:
    """With keep-alive on both sides and dynbalance's request fields."""
    http, stream, bulk = free_port(), free_port(), free_port()
    servers = "".join(f"server {address} max_conns=0; " for address in behind.http)
    kept = f"keepalive 128; {KEPT_REQUESTS}" if behind.keeps else ""
    conf = scratch / "nginx.conf"
    conf.write_text(
        f"load_module {STREAM_MODULE};\n"
        f"worker_processes 1; daemon off; master_process off; pid {scratch}/nginx.pid;\n"
        "error_log stderr crit; events { worker_connections 16384; }\n"
        f"http {{ access_log off; {KEPT_REQUESTS} keepalive_timeout 600s; client_max_body_size 0;\n"
        f"proxy_max_temp_file_size 0; {temporary(scratch, 'nginx')}\n"
        f"upstream b {{ least_conn; {servers} {kept} }}\n"
        f"server {{ listen 127.0.0.1:{http} backlog=8192; location / {{ proxy_pass http://b;\n"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;\n'
        "proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;\n"
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "proxy_set_header X-Forwarded-Proto $scheme; } } }\n"
        "stream { access_log off;\n"
        f"server {{ listen 127.0.0.1:{stream} backlog=8192;"
        f" proxy_pass 127.0.0.1:{behind.redis}; }}\n"
        f"server {{ listen 127.0.0.1:{bulk}; proxy_pass {behind.http[0]}; }} }}\n"
    )
    command = ["nginx", "-c", str(conf), "-p", str(scratch)]
    return Running("nginx", command, core, http=http, stream=stream, bulk=bulk)


def haproxy(scratch: Path, core: int, behind: Behind) -> Running:
    """With one thread, reuse of connections, and splicing."""
    http, stream, bulk = free_port(), free_port(), free_port()
    servers = "".join(f"  server s{n} {address}\n" for n, address in enumerate(behind.http))
    reuse = "http-reuse always" if behind.keeps else "option http-server-close"
    conf = scratch / "haproxy.cfg"
    conf.write_text(
        "global\n  nbthread 1\n  maxconn 6000\n"
        "defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        "  option splice-auto\n"
        f"frontend f\n  mode http\n  bind 127.0.0.1:{http}\n  option forwardfor\n"
        "  default_backend b\n"
        f"backend b\n  mode http\n  balance leastconn\n  {reuse}\n{servers}"
        f"listen s\n  mode tcp\n  bind 127.0.0.1:{stream}\n"
        f"  server r 127.0.0.1:{behind.redis}\n"
        f"listen l\n  mode tcp\n  bind 127.0.0.1:{bulk}\n"
        f"  server r {behind.http[0]}\n"
    )
    return Running(
        "haproxy", ["haproxy", "-db", "-f", str(conf)], core,
        http=http, stream=stream, bulk=bulk,
    )


def dynbalance(
    scratch: Path, core: int, behind: Behind, name: str = "dynbalance", checkout: Path = CHECKOUT
) -> Running:
    """The daemon as it is installed, with its defaults."""
    http, stream, bulk, admin = (free_port() for _ in range(4))
    servers = ", ".join(_server(address) for address in behind.http)
    kept = "" if behind.keeps else "keepalive = 0\n"
    conf = scratch / f"{name}.toml"
    conf.write_text(
        '[store]\nurl = "memory:"\n'
        f'[[http]]\nlisten = "tcp:{http}:interface=127.0.0.1"\n'
        "keepalive_requests = 2147483647\n"
        f'[[stream]]\nlisten = "tcp:{stream}:interface=127.0.0.1"\nupstream = "redis"\n'
        f'[[stream]]\nlisten = "tcp:{bulk}:interface=127.0.0.1"\nupstream = "one"\n'
        f'[admin]\nlisten = "tcp:{admin}:interface=127.0.0.1"\n'
        f"[upstreams.default]\nkeepalive_requests = 2147483647\n{kept}servers = [{servers}]\n"
        f"[upstreams.redis]\nservers = [{_server(f'127.0.0.1:{behind.redis}')}]\n"
        f"[upstreams.one]\nservers = [{_server(behind.http[0])}]\n"
    )
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    command += ["--nodaemon", "--pidfile=", "dynbalance", "--config", str(conf)]
    command += ["--state-dir", str(scratch / f"{name}-state")]
    return Running(
        name, command, core,
        http=http, stream=stream, bulk=bulk,
        environment={"PYTHONPATH": str(checkout)}, directory=checkout,
    )


def _server(address: str) -> str:
    return f'{{ address = "{address}", max_conns = 0 }}'
