"""
Commands that need no daemon: C{check-config}, C{hash-password}, C{token},
C{completion}.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from dynbalance.ctl.session import REFUSED
from dynbalance.errors import ConfigError
from dynbalance.hashes import hash_password as password_hash
from dynbalance.hashes import hash_token, new_token
from dynbalance.options import Options, load


@click.command("check-config")
@click.argument("file", type=click.Path())
def check_config(file: str) -> None:
    """Judge a configuration file as the daemon would, each mistake a line."""
    options = Options()
    options.config = file
    try:
        load(options, os.environ, lambda path: Path(path).read_bytes())
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"dynbalancectl: {problem}", err=True)
        raise click.exceptions.Exit(REFUSED) from None
    click.echo(f"{file}: the configuration is good")


@click.command("hash-password")
def hash_password() -> None:
    """
    Read a password and print its hash, for admin.users.

    From standard input up to the end of the line; a terminal is asked twice and
    shows nothing.
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("the password is empty")
    click.echo(password_hash(password))


@click.command()
def token() -> None:
    """Print a new token and, on the next line, its hash for admin.tokens."""
    secret = new_token(os.urandom)
    click.echo(secret)
    click.echo(hash_token(secret))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    click.echo(kind(program, {}, "dynbalancectl", "_DYNBALANCECTL_COMPLETE").source())


COMMANDS = (check_config, hash_password, token, completion)
