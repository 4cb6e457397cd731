"""
What all commands share: whom they talk to, how they print, how they end.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from dynbalance.balancer.address import Address
from dynbalance.config import DEFAULT_UPSTREAM
from dynbalance.ctl.api import Access, Answer, Api, Refused, Unreachable
from dynbalance.errors import BadAddress

REFUSED = 1
UNREACHABLE = 3
UNBROKEN = 10_000
"""Columns that no table needs."""

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """
    @ivar named: the upstream that was named; empty for none.
    @ivar upstream: whose servers are meant.
    @ivar json: print what the daemon answered and nothing else.
    @ivar out: for people.
    """

    def __init__(self, access: Access, named: str, json: bool) -> None:
        self._access = access
        self.named = named
        self.json = json
        # Who reads a file or a pipe wants whole lines, and no 80 columns.
        whole = not sys.stdout.isatty()
        self.out = Console(highlight=False, soft_wrap=whole, width=UNBROKEN if whole else None)
        self.sleep = time.sleep

    @property
    def upstream(self) -> str:
        return self.named or DEFAULT_UPSTREAM

    @functools.cached_property
    def api(self) -> Api:
        """@raise click.UsageError: there is no such URL."""
        try:
            return Api(self._access)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def get(self, path: str, **fields: str | Sequence[str]) -> Answer:
        return self.api.get(f"/upstream/{path}", upstream=self.upstream, **fields)

    def post(self, path: str, **fields: str) -> Answer:
        return self.api.post(f"/upstream/{path}", upstream=self.upstream, **fields)

    def say(self, answer: Answer) -> None:
        """Print an answer that has nothing to show but its message."""
        click.echo(answer.text if self.json else answer.message)

    def say_changes(self, answer: Answer) -> None:
        """Print which servers an order has added, removed and changed."""
        self.say(answer)
        if self.json:
            return
        for name, upstream in answer.data.get("upstreams", {self.upstream: answer.data}).items():
            for sign, what in (("+", "added"), ("-", "removed"), ("~", "changed")):
                for address in upstream[what]:
                    click.echo(f"{sign} {name} {address}")


def server_address(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, str]:
    """
    C{HOST:PORT}; C{:PORT} for this machine as the daemon sees it.

    @return: C{host} and C{port} as the API wants them.
    """
    host, _, port = text.rpartition(":")
    if not host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535:
        return {"host": "", "port": port}
    try:
        address = Address.parse(text)
    except BadAddress as error:
        raise click.BadParameter(str(error)) from None
    return {"host": address.host, "port": str(address.port)}


def common_options(function: F) -> F:
    """C{--upstream} and C{--json}, which may stand before or behind a command's name."""

    @click.option("-u", "--upstream", default=None, help="Name of the upstream [default: default].")
    @click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as it came.")
    @click.pass_obj
    @functools.wraps(function)
    def run(
        session: Session, /, *args: Any, upstream: str | None, as_json: bool, **kwargs: Any
    ) -> Any:
        session.named = upstream or session.named
        session.json = session.json or as_json
        return function(session, *args, **kwargs)

    return run  # type: ignore[return-value]


class Program(click.Group):
    """Turns the ways in which a command can fail into exit statuses."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except Refused as refused:
            if isinstance(context.obj, Session) and context.obj.json:
                click.echo(refused.answer.text)
            click.echo(f"dynbalancectl: {refused}", err=True)
            context.exit(REFUSED)
        except Unreachable as error:
            click.echo(f"dynbalancectl: {error}", err=True)
            context.exit(UNREACHABLE)
