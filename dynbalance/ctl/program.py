"""
C{dynbalancectl}: the commands under one name.
"""

from __future__ import annotations

import click

from dynbalance import __version__
from dynbalance.ctl import agent, backups, changes, local, looking
from dynbalance.ctl.api import Access
from dynbalance.ctl.session import Program, Session

DEFAULT_URL = "http://127.0.0.1:8081"


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit status: 0 done; 1 refused by the daemon, or the answer is no; 2 wrong usage; "
        "3 the daemon cannot be reached. Shell completion: "
        'eval "$(dynbalancectl completion bash)", likewise zsh and fish.'
    ),
)
@click.option(
    "--url",
    envvar="DYNBALANCE_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="Where the daemon's admin listener is.",
)
@click.option(
    "--user",
    envvar="DYNBALANCE_USER",
    default="",
    metavar="NAME:PASSWORD",
    show_envvar=True,
    help="Who asks, by HTTP Basic.",
)
@click.option(
    "--token",
    envvar="DYNBALANCE_TOKEN",
    default="",
    show_envvar=True,
    help="Who asks, by a bearer token.",
)
@click.option(
    "--ca",
    envvar="DYNBALANCE_CA",
    default="",
    metavar="FILE",
    show_envvar=True,
    help="Certificates that an https:// daemon is checked against [default: the system's].",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds that the daemon may be silent.",
)
@click.option("-u", "--upstream", default="", help="Whose servers [default: default].")
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answers as they came.")
@click.version_option(__version__, "--version", message="dynbalancectl %(version)s")
@click.pass_context
def program(
    context: click.Context,
    url: str,
    user: str,
    token: str,
    ca: str,
    timeout: float,
    upstream: str,
    as_json: bool,
) -> None:
    """
    Look at and change the servers of a running dynbalance.

    Servers are HOST:PORT; :PORT means this machine as the daemon sees it.
    """
    if user and token:
        raise click.UsageError("give either --user or --token")
    access = Access(url=url, user=user, token=token, ca=ca, timeout=timeout)
    context.obj = Session(access, upstream, as_json)


for module in (looking, changes, backups, agent, local):
    for command in module.COMMANDS:
        program.add_command(command)


def main() -> None:
    """The console script."""
    program(prog_name="dynbalancectl")
