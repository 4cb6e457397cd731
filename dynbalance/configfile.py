"""
The configuration file: TOML text -> L{Config}, or everything that is wrong
with it at once.

Knows TOML's types and how to say where a mistake is; refuses to open files,
and to know what the options are (L{dynbalance.config}).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from dynbalance.balancer.address import Address
from dynbalance.config import Config, Network, OptionError, StoreUrl, UpstreamName
from dynbalance.config.ranges import NAME
from dynbalance.config.rules import Path, Problem, broken_rules, shown
from dynbalance.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Document = dict[str, object]
"""A parsed file: TOML's tables, arrays and plain values."""

_CONTAINERS: Mapping[Any, tuple[str, type]] = {
    tuple: ("an array", list),
    Mapping: ("a table", dict),
}
"""What cattrs would make of anything that can be iterated over, a string too."""

_UPSTREAMS = attrs.fields_dict(Config)["upstreams"]
_NOT_OF_THE_FILE = ("state_dir", "demo")


def parse(text: str) -> Config:
    """
    @raise ConfigError: with all that is wrong.
    """
    return build(read_toml(text))


def read_toml(text: str) -> Document:
    """
    @raise ConfigError: naming the line where the text is not TOML.
    """
    try:
        document: Document = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(["arrays are nested too deeply"]) from None
    except ValueError as error:
        # Also what int() says of a number with thousands of digits.
        found = re.fullmatch(r"(.*) \(at (.*)\)", str(error), re.DOTALL)
        said = f"{found[2]}: {found[1]}" if found else str(error)
        raise ConfigError([said]) from None
    return document


def build(document: Document) -> Config:
    """
    @param document: as L{read_toml} gives it.  If it names no listener of
        traffic it gets the default ones.
    @raise ConfigError: with all that is wrong.
    """
    document = _with_listeners(document)
    problems: list[Problem] = []
    config = None
    try:
        config = _converter.structure(document, Config)
    except BaseValidationError as error:
        problems.extend(_problems(error, ()))
    at_fault = {path for path, _ in problems}
    for path, text in broken_rules(document):
        if path not in at_fault:
            problems.append((path, text))
    if config is None or problems:
        raise ConfigError([f"{shown(path)}: {text}" for path, text in problems])
    return config


def document_of(config: Config) -> Document:
    """
    The reverse of L{build}, in values that JSON has.  What is not of the file
    is left out.
    """
    document = _written(_converter.unstructure(config))
    assert isinstance(document, dict)
    return {name: value for name, value in document.items() if name not in _NOT_OF_THE_FILE}


def _written(value: object) -> object:
    """Without the tables that are not there."""
    if isinstance(value, dict):
        return {name: _written(each) for name, each in value.items() if each is not None}
    return [_written(each) for each in value] if isinstance(value, (list, tuple)) else value


def _with_listeners(document: Document) -> Document:
    """Who names one listener wants no others; who names none wants the defaults."""
    if document.get("http") or document.get("stream"):
        return {"http": [], "stream": [], **document}
    return {**document, "http": [{}], "stream": [{}]}


def _problems(error: BaseValidationError, path: Path) -> Iterator[Problem]:
    for cause in error.exceptions:
        at = (*path, *_step(cause))
        if isinstance(cause, BaseValidationError):
            yield from _problems(cause, at)
        elif isinstance(cause, ForbiddenExtraKeysError):
            for name in sorted(cause.extra_fields):
                yield (*at, name), _unknown(name, cause.cl)
        elif isinstance(cause, OptionError):
            yield (*at, cause.option), str(cause)
        elif isinstance(cause, KeyError):
            yield at, "is missing"
        else:
            yield at, str(cause)


def _step(cause: Exception) -> Path:
    """Where cattrs says that the failure lies, relative to its table."""
    for note in getattr(cause, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _unknown(name: str, cls: type) -> str:
    known = [each.name for each in attrs.fields(cls) if each.name not in _NOT_OF_THE_FILE]
    near = difflib.get_close_matches(name, known, n=1)
    return "unknown option" + (f'; did you mean "{near[0]}"?' if near else "")


def _got(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{ascii(value)[1:-1]}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value)


def _expect(wanted: str, value: object, *types: type) -> None:
    # A bool is an int to Python but not to TOML.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"expected {wanted}, got {_got(value)}")


def _integer(value: Any, _: object) -> int:
    _expect("an integer", value, int)
    return int(value)


def _number(value: Any, _: object) -> float:
    _expect("a number", value, int, float)
    try:
        return float(value)
    except OverflowError:
        raise ValueError("the number is too large") from None


def _truth(value: Any, _: object) -> bool:
    _expect("true or false", value, bool)
    return bool(value)


def _text(value: Any, _: object) -> str:
    _expect("a string", value, str)
    return str(value)


def _parsed(parse: Callable[[str], Any]) -> Callable[[Any, object], Any]:
    return lambda value, _: parse(_text(value, _))


def _optional_table(type_: Any) -> bool:
    return get_origin(type_) in (UnionType, Union) and type(None) in get_args(type_)


def _upstream_name(text: str) -> str:
    NAME(None, _UPSTREAMS, text)
    return text


def _is_table(type_: Any) -> bool:
    return attrs.has(type_) and type_ not in (Address, StoreUrl)


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=True)

    def checked(attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
        """
        Structure one option and check it at once: the class would stop at its
        first mistake.
        """

        def structure(value: Any, type_: Any) -> Any:
            if get_origin(type_) in _CONTAINERS:
                wanted, kind = _CONTAINERS[get_origin(type_)]
                _expect(wanted, value, kind)
            result = converter.structure(value, type_)
            made = attribute.converter(result) if callable(attribute.converter) else result
            if attribute.validator:
                attribute.validator(None, attribute, made)
            return result

        return structure

    def table(cls: Any) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(cls)
        overrides: dict[str, Any] = {
            each.name: override(omit=True)
            if each.name in _NOT_OF_THE_FILE
            else override(struct_hook=checked(each))
            for each in attrs.fields(cls)
        }
        structure = make_dict_structure_fn(
            cls,
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=True,
            **overrides,
        )

        def expect_table(value: Any, type_: Any) -> Any:
            _expect("a table", value, dict)
            return structure(value, type_)

        return expect_table

    def optional(type_: Any) -> Callable[[Any, Any], Any]:
        """An empty table is none."""
        (cls,) = (each for each in get_args(type_) if each is not type(None))
        return lambda value, _: None if value == {} else converter.structure(value, cls)

    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Address, _parsed(Address.parse))
    converter.register_structure_hook(StoreUrl, _parsed(StoreUrl.parse))
    converter.register_structure_hook_func(
        lambda type_: type_ == Network, _parsed(ipaddress.ip_network)
    )
    converter.register_structure_hook_func(
        lambda type_: type_ == UpstreamName, _parsed(_upstream_name)
    )
    for kind in (Address, ipaddress.IPv4Network, ipaddress.IPv6Network):
        converter.register_unstructure_hook(kind, str)
    converter.register_unstructure_hook(StoreUrl, StoreUrl.reveal)
    converter.register_structure_hook_factory(_optional_table, optional)
    converter.register_structure_hook_factory(_is_table, table)
    return converter


_converter = _make_converter()
