"""
Commands that change nothing: C{status}, C{health}, C{explain}, C{history}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dynbalance.ctl.api import Refused, Unreachable
from dynbalance.ctl.session import Session, common_options

_STYLES = {
    "up": "green",
    "full": "yellow",
    "draining": "yellow",
    "failed": "red",
    "unhealthy": "red",
    "expired": "red",
    "disabled": "dim",
    "down": "dim",
}


@click.command()
@common_options
@click.option("-w", "--watch", is_flag=True, help="Show it anew until interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks with --watch.",
)
@click.option("--times", type=click.IntRange(0), default=0, help="End --watch after so many looks.")
def status(session: Session, watch: bool, interval: float, times: int) -> None:
    """Show the servers: state, connections over all nodes, weight, heartbeat."""
    if not watch:
        with _last_known(session, servers_table):
            answer = session.get("status")
            if session.json:
                click.echo(answer.text)
            else:
                session.out.print(servers_table(answer.data))
    elif session.json or not session.out.is_terminal:
        _repeat(session, interval, times)
    else:
        with Live(console=session.out, screen=True, auto_refresh=False) as live:
            _looks(session, interval, times, lambda view: live.update(view, refresh=True))


@contextmanager
def _last_known(
    session: Session, view: Callable[[Any], RenderableType]
) -> Iterator[None]:
    """With its store away the daemon refuses, but tells what it knew last."""
    try:
        yield
    except Refused as refused:
        if refused.answer.data and not session.json:
            session.out.print(view(refused.answer.data))
        raise


def _repeat(session: Session, interval: float, times: int) -> None:
    """For files and pipes: one look after the other."""
    if not session.json:
        _looks(session, interval, times, session.out.print)
        return
    for look in _counted(times):
        if look:
            session.sleep(interval)
        click.echo(session.get("status").text)


def _looks(
    session: Session, interval: float, times: int, show: Callable[[RenderableType], None]
) -> None:
    for look in _counted(times):
        if look:
            session.sleep(interval)
        try:
            view: RenderableType = servers_table(session.get("status").data)
        except (Refused, Unreachable) as error:
            # A watch goes on: the daemon or its store may be restarting.
            view = Text(str(error), style="red")
        moment = Text(f"{session.upstream}, {time.strftime('%H:%M:%S')}", style="bold")
        show(Group(moment, view))


def _counted(times: int) -> range:
    return range(times or 2**63)


def servers_table(servers: list[dict[str, Any]]) -> RenderableType:
    """
    @param servers: the C{data} of C{/upstream/status}.
    """
    if not servers:
        return Text("no servers")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SERVER", "STATE"):
        table.add_column(title, no_wrap=True)
    for title in ("CONNS", "MAX", "HERE", "WEIGHT", "HEARTBEAT"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("SOURCE", "WHY"):
        table.add_column(title)
    for server in servers:
        state = server.get("state", "")
        table.add_row(
            Text(server["addr"]),
            Text(state, style=_STYLES.get(state, "")),
            str(server["connections"]),
            str(server["max_conns"] or "-"),
            str(server.get("node_connections", "")),
            str(server["weight"]) + (" backup" if server.get("backup") else ""),
            _age(server),
            server.get("source", ""),
            Text(server.get("why") or server.get("disabled_reason") or ""),
        )
    return table


def _age(server: dict[str, Any]) -> str:
    age = server.get("time_since_heartbeat")
    return "-" if age is None or not server.get("heartbeat", True) else f"{age:.0f} s ago"


@click.command()
@common_options
def health(session: Session) -> None:
    """Say how many servers serve; exit status 1 while none does."""
    with _last_known(session, _health_line):
        answer = session.get("health")
    verdict = answer.whole["status"]
    if session.json:
        click.echo(answer.text)
    else:
        session.out.print(f"{verdict}: {_health_line(answer.data)}")
    if verdict != "healthy":
        raise click.exceptions.Exit(1)


def _health_line(figures: dict[str, Any]) -> str:
    line = (
        f"{figures['active_servers']} of {figures['total_servers']} servers active,"
        f" {figures['enabled_servers']} enabled; store {figures['store']}"
    )
    return f"{line}, stale for {figures['stale_for']} s" if figures["stale_for"] else line


@click.command()
@common_options
@click.option("--uri", default="/", show_default=True, help="Path and query of the request.")
@click.option("--client", default="", help="The client's address [default: yours].")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A field; repeatable."
)
def explain(session: Session, uri: str, client: str, headers: tuple[str, ...]) -> None:
    """Say which server a request would get, and why not the others."""
    asked = {"uri": uri, "client": client, "header": headers}
    answer = session.get("explain", **{name: value for name, value in asked.items() if value})
    if session.json:
        click.echo(answer.text)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SERVER", "STATE", "CHANCE", "SCORE", "WHY"):
        table.add_column(title)
    for server in answer.data["servers"]:
        table.add_row(
            Text(server["addr"]),
            Text(server["state"], style=_STYLES.get(server["state"], "")),
            f"{server['chance']:.0%}",
            f"{server['score']:g}" if "score" in server else "",
            Text(server.get("why", "")),
        )
    session.out.print(Text(answer.message))
    session.out.print(table)


@click.command()
@common_options
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--address", default="", metavar="HOST:PORT", help="Of one server only.")
def history(session: Session, limit: int, address: str) -> None:
    """Show who changed what, the newest last."""
    fields = {"address": address} if address else {}
    answer = session.get("history", limit=str(limit), **fields)
    if session.json:
        click.echo(answer.text)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("REVISION", "TIME", "BY", "WHAT", "SERVER", "CHANGE"):
        table.add_column(title)
    for line in reversed(answer.data):
        table.add_row(
            str(line["revision"]),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["time"])),
            Text(line["by"]),
            line["action"],
            Text(line["address"]),
            Text(_change(line.get("before"), line.get("after"))),
        )
    session.out.print(table)


def _change(before: Any, after: Any) -> str:
    """What differs between two records of a server."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)} → {after.get(name)}" for name in names)


COMMANDS = (status, health, explain, history)
