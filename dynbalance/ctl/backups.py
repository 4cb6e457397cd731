"""
Commands about whole upstreams: C{export}, C{import}, C{rollback}, C{init}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dynbalance.configfile import read_toml
from dynbalance.ctl.api import Answer
from dynbalance.ctl.session import Session, common_options
from dynbalance.errors import ConfigError


@click.command("export")
@click.option("-o", "--output", type=click.Path(), default="-", help="A file [default: stdout].")
@click.option("--all", "everything", is_flag=True, help="Of all upstreams.")
@common_options
def export_(session: Session, output: str, everything: bool) -> None:
    """Write an upstream's servers as one JSON document, for import."""
    answer = session.get("export", **({"all": "1"} if everything else {}))
    text = answer.text if session.json else json.dumps(answer.data, indent=2, ensure_ascii=False)
    if output == "-":
        click.echo(text)
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{output}: {error.strerror}") from None


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@common_options
def import_(session: Session, file: Any, dry_run: bool) -> None:
    """
    Make the servers those of FILE (- for stdin), all or none.

    All upstreams of the document get the servers that it names and no others;
    with --upstream only that one.
    """
    try:
        document = json.load(file)
    except ValueError as error:
        raise click.UsageError(f"{file.name}: not JSON: {error}") from None
    session.say_changes(_import(session, document, session.named, dry_run))


@click.command()
@click.argument("revision", type=click.IntRange(0))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@common_options
def rollback(session: Session, revision: int, dry_run: bool) -> None:
    """Undo all changes that were made after REVISION (see history)."""
    fields = {"dry_run": "1"} if dry_run else {}
    session.say_changes(session.post("rollback", revision=str(revision), **fields))


@click.command()
@click.argument("file", type=click.Path())
@click.option("--force", is_flag=True, help="Replace the servers that are there.")
@common_options
def init(session: Session, file: str, force: bool) -> None:
    """
    Fill an upstream from a list of servers.

    FILE is TOML, [[servers]] with host, port, weight, max_conns, …, or JSON, the
    same tables in a list. An upstream that has servers already is left alone.
    """
    servers = _listed(file)
    name = session.upstream
    there = session.get("export").data["upstreams"][name]["servers"]
    if there and not force:
        click.echo(
            f"dynbalancectl: upstream {name} has {len(there)} servers already;"
            " --force replaces them",
            err=True,
        )
        raise click.exceptions.Exit(1)
    document = {"upstreams": {name: {"servers": servers}}}
    session.say_changes(_import(session, document, name, False))


def _import(session: Session, document: Any, only: str, dry_run: bool) -> Answer:
    asked: dict[str, Any] = {"data": document}
    if only:
        asked["upstream"] = only
    if dry_run:
        asked["dry_run"] = True
    return session.api.post_json("/upstream/import", asked)


def _listed(file: str) -> list[Mapping[str, Any]]:
    """
    @raise click.UsageError: saying what of the file is no list of servers.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        document = _parsed(text)
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file}: {error}") from None
    servers = document.get("servers") if isinstance(document, Mapping) else document
    if not isinstance(servers, list) or not all(isinstance(one, Mapping) for one in servers):
        raise click.UsageError(f"{file}: holds no list of servers")
    return servers


def _parsed(text: str) -> Any:
    """JSON or TOML: nothing but white space is both."""
    try:
        return json.loads(text)
    except ValueError as not_json:
        if text.lstrip().startswith("{"):
            raise ConfigError([f"not JSON: {not_json}"]) from None
        return read_toml(text)


COMMANDS = (export_, import_, rollback, init)
