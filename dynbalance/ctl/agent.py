"""
C{heartbeat}: keeps one server registered for as long as it lives.

Registers it when the daemon does not know it, sends heartbeats while its check
is good, and at the end lets it drain before it is removed.
"""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click

from dynbalance.ctl.api import Answer, Refused, Unreachable
from dynbalance.ctl.changes import given, settings
from dynbalance.ctl.session import Session, common_options

FAREWELL_POLL = 0.5
"""Seconds between two looks at the last drain."""


class Agent:
    """
    One server's agent.

    @param post: makes a request to the API.
    @param server: C{host} and C{port}.
    @param order: what it registers with.
    @param check: whether the server is well; says why not.
    @param say: a line for the log.
    """

    def __init__(
        self,
        post: Callable[..., Answer],
        server: dict[str, str],
        order: dict[str, str],
        check: Callable[[], str],
        say: Callable[[str], None],
    ) -> None:
        self._post = post
        self._server = server
        self._order = order
        self._check = check
        self._say = say
        self._said = ""

    def beat(self) -> float:
        """
        One heartbeat, or none while the check fails.

        @return: seconds that the daemon wants to be left alone at least.
        """
        why = self._check()
        if why:
            self._news(f"no heartbeat: {why}")
            return 0.0
        try:
            try:
                answer = self._post("refresh", **self._server)
            except Refused as refused:
                if refused.answer.status != 404:
                    raise
                answer = self._post("add", **self._server, **self._order)
                self._say(answer.message)
        except Refused as refused:
            self._news(f"refused: {refused}")
            return refused.answer.retry_after
        except Unreachable as error:
            self._news(str(error))
        else:
            self._news("heartbeats are taken")
        return 0.0

    def leave(self, seconds: float) -> bool:
        """
        Ask for a drain, and for the removal at its end.

        @return: whether the daemon has agreed.
        """
        try:
            answer = self._post(
                "toggle", **self._server, action="drain", then="remove", deadline=str(seconds)
            )
        except (Refused, Unreachable) as error:
            self._say(f"no farewell: {error}")
            return False
        self._say(answer.message)
        return True

    def _news(self, line: str) -> None:
        """The same line again says nothing."""
        if line != self._said:
            self._said = line
            self._say(line)


def http_check(url: str, timeout: float) -> Callable[[], str]:
    """
    @return: asks C{url} and says why its answer is not good: any status but
        200-399, or none in time.
    @raise ValueError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not http://… or https://…")
    kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host, port = parts.hostname, parts.port

    def check() -> str:
        connection = kind(host, port, timeout=timeout)
        try:
            connection.request("GET", target, headers={"Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"{url}: {error or type(error).__name__}"
        finally:
            connection.close()
        return "" if 200 <= status < 400 else f"{url}: status {status}"

    return check


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="The server's port.")
@click.option("--host", default="", help="Its address [default: this machine's].")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 86400),
    default=20.0,
    show_default=True,
    help="Seconds from one heartbeat to the next.",
)
@click.option("--check", metavar="URL", default="", help="Send heartbeats only while it is good.")
@click.option(
    "--check-timeout",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds for one check.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0, 86400),
    default=30.0,
    show_default=True,
    help="Seconds that the server may finish its work on SIGTERM; 0: leave it to its heartbeats.",
)
@settings
@common_options
def heartbeat(
    session: Session,
    port: int,
    host: str,
    interval: float,
    check: str,
    check_timeout: float,
    drain: float,
    **values: Any,
) -> None:
    """
    Keep a server registered: the agent that runs beside a backend.

    On SIGTERM or SIGINT the server drains and is removed; the agent ends when
    that is done, so stop the backend after it.
    """
    try:
        good = http_check(check, check_timeout) if check else lambda: ""
    except ValueError as error:
        raise click.UsageError(f"--check: {error}") from None
    server = {"host": host, "port": str(port)}
    agent = Agent(session.post, server, given(values), good, _log)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    _log(f"heartbeats for {host}:{port} every {interval:g} s to {session.api.url}")
    next_beat = time.monotonic()
    while not ended.wait(max(0.0, next_beat - time.monotonic())):
        # From one to the next, whatever a beat takes; those missed are missed.
        next_beat = max(next_beat + interval, time.monotonic())
        next_beat = max(next_beat, time.monotonic() + agent.beat())
    if drain and agent.leave(drain):
        _wait_for_the_end(session, server, drain)


def _wait_for_the_end(session: Session, server: dict[str, str], bound: float) -> None:
    """Until the daemon has removed it, or the drain's time is up."""
    for _ in range(int(bound / FAREWELL_POLL) + 2):
        try:
            # A heartbeat: the drain must not end for want of one.
            session.post("refresh", **server)
        except Refused as refused:
            if refused.answer.status == 404:
                _log("drained and removed")
                return
        except Unreachable:
            pass
        time.sleep(FAREWELL_POLL)
    _log("the drain was not over in time")


def _log(line: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


COMMANDS = (heartbeat,)
