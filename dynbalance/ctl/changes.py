"""
Commands that change servers: C{add} to C{reset}.
"""

from __future__ import annotations

from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dynbalance.ctl.session import Session, common_options, server_address

POLL = 0.5
"""Seconds between two looks at a drain."""

SERVER = click.argument("server", metavar="HOST:PORT", callback=server_address)
SETTINGS = (
    click.option("--weight", type=int, help="Share of the work."),
    click.option("--max-conns", type=int, help="Connections over all nodes; 0 for no limit."),
    click.option("--max-fails", type=int, help="Failures that take it out; 0 for never."),
    click.option("--fail-timeout", type=float, help="Seconds that failures count."),
    click.option("--slow-start", type=float, help="Seconds in which it reaches its weight."),
    click.option("--backup/--no-backup", default=None, help="Serve only when no other can."),
    click.option("--heartbeat/--no-heartbeat", default=None, help="Must it send heartbeats?"),
)


def settings(function: Any) -> Any:
    """The options of a server, as C{add} and C{update} take them."""
    for option in reversed(SETTINGS):
        function = option(function)
    return function


def given(values: dict[str, Any]) -> dict[str, str]:
    """Those that were given, as the API spells them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


@click.command()
@SERVER
@settings
@common_options
def add(session: Session, server: dict[str, str], **values: Any) -> None:
    """Register a server."""
    session.say(session.post("add", **server, **given(values)))


@click.command()
@SERVER
@settings
@common_options
def update(session: Session, server: dict[str, str], **values: Any) -> None:
    """Change what is given of a server, and nothing else."""
    fields = given(values)
    if not fields:
        raise click.UsageError("nothing to change: give --weight, --max-conns, …")
    session.say(session.post("update", **server, **fields))


@click.command()
@SERVER
@click.option("--drain", type=float, help="Let it finish its work first, for so many seconds.")
@common_options
def remove(session: Session, server: dict[str, str], drain: float | None) -> None:
    """Remove a server. Connections that run are not cut."""
    session.say(session.post("remove", **server, **given({"drain": drain})))


@click.command()
@SERVER
@common_options
def enable(session: Session, server: dict[str, str]) -> None:
    """Let a server serve again; it ends a drain, too."""
    session.say(session.post("toggle", **server, action="enable"))


@click.command()
@SERVER
@common_options
def disable(session: Session, server: dict[str, str]) -> None:
    """Take a server out, whatever its heartbeats say."""
    session.say(session.post("toggle", **server, action="disable"))


@click.command()
@SERVER
@click.option("--deadline", type=float, help="Seconds after which the drain is over in any case.")
@click.option("--then", type=click.Choice(["disable", "remove"]), help="What comes after it.")
@click.option("--wait", is_flag=True, help="Wait until nothing runs to it any more.")
@click.option(
    "--wait-timeout",
    type=click.FloatRange(0.1),
    default=3600.0,
    show_default=True,
    help="Seconds that --wait waits; exit status 1 if connections are left then.",
)
@common_options
def drain(
    session: Session,
    server: dict[str, str],
    deadline: float | None,
    then: str | None,
    wait: bool,
    wait_timeout: float,
) -> None:
    """Give a server nothing new; what runs finishes."""
    fields = given({"deadline": deadline, "then": then})
    answer = session.post("toggle", **server, action="drain", **fields)
    session.say(answer)
    if wait and not _drained(session, answer.data["addr"], wait_timeout):
        raise click.exceptions.Exit(1)


def _drained(session: Session, addr: str, timeout: float) -> bool:
    """@return: whether it was over in time."""
    columns = (TextColumn("draining"), BarColumn(), TextColumn("{task.fields[left]} left"))
    shown = session.out.is_terminal and not session.json
    with Progress(
        *columns, TimeElapsedColumn(), console=session.out, disable=not shown
    ) as progress:
        task = progress.add_task("", total=None, left="?")
        most = 0
        for _ in range(max(1, int(timeout / POLL))):
            left = _running(session, addr)
            if left == 0:
                progress.update(task, total=1, completed=1, left=0)
                return True
            most = max(most, left)
            progress.update(task, total=most, completed=most - left, left=left)
            session.sleep(POLL)
    click.echo(f"dynbalancectl: {left} connections are left", err=True)
    return False


def _running(session: Session, addr: str) -> int:
    """Connections to a server that drains; 0 when its drain is over, too."""
    for server in session.get("status").data:
        if server["addr"] == addr and server["state"] == "draining":
            return int(server["connections"])
    return 0


@click.command()
@SERVER
@common_options
def refresh(session: Session, server: dict[str, str]) -> None:
    """Send one heartbeat in a server's name."""
    session.say(session.post("refresh", **server))


@click.command()
@common_options
def cleanup(session: Session) -> None:
    """Take out at once the servers whose heartbeats have stopped."""
    session.say(session.post("cleanup"))


@click.command()
@common_options
def reset(session: Session) -> None:
    """Set the published counts to what the nodes really hold."""
    session.say(session.post("reset"))


COMMANDS = (add, update, remove, enable, disable, drain, refresh, cleanup, reset)
