"""
The reference, written from the code: options, endpoints, metrics, commands.

Knows the classes of the configuration, the texts of C{etc/dynbalance.toml}, the
table of the admin API, the collector of the metrics and both command lines, and
gives reStructuredText.  Refuses to know Sphinx (C{conf.py} calls it) and to
repeat what any of those says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from textwrap import indent
from typing import Any, get_args, get_origin, get_type_hints
from unittest.mock import MagicMock

import attrs
import click
from twisted.internet.task import Clock

from dynbalance.admin.measured import Measured
from dynbalance.admin.metrics import BalancerCollector
from dynbalance.admin.openapi import document, with_description
from dynbalance.admin.pages import Pages
from dynbalance.admin.table import UpstreamApi
from dynbalance.balancer.address import Address
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.roll import FileServer
from dynbalance.config import Config, StoreUrl
from dynbalance.config.ranges import YEAR, Choice, Range
from dynbalance.ctl.program import program
from dynbalance.inventory import Inventory
from dynbalance.lag import Lag
from dynbalance.options import Options
from dynbalance.store.contract import ServerOrder
from dynbalance.store.membership import Membership

EXAMPLE = Path(__file__).parents[1] / "etc" / "dynbalance.toml"
NOT_OF_THE_FILE = ("state_dir", "demo")
SHOWN_AS = {"upstreams.default": "upstreams.NAME"}
"""Tables of the example that stand for any of their kind."""

_TYPES = {bool: "true or false", int: "integer", float: "number", tuple: "array"}
_LITERAL = re.compile(
    r"""(
        \b[\w.]+[ ]=[ ](?:"[^"\n]*"|\w+)     # name = value
        | "[^"\n]*" | \$\w+ | \[\[?[\w.]+\]\]? | \{\} | \[\] | --[\w-]+
        | \b[\w.]*\w_\w+\*?                  # a_name
        | \b[a-z]+:[^\s;,\]]*[\w/]           # tcp:80
    )""",
    re.VERBOSE,
)


@attrs.frozen
class Option:
    """
    @ivar table: as the example names it; empty for the root.
    @ivar name: within the table, such as C{sticky.cookie}.
    @ivar default: as TOML has it; C{attrs.NOTHING} for none.
    @ivar range: what a number or a text may be; empty where the type says it.
    """

    table: str
    name: str
    type: str
    default: Any
    range: str

    @property
    def full(self) -> str:
        table = SHOWN_AS.get(self.table, self.table)
        return f"{table}.{self.name}" if table else self.name


def inner_class(type_: Any) -> Any:
    """The class of a table, of an array's members or of a mapping's values."""
    if attrs.has(type_) and type_ not in (Address, StoreUrl):
        return type_
    for each in get_args(type_):
        found = inner_class(each)
        if found is not None:
            return found
    return None


def options(cls: Any = Config, table: str = "", prefix: str = "") -> Iterator[Option]:
    """All options, in the order of their classes."""
    hints = get_type_hints(cls)
    for each in attrs.fields(cls):
        hint = hints[each.name]
        inner = inner_class(hint)
        if cls is Config and each.name in NOT_OF_THE_FILE:
            continue
        if cls is Config and inner:
            named = "upstreams.default" if each.name == "upstreams" else each.name
            yield from options(inner, named)
            continue
        yield Option(table, prefix + each.name, _type(hint), _default(each), _range(each))
        if inner:
            many = "[]" if get_origin(hint) is tuple else ""
            yield from options(inner, table, f"{prefix}{each.name}{many}.")


def _type(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is tuple:
        return "array of tables" if inner_class(hint) else "array"
    if inner_class(hint) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "table"
    return _TYPES.get(hint, "string")


def _default(attribute: attrs.Attribute[Any]) -> Any:
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    if default is None:
        return {}
    if isinstance(default, tuple):
        return list(default)
    return str(default) if isinstance(default, (StoreUrl, Address, IPv4Network)) else default


def _range(attribute: attrs.Attribute[Any]) -> str:
    found = next(_checks(attribute.validator), None)
    if isinstance(found, Range):
        shown = f"{found.least:g}" if found.most == YEAR else str(found).replace("-", " to ")
        return f"From {shown} {found.unit}".rstrip() + "."
    if isinstance(found, Choice):
        return "One of " + ", ".join(f"``{toml(choice)}``" for choice in found.choices) + "."
    return ""


def _checks(validator: Any) -> Iterator[Range | Choice]:
    """Also those inside of lists, and of what is for each member."""
    if isinstance(validator, (Range, Choice)):
        yield validator
    for name in ("_validators", "member_validator"):
        inner = getattr(validator, name, ())
        for each in inner if isinstance(inner, Sequence) else (inner,):
            yield from _checks(each)


def toml(value: Any) -> str:
    """A value as the file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return "{}" if isinstance(value, Mapping) else str(value)


def said_of_options(text: str) -> dict[tuple[str, str], list[str]]:
    """Table and option -> the lines that the example has of it."""
    table, said = "", {}
    above: list[str] = []
    inside: list[str] = []
    for line in text.splitlines():
        if header := re.fullmatch(r"\[+([\w.]+)\]+", line):
            table, above = header[1], []
        elif option := re.match(r"#?(\w+) = ", line):
            said[table, option[1]], above = above, []
        elif option := re.match(r"#   ([\w.\[\]]+) = (?:\"[^\"]*\"|[^#\"])*(?:# (.*))?", line):
            inside = [option[2]] if option[2] else []
            said[table, option[1]] = inside
        elif more := re.match(r"# {10,}# (.*)", line):
            inside.append(more[1])
        elif line.startswith("#"):
            above.append(line[2:])
        else:
            above = []
    return said


def said_of_table(text: str, table: str) -> list[str]:
    """The lines above a table's header; those at the top of the file for the root."""
    if not table:
        return [line[2:] for line in text.partition("\n\n")[0].splitlines()]
    above: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(rf"\[+{re.escape(table)}\]+", line):
            return above
        above = [*above, line[2:]] if line.startswith("# ") else []
    raise LookupError(table)


def prose(lines: Sequence[str]) -> str:
    """Plain lines as reStructuredText: columns stay columns, names become literals."""
    if any(re.search(r"\S {3}", line) for line in lines):
        return "::\n\n" + indent("\n".join(lines), "    ")
    parts = _LITERAL.split("\n".join(lines))
    return "".join(
        f"``{part.rstrip()}``" if index % 2 else re.sub(r"([\\*`|_])", r"\\\1", part)
        for index, part in enumerate(parts)
    )


def all_options() -> str:
    """The whole file, for a page that nobody links into."""
    tables = dict.fromkeys(option.table for option in options())
    return "\n\n".join(
        (f".. rubric:: [{SHOWN_AS.get(table, table)}]\n\n" if table else "")
        + option_pages(table, index=False)
        for table in tables
    )


def option_pages(table: str, index: bool = True) -> str:
    """
    One table of the file.

    @param table: as the example names it.
    @param index: whether others may link to its options.
    """
    text = EXAMPLE.read_text(encoding="utf-8")
    said = said_of_options(text)
    blocks = [] if not table else [prose(said_of_table(text, table))]
    for option in options():
        if option.table != table:
            continue
        body = [prose(said[table, option.name]), *filter(None, [option.range])]
        if option.default is attrs.NOTHING:
            default, kind = "", "has to be given"
        else:
            default = f"\n   :default: ``{toml(option.default)}``"
            kind = f"default ``{toml(option.default)}``"
        if index:
            head = f".. confval:: {option.full}\n   :type: {option.type}{default}"
            if not default:
                body.append("Has to be given.")
        else:
            head = f".. object:: {option.full}"
            body.append(f"({option.type}; {kind})")
        blocks.append(head + "\n\n" + indent("\n\n".join(body), "   "))
    return "\n\n".join(blocks)


def endpoint_pages() -> str:
    """All endpoints with their parameters and answers."""
    # Nothing is asked: the table only names who would answer.
    nobody = MagicMock()
    table = with_description(
        (*UpstreamApi(nobody, nobody).endpoints, *Pages(nobody, nobody).endpoints())
    )
    blocks = []
    paths: Any = document(table)["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            blocks.append(_endpoint(f"{method.upper()} {path}", operation))
    return "\n\n".join(blocks)


def _endpoint(title: str, operation: Any) -> str:
    lines = [f".. object:: {title}", "", f"   {operation['summary']}.  {operation['description']}"]
    for name, needed, about, schema in _parameters(operation):
        said = _schema(schema)
        lines += ["", f"   ``{name}``{' (required)' if needed else ''}", f"      {about}{said}"]
    answers = ", ".join(f"``{code}``" for code in operation["responses"])
    lines += ["", f"   Answers: {answers}"]
    return "\n".join(lines)


def _parameters(operation: Any) -> Iterator[tuple[str, bool, str, Any]]:
    for each in operation.get("parameters", ()):
        yield each["name"], each.get("required", False), each["description"], each["schema"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        for name, each in schema["properties"].items():
            yield name, name in schema["required"], each["description"], each
        return


def _schema(schema: Any) -> str:
    said = []
    if "enum" in schema:
        said.append(" or ".join(f"``{word}``" for word in schema["enum"] if word))
    if "minimum" in schema and "maximum" in schema:
        said.append(f"{schema['minimum']}-{schema['maximum']}")
    if schema.get("default") not in (None, ""):
        said.append(f"default ``{toml(schema['default'])}``")
    return f" ({'; '.join(said)})" if said else ""


def metric_pages() -> str:
    """All metrics of the daemon itself, as one tells them that has one of everything."""
    clock, address = Clock(), "127.0.0.1:80"
    server = FileServer(order=ServerOrder(address=address, host="127.0.0.1", port=80))
    options = UpstreamOptions(strict=True)
    order = UpstreamOrder(name="default", servers=(server,), options=options)
    balancer = Balancer([order], clock.seconds, lambda: 0.0)
    membership = Membership(balancer, MagicMock(), "one", 10.0, 0.1, clock)
    door = MagicMock(kind="http", listen="tcp:80", waiting=0, listener=MagicMock(active=0))
    inventory = Inventory(MagicMock(), MagicMock())
    inventory.detailed = True
    collector = BalancerCollector(
        Measured(
            balancer=balancer,
            membership=membership,
            doors=lambda: [door],
            lag=Lag(clock),
            inventory=inventory,
        )
    )
    blocks = []
    for metric in collector.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(f"``{label}``" for label in getattr(metric, "_labelnames", ()) or ())
        by = f", by {labels}" if labels else ""
        said = re.sub(r"([\\*`|])", r"\\\1", metric.documentation)
        blocks.append(f".. object:: {name}\n\n   {said}  ({metric.type}{by})")
    return "\n\n".join(blocks)


def daemon_options() -> str:
    """The command line of C{twistd dynbalance}."""
    blocks = []
    for name, method in vars(Options).items():
        if not name.startswith("opt_") or len(name) < 7 or not method.__doc__:
            continue
        arguments = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        shown = f"--{name[4:].replace('_', '-')}"
        if arguments:
            shown += f" {arguments[0].upper()}"
        blocks.append(f".. option:: {shown}\n\n   {prose([method.__doc__.strip()])}.")
    return "\n\n".join(blocks)


def command_pages() -> str:
    """Each command of C{dynbalancectl} with its options."""
    blocks = [_options_of(program, "dynbalancectl")]
    for name, command in sorted(program.commands.items()):
        context = click.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context)[1:])
        blocks += [
            f"``{name}``" + (f" ``{usage}``" if usage else ""),
            indent(prose([(command.help or "").strip().replace("\n", " ")]), "   "),
            indent(_options_of(command, f"dynbalancectl {name}"), "   "),
        ]
    return "\n\n".join(blocks)


def _options_of(command: click.Command, name: str) -> str:
    blocks = [f".. program:: {name}"]
    for parameter in command.params:
        record = parameter.get_help_record(click.Context(command))
        if record is not None and isinstance(parameter, click.Option):
            usage, text = record
            blocks.append(f".. option:: {usage.replace(' / ', ', ')}\n\n   {prose([text])}")
    return "\n\n".join(blocks)
