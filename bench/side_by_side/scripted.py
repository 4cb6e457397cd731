"""
What dynbalance replaces, as a peer: nginx with Lua that asks a Redis about each
request, with the keys and the order of calls of the OpenResty set-up, repaired
until it works.

The choice cannot be made in C{balancer_by_lua}, where nothing may be waited for:
it is made while access is checked, and the connection is counted down by a timer
after the log.
"""

from __future__ import annotations

from pathlib import Path

from bench.side_by_side.peers import KEPT_REQUESTS, Behind, temporary
from bench.side_by_side.processes import Running, free_port

_MODULES = Path("/usr/lib/nginx/modules")

_CHOOSE = """
local store, key = opened(), nil
local members = assert(store:zrange("upstream:servers", 0, -1))
for _, member in ipairs(members) do
  local known = assert(store:hget("upstream:metadata", member))
  if known ~= ngx.null and cjson.decode(known).enabled then key = member break end
end
if not key then return ngx.exit(502) end
assert(store:zincrby("upstream:servers", 1, key))
store:set_keepalive(60000, 100)
ngx.ctx.key = key
"""

_RELEASE = """
ngx.timer.at(0, function(_, key)
  local store = opened()
  store:zincrby("upstream:servers", -1, key)
  store:set_keepalive(60000, 100)
end, ngx.ctx.key)
"""

_POINT = """
local host, port = ngx.ctx.key:match("^(.*):(%d+)$")
assert(balancer.set_current_peer(host, tonumber(port)))
"""


def scripted(scratch: Path, core: int, behind: Behind) -> Running:
    """@return: with HTTP alone; the set-up had no TCP."""
    http = free_port()
    conf = scratch / "scripted.conf"
    servers = "".join(
        f'store:zadd("upstream:servers", 0, "{address}")\n'
        f'store:hset("upstream:metadata", "{address}", [[{{"enabled": true}}]])\n'
        for address in behind.http
    )
    conf.write_text(
        f"load_module {_MODULES}/ndk_http_module.so;\n"
        f"load_module {_MODULES}/ngx_http_lua_module.so;\n"
        f"worker_processes 1; daemon off; master_process off; pid {scratch}/scripted.pid;\n"
        "error_log stderr crit; events { worker_connections 16384; }\n"
        f"http {{ access_log off; {KEPT_REQUESTS} keepalive_timeout 600s;\n"
        f"client_max_body_size 0; proxy_max_temp_file_size 0; {temporary(scratch, 'scripted')}\n"
        "lua_max_running_timers 16384; lua_max_pending_timers 16384;\n"
        'init_by_lua_block { balancer = require "ngx.balancer"; cjson = require "cjson.safe"\n'
        'local redis = require "nginx.redis"\n'
        "function opened() local store = redis:new()\n"
        f'assert(store:connect("127.0.0.1", {behind.redis})) return store end }}\n'
        f"init_worker_by_lua_block {{ ngx.timer.at(0, function() local store = opened()\n"
        f"{servers} end) }}\n"
        "upstream b { server 0.0.0.1; balancer_by_lua_block { " + _POINT + " }\n"
        f"keepalive 128; {KEPT_REQUESTS} }}\n"
        f"server {{ listen 127.0.0.1:{http} backlog=8192; location / {{\n"
        "access_by_lua_block { " + _CHOOSE + " } log_by_lua_block { " + _RELEASE + " }\n"
        "proxy_pass http://b; proxy_http_version 1.1; proxy_request_buffering off;\n"
        'proxy_set_header Connection ""; proxy_set_header Host $http_host;\n'
        "proxy_set_header X-Real-IP $remote_addr;\n"
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "proxy_set_header X-Forwarded-Proto $scheme; } } }\n"
    )
    command = ["nginx", "-c", str(conf), "-p", str(scratch)]
    return Running("nginx+Lua+Redis", command, core, http=http)
