"""
TCP scenes before nginx and before dynbalance: the same servers, the same client.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff

from attrs import field, frozen

from tests.endtoend.beside import MODULE, Player, absent, inline, player, server_line, start_nginx
from tests.endtoend.daemon import Daemon, endpoint
from tests.endtoend.harness import BOUND, LOOPBACK, EndToEndCase, free_port, wait_until
from tests.endtoend.stage import Act, Stage

ECHO = Act(then="echo")
"""Says again what it hears."""
GREET = Act(b"hello ", "echo")
"""Speaks first."""
LATE = Act(b"late", "late")
"""Hears all before it says anything."""
BYE = Act(b"bye", "bye")
"""Says something and its end, and hears the rest."""
GO = Act(b"gone", "go")
"""Says something and closes."""

END = None
Steps = Sequence["bytes | float | None"]


class Lines(Stage):
    """
    Servers of raw TCP.

    @ivar heard: for each connection which server it was, and what that heard.
    """

    def __init__(self, case: EndToEndCase, casts: Sequence[Sequence[Act] | None]) -> None:
        self.heard: list[tuple[int, bytes]] = []
        super().__init__(case, casts)

    def serve(
        self, skt: socket.socket, number: int, connection: int, turns: Iterator[Act]
    ) -> None:
        with self.lock:
            act, place = next(turns), len(self.heard)
            self.heard.append((number, b""))
            self.busy += 1
        heard = b""
        with skt, contextlib.suppress(OSError):
            if act.then != "late":
                skt.sendall(act.answer)
            if act.then == "bye":
                skt.shutdown(socket.SHUT_WR)
            while act.then != "go" and (data := skt.recv(65536)):
                heard += data
                if act.then == "echo":
                    skt.sendall(data)
            if act.then == "late":
                skt.sendall(act.answer)
        with self.lock:
            self.heard[place] = (number, heard)
            self.busy -= 1


Heard = tuple[list[bytes], list[tuple[int, bytes]]]
"""What the clients of a scene heard, and its servers."""


@frozen(kw_only=True)
class Scene:
    """
    @ivar clients: what each client does, one after the other: it sends bytes,
        reads as many bytes as a whole number says, waits so many seconds as
        another one says, ends its side for C{END}, and then reads all that
        comes.
    @ivar upstream: options that both know.
    @ivar listener: options of the C{[[stream]]}.
    @ivar believes: whether clients begin with a PROXY header.
    @ivar tells: whether the servers get one.
    @ivar pauses: seconds behind each client; none when they are used up.
    """

    players: Sequence[Player]
    clients: Sequence[Steps] = ((b"abc", 3, END),)
    upstream: Mapping[str, object] = field(factory=dict)
    listener: Mapping[str, object] = field(factory=dict)
    believes: bool = False
    tells: bool = False
    pauses: Sequence[float] = ()


_NGINX = {
    "timeout": "proxy_timeout",
    "half_close": "proxy_half_close",
    "next_upstream": "proxy_next_upstream",
    "next_upstream_tries": "proxy_next_upstream_tries",
    "connect_timeout": "proxy_connect_timeout",
    "download_rate": "proxy_download_rate",
}
_UPSTREAM = {"policy": "round_robin", "retry_budget": 0.0}


class StreamTests(EndToEndCase):
    """What clients and servers hear."""

    def assert_alike(self, **scenes: Scene) -> dict[str, Heard]:
        """@return: what was heard in each scene."""
        casts = [[each.acts for each in scene.players] for scene in scenes.values()]
        stages = [[Lines(self, cast) for cast in casts] for _ in range(2)]
        ports = [self._nginx(scenes, stages[0]), self._daemon(scenes, stages[1])]
        with ThreadPoolExecutor(2 * len(scenes)) as pool:
            futures = [
                [
                    pool.submit(_play, scene, port, stage)
                    for scene, port, stage in zip(scenes.values(), *side, strict=True)
                ]
                for side in zip(ports, stages, strict=True)
            ]
        theirs, ours = ([future.result() for future in side] for side in futures)
        differences = [
            "\n".join(unified_diff(_text(one), _text(other), f"{name} nginx", "dynbalance"))
            for name, one, other in zip(scenes, theirs, ours, strict=True)
            if one != other
        ]
        if differences:
            self.fail("\n".join(differences))
        return dict(zip(scenes, ours, strict=True))

    def _nginx(self, scenes: Mapping[str, Scene], stages: Sequence[Lines]) -> list[int]:
        ports = [free_port() for _ in scenes]
        parts = ["stream {\n"]
        for (name, scene), stage, port in zip(scenes.items(), stages, ports, strict=True):
            servers = " ".join(map(server_line, scene.players, stage.ports))
            options = {"proxy_protocol": scene.tells, "half_close": True, **scene.listener}
            options |= scene.upstream
            lines = [
                f"{_NGINX.get(option, option)} {_value(value)};"
                for option, value in options.items()
            ]
            if scene.believes:
                lines.append(f"set_real_ip_from {LOOPBACK};")
            parts.append(
                f"upstream {name} {{ {servers} }}\n"
                f"server {{ listen {LOOPBACK}:{port}{' proxy_protocol' * scene.believes};"
                f" proxy_pass {name}; {' '.join(lines)} }}\n"
            )
        # To be asked whether it is there; each of the others counts its clients.
        another = free_port()
        parts.append(f'server {{ listen {LOOPBACK}:{another}; return ""; }} }}\n')
        start_nginx(self, self.directory("nginx-beside"), "".join(parts), another, MODULE)
        return ports

    def _daemon(self, scenes: Mapping[str, Scene], stages: Sequence[Lines]) -> list[int]:
        ports = [free_port() for _ in scenes]
        more = []
        for (name, scene), stage, port in zip(scenes.items(), stages, ports, strict=True):
            upstream = {**_UPSTREAM, "proxy_protocol": int(scene.tells), **scene.upstream}
            more += [f"[upstreams.{name}]", *_options(upstream)]
            servers = (
                inline({"address": f"{LOOPBACK}:{at}", "max_conns": 0, **each.options})
                for each, at in zip(scene.players, stage.ports, strict=True)
            )
            more.append(f"servers = [{', '.join(servers)}]")
            listener = {"listen": endpoint(port), "upstream": name, **scene.listener}
            more += ["[[stream]]", *_options({**listener, "proxy_protocol": scene.believes})]
        Daemon(self, more="\n".join(more))
        return ports

    def test_directions(self) -> None:
        """Bytes both ways, and the end of either side."""
        closing = {"half_close": False}
        talk = (b"abc", 3, b"defg", 4, END)
        self.assert_alike(
            echo=Scene(players=[player(ECHO)], clients=[talk]),
            greeted=Scene(players=[player(GREET)], clients=[(6, *talk)]),
            silent=Scene(players=[player(GREET)], clients=[(6, END)]),
            late=Scene(players=[player(LATE)], clients=[(b"abc", END)]),
            late_closing=Scene(
                players=[player(LATE)], clients=[(b"abc", 0.8, END)], listener=closing
            ),
            bye=Scene(players=[player(BYE)], clients=[(3, b"abc", END)]),
            gone=Scene(players=[player(GO)], clients=[(b"", 4, END)]),
            gone_closing=Scene(players=[player(GO)], clients=[(4, END)], listener=closing),
            nothing=Scene(players=[player(ECHO)], clients=[(END,)]),
        )

    def test_next_upstream(self) -> None:
        """Only connecting is tried again; what the client has said goes to whom it reaches."""
        two = [(b"abc", 3, END)] * 4
        self.assert_alike(
            refused=Scene(players=[absent(), player(ECHO)], clients=two),
            refused_off=Scene(
                players=[absent(), player(ECHO)], clients=two, listener={"next_upstream": False}
            ),
            refused_by_all=Scene(players=[absent(), absent()], clients=[(b"abc", END)] * 2),
            tries=Scene(
                players=[absent(max_fails=0), absent(max_fails=0), player(ECHO)],
                clients=two,
                upstream={"next_upstream_tries": 2},
            ),
            closes=Scene(players=[player(GO), player(GREET)], clients=[(END,)] * 4),
            backup=Scene(players=[absent(), player(GREET, backup=True)], clients=[(6, END)] * 2),
            all_down=Scene(players=[player(ECHO, down=True)] * 2, clients=[(b"abc", END)]),
            alone=Scene(players=[absent()], clients=[(b"abc", END)] * 3),
        )

    def test_turns(self) -> None:
        """Each connection goes to the next server, by weight; a failed one is out for a while."""
        clients = [(b"abc", 3, END)] * 9
        self.assert_alike(
            even=Scene(players=[player(ECHO)] * 3, clients=clients),
            weights=Scene(
                players=[player(ECHO, weight=3), player(ECHO), player(ECHO, weight=2)],
                clients=clients,
            ),
            failing=Scene(players=[absent(weight=3, max_fails=2), player(ECHO)], clients=clients),
            probed=Scene(
                players=[absent(fail_timeout=2), player(ECHO), player(ECHO)],
                clients=clients[:6],
                pauses=(0, 0, 3.1),
            ),
        )

    def test_silence(self) -> None:
        """After C{timeout} without a byte either way both are closed."""
        brief = {"timeout": 1.5}
        self.assert_alike(
            silent=Scene(players=[player(ECHO)], clients=[(b"abc", 3)], listener=brief),
            never=Scene(players=[player(ECHO)], clients=[()], listener=brief),
            busy=Scene(
                players=[player(ECHO)],
                clients=[(b"a", 1, 0.6, b"b", 1, 0.6, b"c", 1, 0.6, b"d", 1)],
                listener=brief,
            ),
        )

    def test_proxy_protocol(self) -> None:
        """PROXY headers: told to each server first, believed, and refused when they are broken."""
        line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
        six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n"
        two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\3\xe8\0\x50"
        talk = (b"abc", 3, END)
        played = self.assert_alike(
            told=Scene(players=[player(LATE)], clients=[(b"abc", END)], tells=True),
            told_again=Scene(
                players=[absent(), player(LATE)], clients=[(b"abc", END)], tells=True
            ),
            told_at_once=Scene(players=[player(LATE)], clients=[(END,)], tells=True),
            believed=Scene(
                players=[player(ECHO)],
                clients=[(line, *talk), (six, *talk), (two, *talk)],
                believes=True,
            ),
            in_one_piece=Scene(
                players=[player(ECHO)],
                clients=[(line + b"abc", 3, END), (two + b"abc", 3, END)],
                believes=True,
            ),
            unknown=Scene(
                players=[player(ECHO)],
                clients=[(b"PROXY UNKNOWN what ever\r\n", *talk)],
                believes=True,
            ),
            local=Scene(
                players=[player(ECHO)],
                clients=[(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", *talk)],
                believes=True,
            ),
            broken=Scene(
                players=[player(ECHO)],
                clients=[
                    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",),
                    (b"PROXY TCP4 192.0.2.1 x 1 2\r\n",),
                    (b"PROXY TCP9 192.0.2.1 192.0.2.2 1 2\r\n",),
                    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n",),
                ],
                believes=True,
            ),
            passed_on=Scene(
                players=[player(LATE)],
                clients=[(line, b"abc", END)],
                believes=True,
                tells=True,
            ),
        )
        self.assertEqual([b""] * 4, played["broken"][0])


def _play(scene: Scene, port: int, stage: Lines) -> Heard:
    heard = []
    waits = iter(scene.pauses)
    for steps in scene.clients:
        with socket.create_connection((LOOPBACK, port), BOUND) as client:
            heard.append(_talk(client, steps))
        time.sleep(next(waits, 0))
    wait_until(lambda: not stage.busy, "the servers")
    return heard, [(number, _named(said, port)) for number, said in stage.heard]


def _talk(client: socket.socket, steps: Steps) -> bytes:
    heard = b""
    with contextlib.suppress(ConnectionError):
        for step in steps:
            if step is None:
                # It may be closed already.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            elif isinstance(step, bytes):
                client.sendall(step)
            elif isinstance(step, float):
                time.sleep(step)
            else:
                size = len(heard) + step
                while len(heard) < size and (data := client.recv(size - len(heard))):
                    heard += data
        while data := client.recv(65536):
            heard += data
    return heard


def _named(said: bytes, port: int) -> bytes:
    """What a server heard, with names for the ports that differ."""
    return re.sub(rb"127\.0\.0\.1 \d+ %d\r\n" % port, b"127.0.0.1 CLIENT PORT\r\n", said)


def _text(played: Heard) -> list[str]:
    return [str(each) for each in (*played[0], *played[1])]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{int(value * 1000)}ms" if isinstance(value, float) else str(value)


def _options(table: Mapping[str, object]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in table.items()]
