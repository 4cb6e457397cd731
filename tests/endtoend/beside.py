"""
A scene that is played twice: once before a real nginx, once before dynbalance.

What a scene says of its upstream is written down for each in its own words.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff

from attrs import field, frozen

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, accepts, free_port, program, wait_until
from tests.endtoend.stage import NOTHING, Act, Answer, Asked, Client, Stage, request

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""Where Debian's libnginx-mod-stream has it."""


@frozen(kw_only=True)
class Player:
    """
    A server of a scene.

    @ivar acts: see L{Stage}.
    @ivar options: of nginx's C{server}, which have the same names here.
    """

    acts: Sequence[Act] | None
    options: Mapping[str, int | bool] = field(factory=dict)


def player(*acts: Act, **options: int | bool) -> Player:
    return Player(acts=acts, options=options)


def absent(**options: int | bool) -> Player:
    """A server that refuses connections."""
    return Player(acts=None, options=options)


@frozen(kw_only=True)
class Played:
    """What a scene looked like to the client and to the servers."""

    answers: tuple[Answer, ...]
    asked: tuple[Asked, ...]

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def servers(self) -> list[int]:
        """Who was asked, in order."""
        return [asked.server for asked in self.asked]


Script = Callable[["Scene", int], Sequence[Answer]]
"""What the client does with a scene at a port."""


@frozen(kw_only=True)
class Scene:
    """
    Servers, what the upstream's options are, and what a client does.

    @ivar name: also the host that leads to it.
    @ivar upstream: options with dynbalance's names; those that nginx has not
        are left out there.
    @ivar script: instead of asking one C{GET} after the other.
    @ivar buffered: whether requests are read whole first.
    @ivar again: servers that are listed once more: the places of players, and
        options.
    """

    name: str
    players: Sequence[Player]
    upstream: Mapping[str, object] = field(factory=dict)
    script: Script
    buffered: bool = False
    again: Sequence[tuple[int, Mapping[str, int | bool]]] = ()

    def lines(self, ports: Sequence[int]) -> list[tuple[Player, int]]:
        """What the configuration lists, with the ports."""
        more = [(Player(acts=None, options=options), ports[at]) for at, options in self.again]
        return [*zip(self.players, ports, strict=True), *more]


def asks(*requests: bytes, times: int = 1, pauses: Sequence[float] = ()) -> Script:
    """
    A client that sends each over a connection of its own.

    @param times: how often it does so.
    @param pauses: seconds behind each but the last; none when they are used up.
    """

    def script(scene: Scene, port: int) -> Sequence[Answer]:
        answers = []
        waits = iter(pauses)
        for each in list(requests or [request()]) * times:
            answers.append(ask(scene, port, each))
            time.sleep(next(waits, 0))
        return answers

    return script


def keeps(*requests: bytes) -> Script:
    """A client that sends all over one connection, and over another one when that is closed."""

    def script(scene: Scene, port: int) -> Sequence[Answer]:
        client, answers = Client(port), []
        for each in requests:
            answers.append(client.ask(named(scene, each)))
            if not answers[-1].kept:
                client.close()
                client = Client(port)
        client.close()
        return answers

    return script


def bursts(times: int, number: int, pause: float) -> Script:
    """A client that asks C{number} times at once, and so often after a pause again."""

    def script(scene: Scene, port: int) -> Sequence[Answer]:
        answers: list[Answer] = []
        for burst in range(times):
            if burst:
                time.sleep(pause)
            answers += asks(times=number)(scene, port)
        return answers

    return script


def held(number: int) -> Script:
    """So many requests, one after the other, whose servers may not answer before all are sent."""

    def script(scene: Scene, port: int) -> Sequence[Answer]:
        clients = []
        for _ in range(number):
            clients.append(client := Client(port))
            client.send(named(scene, request()))
            client.hears(0.3)
        # Who is refused hears so by now.
        time.sleep(1.0)
        answers = [client.listen() if client.hears(0) else NOTHING for client in clients]
        for client in clients:
            client.close()
        return answers

    return script


def ask(scene: Scene, port: int, each: bytes) -> Answer:
    client = Client(port)
    try:
        return client.ask(named(scene, each))
    finally:
        client.close()


def named(scene: Scene, each: bytes) -> bytes:
    """A request for the scene."""
    return each.replace(b"HOST", scene.name.encode())


_PARTS = {
    "next_upstream": "proxy_next_upstream",
    "next_upstream_tries": "proxy_next_upstream_tries",
    "next_upstream_timeout": "proxy_next_upstream_timeout",
    "connect_timeout": "proxy_connect_timeout",
    "send_timeout": "proxy_send_timeout",
    "read_timeout": "proxy_read_timeout",
    "client_max_body_size": "client_max_body_size",
}
_BLOCK = {
    "keepalive": "keepalive",
    "keepalive_requests": "keepalive_requests",
    "keepalive_time": "keepalive_time",
    "max_idle_time": "keepalive_timeout",
}
_POLICIES = {
    "round_robin": "",
    "least_conn": "least_conn;",
    "ip_hash": "ip_hash;",
    "hash": "hash $request_uri;",
}
_DEFAULTS: Mapping[str, object] = {
    "policy": "round_robin", "keepalive": 8, "read_timeout": 5.0, "retry_budget": 0.0
}  # fmt: skip


def _nginx_value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value) or "off"
    # Seconds, to the millisecond.
    return f"{int(value * 1000)}ms" if isinstance(value, float) else str(value)


class Beside(EndToEndCase):
    """
    Plays scenes before both.

    @cvar trusted: networks whose word on the client's address is believed.
    """

    trusted: Sequence[str] = ()

    def play(self, *scenes: Scene) -> Mapping[str, tuple[Played, Played]]:
        """@return: by the scenes' names what it was with nginx, and with dynbalance."""
        stages = [
            [Stage(self, [player.acts for player in scene.players]) for scene in scenes]
            for _ in range(2)
        ]
        nginx = self._nginx(scenes, stages[0])
        daemon = self._daemon(scenes, stages[1])

        def played(scene: Scene, port: int, stage: Stage) -> Played:
            answers = scene.script(scene, port)
            # What is given up is closed at once, and not with the end of everything.
            wait_until(lambda: not stage.busy, "the servers")
            return Played(answers=tuple(answers), asked=tuple(stage.asked))

        with ThreadPoolExecutor(2 * len(scenes)) as pool:
            both = [
                [
                    pool.submit(played, scene, port, stage)
                    for scene, stage in zip(scenes, stages[side], strict=True)
                ]
                for side, port in enumerate((nginx, daemon))
            ]
        return {
            scene.name: (theirs.result(), ours.result())
            for scene, theirs, ours in zip(scenes, *both, strict=True)
        }

    def assert_alike(self, *scenes: Scene) -> Mapping[str, Played]:
        """
        Everybody, clients and servers, saw the same.

        @return: what that was.
        """
        played = self.play(*scenes)
        differences = [
            "\n".join(unified_diff(_lines(theirs), _lines(ours), f"{name} nginx", "dynbalance"))
            for name, (theirs, ours) in played.items()
            if theirs != ours
        ]
        if differences:
            self.fail("\n".join(differences))
        return {name: ours for name, (_, ours) in played.items()}

    def _nginx(self, scenes: Sequence[Scene], stages: Sequence[Stage]) -> int:
        port = free_port()
        directory = self.directory("nginx-beside")
        parts = [_HTTP.format(directory=directory)]
        parts += [f"set_real_ip_from {network};\n" for network in self.trusted]
        for scene, stage in zip(scenes, stages, strict=True):
            parts.append(_block(scene, stage))
            settings = {**_DEFAULTS, **scene.upstream}
            lines = [
                f"{_PARTS[name]} {_nginx_value(value)};"
                for name, value in settings.items()
                if name in _PARTS
            ]
            buffering = "on" if scene.buffered else "off"
            parts.append(
                f"server {{ listen {LOOPBACK}:{port}; server_name {scene.name};\n"
                f"proxy_request_buffering {buffering};\n{' '.join(lines)}\n"
                f"location / {{ proxy_pass http://{scene.name}; }} }}\n"
            )
        parts.append("}\n")
        start_nginx(self, directory, "".join(parts), port)
        return port

    def _daemon(self, scenes: Sequence[Scene], stages: Sequence[Stage]) -> int:
        more, routes = [], []
        for scene, stage in zip(scenes, stages, strict=True):
            settings = {**_DEFAULTS, **scene.upstream, "request_buffering": scene.buffered}
            more.append(f"[upstreams.{scene.name}]")
            more += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
            servers = [
                {"address": f"{LOOPBACK}:{port}", "max_conns": 0, **player.options}
                for player, port in scene.lines(stage.ports)
            ]
            more.append(f"servers = [{', '.join(inline(server) for server in servers)}]")
            routes.append(inline({"host": scene.name, "upstream": scene.name}))
        listener = {"trusted_proxies": list(self.trusted)}
        routing = f"[{', '.join(routes)}]"
        return Daemon(self, more="\n".join(more), routes=routing, http=listener).http


def start_nginx(
    case: EndToEndCase, directory: str, config: str, port: int, module: str = ""
) -> None:
    """
    Start an nginx, and wait for its port.

    @param module: the file of one that it needs.
    """
    path = os.path.join(directory, "nginx.conf")
    with open(path, "w") as out:
        out.write(f"load_module {module};\n" if module else "")
        out.write(_HEAD.format(directory=directory) + config)
    command = [program("nginx"), "-p", directory, "-c", path]
    command += ["-e", os.path.join(directory, "error.log")]
    process = case.start("nginx-beside", command, directory)
    process.until(lambda: accepts(port), "listens")


def _lines(played: Played) -> list[str]:
    return [str(each) for each in (*played.answers, *played.asked)]


def inline(table: Mapping[str, object]) -> str:
    """A table in one line of TOML."""
    return "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + "}"


def server_line(player: Player, port: int) -> str:
    """A server as nginx has it."""
    words = [
        name if value is True else f"{name}={value}"
        for name, value in player.options.items()
        if value is not False
    ]
    return f"server {LOOPBACK}:{port} {' '.join(words)};"


def _block(scene: Scene, stage: Stage) -> str:
    settings = {**_DEFAULTS, **scene.upstream}
    lines = [f"upstream {scene.name} {{", _POLICIES[str(settings["policy"])]]
    for player, port in scene.lines(stage.ports):
        lines.append(server_line(player, port))
    if settings["keepalive"]:
        lines += [
            f"{_BLOCK[name]} {_nginx_value(value)};"
            for name, value in sorted(settings.items())
            if name in _BLOCK
        ]
    return "\n".join([*lines, "}\n"])


_HEAD = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 1024; }}
"""

_HTTP = """\
http {{
access_log off;
client_body_temp_path {directory}/body;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
server_names_hash_bucket_size 128;
large_client_header_buffers 4 32k;
real_ip_header X-Forwarded-For;
real_ip_recursive on;
map $http_upgrade $connection_upgrade {{ "" ""; default upgrade; }}
proxy_buffering off;
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_set_header Connection $connection_upgrade;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
"""
